"""The vendors: one module each, all behind :class:`cdi.vendors.base.VendorModule`.

Owns the list. Leaves out everything else.

>>> module(Vendor.AMD).support.kinds["gpu"]
'amd.com/gpu'
"""

from collections.abc import Mapping

from cdi.inventory import Vendor
from cdi.vendors import (
    amd,
    ascend,
    biren,
    cambricon,
    enflame,
    hygon,
    iluvatar,
    intel,
    kunlunxin,
    metax,
    mthreads,
    nvidia,
    vastai,
)
from cdi.vendors.base import VendorModule

MODULES: Mapping[Vendor, VendorModule] = {
    Vendor.NVIDIA: nvidia.MODULE,
    Vendor.AMD: amd.MODULE,
    Vendor.INTEL: intel.MODULE,
    Vendor.ASCEND: ascend.MODULE,
    Vendor.CAMBRICON: cambricon.MODULE,
    Vendor.HYGON: hygon.MODULE,
    Vendor.ILUVATAR: iluvatar.MODULE,
    Vendor.BIREN: biren.MODULE,
    Vendor.ENFLAME: enflame.MODULE,
    Vendor.METAX: metax.MODULE,
    Vendor.MTHREADS: mthreads.MODULE,
    Vendor.KUNLUNXIN: kunlunxin.MODULE,
    Vendor.VASTAI: vastai.MODULE,
}


def module(vendor: Vendor) -> VendorModule:
    """Return a vendor's module."""
    return MODULES[vendor]
