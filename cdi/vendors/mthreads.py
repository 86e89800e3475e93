"""Moore Threads: ``/dev/mtgpu.N`` and a DRM node for each card.

Owns the facts of Moore Threads. Discovery and edits are :mod:`cdi.vendors.simple`'s. Leaves out
sGPU slices.

>>> MODULE.support.kinds
{'gpu': 'mthreads.com/gpu'}
"""

from cdi.inventory import Vendor
from cdi.vendors.base import Basis, Support
from cdi.vendors.simple import SimpleVendor

MODULE = SimpleVendor(
    support=Support(
        vendor=Vendor.MTHREADS,
        kinds={"gpu": "mthreads.com/gpu"},
        basis=Basis.DOCUMENTED,
        source="docker run examples without the vendor's runtime",
        uncertain=(
            "the kind mthreads.com/gpu: the vendor publishes no CDI generator",
            "the node mtgpu.N: some documents write mtgpuN",
        ),
    ),
    main="/dev/mtgpu.{index}",
    pattern=r"mtgpu\.?(\d{1,4})",
    with_drm=True,
    binaries=("/usr/bin/mthreads-gmi",),
)
