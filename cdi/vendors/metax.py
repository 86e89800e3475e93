"""MetaX: control nodes ``mxcd``, ``mxnd`` and ``mxgd``, and a DRM node for each card.

Owns the facts of MetaX. Discovery and edits are :mod:`cdi.vendors.simple`'s. Leaves out sGPU
slices, which the vendor's driver configures for each container.

>>> MODULE.support.kinds
{'gpu': 'metax-tech.com/gpu'}
"""

from cdi.inventory import Vendor
from cdi.vendors.base import Basis, Support
from cdi.vendors.simple import SimpleVendor

MODULE = SimpleVendor(
    support=Support(
        vendor=Vendor.METAX,
        kinds={"gpu": "metax-tech.com/gpu"},
        basis=Basis.DOCUMENTED,
        source="the vendor's docker run examples and gpustack-runtime's generator",
        uncertain=(
            "the kind metax-tech.com/gpu: the vendor publishes no CDI generator",
            "which of mxnd and mxgd a container needs",
        ),
    ),
    pci_vendor="0x9999",
    control=("/dev/mxcd",),
    optional_control=("/dev/mxnd", "/dev/mxgd"),
    binaries=("/usr/bin/mx-smi",),
)
