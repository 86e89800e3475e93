"""Enflame: ``/dev/gcuN`` and ``/dev/gcuctl``.

Owns the facts of Enflame. Discovery and edits are :mod:`cdi.vendors.simple`'s. Leaves out
partitioned GCUs.

>>> MODULE.support.kinds
{'gcu': 'enflame.com/gcu'}
"""

from cdi.inventory import Vendor
from cdi.vendors.base import Basis, Support
from cdi.vendors.simple import SimpleVendor

MODULE = SimpleVendor(
    support=Support(
        vendor=Vendor.ENFLAME,
        kinds={"gcu": "enflame.com/gcu"},
        basis=Basis.DOCUMENTED,
        source="device plugins that hand these nodes to containers",
        uncertain=("the kind enflame.com/gcu: the vendor publishes no CDI generator",),
    ),
    main="/dev/gcu{index}",
    pattern=r"gcu(\d{1,4})",
    control=("/dev/gcuctl",),
    binaries=("/usr/sbin/efsmi",),
)
