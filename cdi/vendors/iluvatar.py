"""Iluvatar CoreX: ``/dev/iluvatarN``, and ``/dev/itrctl`` from driver 4.4 on.

Owns the facts of Iluvatar. Discovery and edits are :mod:`cdi.vendors.simple`'s. Leaves out the
CoreX libraries of ``/usr/local/corex``, which the vendor's images bring.

>>> MODULE.support.kinds
{'gpu': 'iluvatar.com/gpu'}
"""

from cdi.inventory import Vendor
from cdi.vendors.base import Basis, Support
from cdi.vendors.simple import SimpleVendor

MODULE = SimpleVendor(
    support=Support(
        vendor=Vendor.ILUVATAR,
        kinds={"gpu": "iluvatar.com/gpu"},
        basis=Basis.OFFICIAL,
        source="ix-ctk of ix-container-toolkit: kind, names and nodes; not its library mounts",
    ),
    main="/dev/iluvatar{index}",
    pattern=r"iluvatar(\d{1,4})",
    optional_control=("/dev/itrctl",),
)
