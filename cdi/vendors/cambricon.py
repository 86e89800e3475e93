"""Cambricon: ``/dev/cambricon_devN`` with the message nodes of its generation, and MIM instances.

Owns the facts of Cambricon. Discovery and edits are :mod:`cdi.vendors.simple`'s. Leaves out sMLU
slices, which the driver makes for each container.

>>> MODULE.support.kinds
{'mlu': 'cambricon.com/mlu'}
"""

from cdi.inventory import PartitionType, Vendor
from cdi.vendors.base import Basis, Support
from cdi.vendors.simple import SimpleVendor

MODULE = SimpleVendor(
    support=Support(
        vendor=Vendor.CAMBRICON,
        kinds={"mlu": "cambricon.com/mlu"},
        basis=Basis.OFFICIAL,
        source="cambricon-k8s-device-plugin: kind, the name mlu-N and the nodes of each card",
    ),
    main="/dev/cambricon_dev{index}",
    pattern=r"cambricon_dev(\d{1,4})",
    optional_own=(
        "/dev/cambricon_ipcm{index}",
        "/dev/cmsg_ctrl{index}",
        "/dev/commu{index}",
        "/dev/cambr-msgq:{index}",
        "/dev/cambr-rpc:{index}",
    ),
    control=("/dev/cambricon_ctl",),
    optional_control=("/dev/cambricon_gdr",),
    binaries=("/usr/bin/cnmon",),
    # The plugin asks for cambricon.com/mlu=mlu-0 where it works through CDI.
    type_prefix="mlu-",
    partition="/dev/cambricon-caps/cap_dev{index}_mi{part}",
    partition_type=PartitionType.MIM,
)
