"""Biren: ``/dev/biren/card_N`` with a DRM render node.

Owns the facts of Biren. Discovery and edits are :mod:`cdi.vendors.simple`'s. Leaves out SVI
instances, which appear as cards of their own.

>>> MODULE.support.kinds
{'gpu': 'birentech.com/gpu'}
"""

from cdi.inventory import Vendor
from cdi.vendors.base import Basis, Support
from cdi.vendors.simple import SimpleVendor

MODULE = SimpleVendor(
    support=Support(
        vendor=Vendor.BIREN,
        kinds={"gpu": "birentech.com/gpu"},
        basis=Basis.DOCUMENTED,
        source="the vendor's device plugin and docker examples",
        uncertain=(
            "which of biren-m and the DRM nodes a container needs",
            "the vendor's own specs are not valid CDI, so they cannot be compared",
        ),
    ),
    main="/dev/biren/card_{index}",
    pattern=r"card_(\d{1,4})",
    sys_class="/sys/class/biren",
    with_drm=True,
    optional_control=("/dev/biren-m",),
    libraries=("/usr/lib/libbiren-ml.so*",),
    binaries=("/usr/bin/brsmi",),
)
