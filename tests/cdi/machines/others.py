"""Machines of the other vendors, from the public sources named in docs/cdi-vendors.md."""

from tests.cdi.machines.build import Machine, pci, together

AMDGPU = "/sys/module/amdgpu/drivers/pci:amdgpu"
KFD = "/sys/class/kfd/kfd/topology/nodes"


def kfd_node(number, *, minor=0, unique=0):
    properties = f"cpu_cores_count 0\nsimd_count 1216\nsimd_per_cu 4\nunique_id {unique}\ndrm_render_minor {minor}\n"
    return Machine(files={f"{KFD}/{number}/properties": properties})


def mi300x(address, card, render, unique, node, numa):
    path = f"/sys/devices/pci0000:00/{address}"
    return together(
        Machine(
            files={
                f"{path}/vendor": "0x1002\n",
                f"{path}/device": "0x74a1\n",
                f"{path}/class": "0x120000\n",
                f"{path}/numa_node": f"{numa}\n",
                f"{path}/mem_info_vram_total": "206141652992\n",
                f"{path}/product_name": "AMD Instinct MI300X OAM\n",
            },
            directories=[f"{path}/drm/card{card}", f"{path}/drm/renderD{render}"],
            links={
                f"/sys/bus/pci/devices/{address}": f"../../../devices/pci0000:00/{address}",
                f"{AMDGPU}/{address}": f"../../../../devices/pci0000:00/{address}",
            },
            nodes=[
                f"/dev/dri/card{card} c 226:{card} 0660 0:44",
                f"/dev/dri/renderD{render} c 226:{render} 0660 0:109",
            ],
        ),
        kfd_node(node, minor=render, unique=unique),
    )


KFD_NODE = Machine(
    nodes=["/dev/kfd c 235:0 0660 0:109"], files={"/sys/module/amdgpu/version": "6.12.12\n"}
)
# The second card comes first by PCI address and second by its card number.
TWO_MI300X = together(
    kfd_node(0),
    mi300x("0000:05:00.0", 1, 128, 12345678901234567890, 1, 0),
    mi300x("0000:26:00.0", 9, 136, 1234567890123456789, 2, 1),
    KFD_NODE,
)


def xcp(number, card, render, unique, node):
    path = f"/sys/devices/platform/amdgpu_xcp_{number}"
    return together(
        Machine(
            directories=[f"{path}/drm/card{card}", f"{path}/drm/renderD{render}"],
            nodes=[
                f"/dev/dri/card{card} c 226:{card} 0660 0:44",
                f"/dev/dri/renderD{render} c 226:{render} 0660 0:109",
            ],
        ),
        kfd_node(node, minor=render, unique=unique),
    )


# One card in DPX mode: the second half is a platform device with the same unique id.
MI300X_DPX = together(
    kfd_node(0),
    mi300x("0000:05:00.0", 1, 128, 12345678901234567890, 1, 0),
    xcp(0, 2, 129, 12345678901234567890, 2),
    KFD_NODE,
)

FLEX = together(
    pci("0000:03:00.0", "0x8086", "0x56c0", "0x038000", driver="i915", drm=["card1", "renderD128"]),
    Machine(
        links={
            "/dev/dri/by-path/pci-0000:03:00.0-card": "../card1",
            "/dev/dri/by-path/pci-0000:03:00.0-render": "../renderD128",
        },
        nodes=[
            "/dev/dri/card1 c 226:1 0660 0:44",
            "/dev/dri/renderD128 c 226:128 0660 0:109",
        ],
    ),
)


def gaudi(address, number, uverbs=None):
    path = f"/sys/bus/pci/devices/{address}"
    directories = [f"{path}/accel/accel{number}"]
    nodes = [
        f"/dev/accel/accel{number} c 261:{2 * number} 0666 0:0",
        f"/dev/accel/accel_controlD{number} c 261:{2 * number + 1} 0666 0:0",
    ]
    if uverbs is not None:
        directories.append(f"{path}/infiniband_verbs/uverbs{uverbs}")
        nodes.append(f"/dev/infiniband/uverbs{uverbs} c 231:{192 + uverbs} 0666 0:0")
    return pci(address, "0x1da3", "0x1020", "0x120000", driver="habanalabs") | Machine(
        directories=directories, nodes=nodes
    )


TWO_GAUDI2 = together(gaudi("0000:19:00.0", 0, uverbs=3), gaudi("0000:1a:00.0", 1))

_ASCEND_FILES = Machine(
    files={
        "/usr/local/Ascend/driver/version.info": "Version=24.1.rc2\nascendhal_version=7.35.19\n"
    },
    directories=[
        "/usr/local/Ascend/driver/lib64/common",
        "/usr/local/Ascend/driver/lib64/driver",
        "/usr/local/Ascend/driver/include",
        "/usr/local/dcmi",
    ],
    programs=["/usr/local/bin/npu-smi"],
)
_ASCEND_SHARED = Machine(
    nodes=[
        "/dev/davinci_manager c 504:0 0660 0:1000",
        "/dev/devmm_svm c 503:0 0660 0:1000",
        "/dev/hisi_hdc c 505:0 0660 0:1000",
        "/dev/dvpp_cmdlist c 506:0 0660 0:1000",
    ]
)


def npu(index, address):
    return Machine(
        nodes=[f"/dev/davinci{index} c 502:{index} 0660 0:1000"],
        links={f"/sys/dev/char/502:{index}": f"../../devices/pci0000:c0/{address}/davinci{index}"},
        directories=[f"/sys/devices/pci0000:c0/{address}/davinci{index}"],
        files={f"/sys/bus/pci/devices/{address}/numa_node": "6\n"},
    )


