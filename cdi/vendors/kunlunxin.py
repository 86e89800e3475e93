"""Kunlunxin: ``/dev/xpuN`` and ``/dev/xpuctrl``.

Owns the facts of Kunlunxin. Discovery and edits are :mod:`cdi.vendors.simple`'s. Leaves out vXPU
slices.

>>> MODULE.support.kinds
{'xpu': 'kunlunxin.com/xpu'}
"""

from cdi.inventory import Vendor
from cdi.vendors.base import Basis, Support
from cdi.vendors.simple import SimpleVendor

MODULE = SimpleVendor(
    support=Support(
        vendor=Vendor.KUNLUNXIN,
        kinds={"xpu": "kunlunxin.com/xpu"},
        basis=Basis.DOCUMENTED,
        source="the frameworks' docker run examples and a published device listing",
        uncertain=(
            "the kind kunlunxin.com/xpu: the vendor publishes no CDI generator",
            "whether xpuctrl exists with every driver",
        ),
    ),
    main="/dev/xpu{index}",
    pattern=r"xpu(\d{1,4})",
    control=("/dev/xpuctrl",),
    libraries=("/usr/local/xpu",),
    binaries=("/usr/local/bin/xpu-smi",),
)
