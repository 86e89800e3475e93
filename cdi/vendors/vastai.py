"""Vastai: four nodes for each card, and two that all cards share.

Owns the facts of Vastai. Discovery and edits are :mod:`cdi.vendors.simple`'s.

>>> MODULE.support.kinds
{'va': 'vastaitech.com/va'}
"""

from cdi.inventory import Vendor
from cdi.vendors.base import Basis, Support
from cdi.vendors.simple import SimpleVendor

MODULE = SimpleVendor(
    support=Support(
        vendor=Vendor.VASTAI,
        kinds={"va": "vastaitech.com/va"},
        basis=Basis.DOCUMENTED,
        source="a published container script that passes these nodes",
        uncertain=(
            "the kind vastaitech.com/va: the vendor publishes no CDI generator",
            "every node name: the vendor documents none in public",
        ),
    ),
    main="/dev/va{index}_ctl",
    pattern=r"va(\d{1,4})_ctl",
    own=("/dev/va_video{index}", "/dev/vacc{index}"),
    with_drm=True,
    control=("/dev/va_sync",),
    optional_control=("/dev/vatools",),
    libraries=("/usr/lib/libvaml.so*",),
)