TWO_910B = together(npu(0, "0000:c1:00.0"), npu(1, "0000:c2:00.0"), _ASCEND_SHARED, _ASCEND_FILES)
# The first NPU is divided into two vNPUs.
VNPU = TWO_910B | Machine(
    nodes=["/dev/vdavinci100 c 499:100 0660 0:1000", "/dev/vdavinci101 c 499:101 0660 0:1000"]
)
ATLAS_310B = together(
    Machine(
        nodes=[
            "/dev/davinci0 c 502:0 0660 0:1000",
            "/dev/davinci_manager c 504:0 0660 0:1000",
            "/dev/davinci_manager_docker c 504:1 0660 0:1000",
            "/dev/svm0 c 503:0 0660 0:1000",
            "/dev/ts_aisle c 507:0 0660 0:1000",
            "/dev/sys c 508:0 0660 0:1000",
        ]
    ),
    _ASCEND_FILES,
)

MLU = Machine(
    nodes=[
        "/dev/cambricon_dev0 c 237:0 0666 0:0",
        "/dev/cambricon_dev1 c 237:1 0666 0:0",
        "/dev/cambricon_ipcm0 c 238:0 0666 0:0",
        "/dev/cambricon_ipcm1 c 238:1 0666 0:0",
        "/dev/cambricon_ctl c 239:0 0666 0:0",
    ],
    programs=["/usr/bin/cnmon"],
)
MLU_MIM = MLU | Machine(
    nodes=[
        "/dev/cambricon-caps/cap_dev1_mi1 c 240:1 0666 0:0",
        "/dev/cambricon-caps/cap_dev1_mi3 c 240:3 0666 0:0",
    ]
)
DCU = together(
    pci("0000:33:00.0", "0x1d94", "0x54b7", "0x038000", numa=1, drm=["card1", "renderD128"]),
    Machine(
        nodes=[
            "/dev/kfd c 241:0 0666 0:0",
            "/dev/mkfd c 242:0 0666 0:0",
            "/dev/dri/card1 c 226:1 0666 0:0",
            "/dev/dri/renderD128 c 226:128 0666 0:0",
        ],
        directories=["/opt/hyhal"],
    ),
)
ILUVATAR = Machine(
    nodes=[
        "/dev/iluvatar0 c 511:0 0666 0:0",
        "/dev/iluvatar1 c 511:1 0666 0:0",
        "/dev/itrctl c 510:0 0666 0:0",
    ]
)
BIREN = together(
    pci("0000:5e:00.0", "0x1ee0", "0x0001", "0x120000", numa=0, drm=["card2", "renderD129"]),
    Machine(
        links={
            "/sys/class/biren/card_0/device": "../../../bus/pci/devices/0000:5e:00.0",
            "/usr/lib/libbiren-ml.so.1": "libbiren-ml.so.1.2",
        },
        nodes=[
            "/dev/biren/card_0 c 236:0 0666 0:0",
            "/dev/biren-m c 236:255 0666 0:0",
            "/dev/dri/card2 c 226:2 0666 0:0",
            "/dev/dri/renderD129 c 226:129 0666 0:0",
        ],
        empty=["/usr/lib/libbiren-ml.so.1.2"],
        programs=["/usr/bin/brsmi"],
    ),
)
ENFLAME = Machine(
    nodes=[
        "/dev/gcu0 c 500:0 0666 0:0",
        "/dev/gcu1 c 500:1 0666 0:0",
        "/dev/gcuctl c 500:64 0666 0:0",
    ],
    programs=["/usr/sbin/efsmi"],
)
METAX = together(
    pci("0000:08:00.0", "0x9999", "0x4001", "0x030200", drm=["card1", "renderD128"]),
    Machine(
        nodes=[
            "/dev/mxcd c 501:0 0666 0:0",
            "/dev/dri/card1 c 226:1 0666 0:0",
            "/dev/dri/renderD128 c 226:128 0666 0:0",
        ]
    ),
)
MTHREADS = together(
    pci("0000:3b:00.0", "0x1ed5", "0x0327", "0x030000", drm=["card1", "renderD128"]),
    Machine(
        links={"/sys/dev/char/509:0": "../../bus/pci/devices/0000:3b:00.0"},
        nodes=[
            "/dev/mtgpu.0 c 509:0 0666 0:0",
            "/dev/dri/card1 c 226:1 0666 0:0",
            "/dev/dri/renderD128 c 226:128 0666 0:0",
        ],
        programs=["/usr/bin/mthreads-gmi"],
    ),
)
# Numbers as a published listing of a two-card machine has them.
KUNLUNXIN = Machine(
    nodes=[
        "/dev/xpu0 c 243:0 0666 0:0",
        "/dev/xpu1 c 243:1 0666 0:0",
        "/dev/xpuctrl c 243:128 0666 0:0",
    ],
    directories=["/usr/local/xpu"],
)
VASTAI = together(
    pci("0000:1a:00.0", "0x1ec6", "0x0100", "0x030000", drm=["card1", "renderD128"]),
    Machine(
        links={"/sys/dev/char/508:0": "../../bus/pci/devices/0000:1a:00.0"},
        nodes=[
            "/dev/va0_ctl c 508:0 0666 0:0",
            "/dev/va_video0 c 507:0 0666 0:0",
            "/dev/vacc0 c 506:0 0666 0:0",
            "/dev/va_sync c 505:0 0666 0:0",
            "/dev/dri/card1 c 226:1 0666 0:0",
            "/dev/dri/renderD128 c 226:128 0666 0:0",
        ],
    ),
)
