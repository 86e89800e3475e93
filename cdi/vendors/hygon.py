"""Hygon DCU: AMD's kfd interface with a node of its own beside it.

Owns the facts of Hygon. Discovery and edits are :mod:`cdi.vendors.simple`'s. Leaves out virtual
DCUs, which need a configuration under ``/etc/vdev/docker`` for each container.

>>> MODULE.support.kinds
{'dcu': 'hygon.com/dcu'}
"""

from cdi.inventory import Vendor
from cdi.vendors.base import Basis, Support
from cdi.vendors.simple import SimpleVendor

MODULE = SimpleVendor(
    support=Support(
        vendor=Vendor.HYGON,
        kinds={"dcu": "hygon.com/dcu"},
        basis=Basis.DOCUMENTED,
        source="the device plugin's nodes and the vendor's docker run examples",
        uncertain=("the kind hygon.com/dcu: the vendor publishes no CDI generator",),
    ),
    pci_vendor="0x1d94",
    control=("/dev/kfd", "/dev/mkfd"),
    libraries=("/opt/hyhal",),
)
