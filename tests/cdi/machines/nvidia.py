"""NVIDIA machines as their driver's documentation and nvidia-ctk's own tests describe them."""

from tests.cdi.machines.build import Machine, pci, together

VERSION = "580.95.05"
LIB = "/usr/lib/x86_64-linux-gnu"


def information(product, uuid, address, minor):
    return (
        f"Model: \t\t {product}\n"
        "IRQ:   \t\t 142\n"
        f"GPU UUID: \t {uuid}\n"
        "Video BIOS: \t 96.00.cf.00.01\n"
        "Bus Type: \t PCIe\n"
        "DMA Size: \t 52 bits\n"
        f"Bus Location: \t {address}\n"
        f"Device Minor: \t {minor}\n"
        "GPU Excluded:\t No\n"
    )


def gpu(index, address, uuid, product="NVIDIA H200", device="0x2335", numa=0):
    card, render = f"card{index + 1}", f"renderD{index + 128}"
    return pci(
        address, "0x10de", device, "0x030200", driver="nvidia", numa=numa, drm=[card, render]
    ) | Machine(
        files={
            f"/proc/driver/nvidia/gpus/{address}/information": information(
                product, uuid, address, index
            )
        },
        links={
            f"/dev/dri/by-path/pci-{address}-card": f"../{card}",
            f"/dev/dri/by-path/pci-{address}-render": f"../{render}",
        },
        nodes=[
            f"/dev/nvidia{index} c 195:{index} 0666 0:0",
            f"/dev/dri/{card} c 226:{index + 1} 0660 0:44",
            f"/dev/dri/{render} c 226:{index + 128} 0660 0:109",
        ],
    )


def control(*, uvm=510, version=VERSION):
    return Machine(
        files={
            "/proc/driver/nvidia/version": (
                f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build"
                "  (dvs-builder@U22-I3-AM02-24-3)  Tue Sep 23 10:11:16 UTC 2025\n"
                "GCC version:  gcc version 12.3.0\n"
            ),
            "/proc/sys/kernel/osrelease": "6.8.0-79-generic\n",
        },
        nodes=[
            "/dev/nvidiactl c 195:255 0666 0:0",
            "/dev/nvidia-modeset c 195:254 0666 0:0",
            f"/dev/nvidia-uvm c {uvm}:0 0666 0:0",
            f"/dev/nvidia-uvm-tools c {uvm}:1 0666 0:0",
        ],
    )


def driver(*, root="", lib=LIB, version=VERSION):
    """Describe a driver's user space: some libraries of each kind, with their links."""
    place = f"{root}{lib}"
    names = ["libcuda", "libnvidia-ml", "libGLX_nvidia", "libnvidia-allocator"]
    return Machine(
        empty=[
            *(f"{place}/{name}.so.{version}" for name in names),
            f"{place}/vdpau/libvdpau_nvidia.so.{version}",
            f"{place}/libnvidia-egl-gbm.so.1.1.2",
            f"{place}/libcudart.so.12.4.99",  # not the driver's
            f"{root}/lib/firmware/nvidia/{version}/gsp_ga10x.bin",
            f"{root}/lib/firmware/nvidia/{version}/gsp_tu10x.bin",
            f"{root}/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
            f"{root}/usr/share/vulkan/icd.d/nvidia_icd.json",
            f"{root}/run/nvidia-persistenced/socket",
        ],
        programs=[f"{root}/usr/bin/nvidia-smi", f"{root}/usr/bin/nvidia-cuda-mps-control"],
        links={
            f"{place}/libcuda.so.1": f"libcuda.so.{version}",
            f"{place}/libcuda.so": "libcuda.so.1",
            f"{place}/libnvidia-ml.so.1": f"libnvidia-ml.so.{version}",
            f"{place}/libGLX_nvidia.so.0": f"libGLX_nvidia.so.{version}",
            f"{place}/libnvidia-allocator.so.1": f"libnvidia-allocator.so.{version}",
            f"{place}/libcudart.so.12": "libcudart.so.12.4.99",
        },
    )


HOOK = Machine(programs=["/usr/bin/nvidia-cdi-hook"])
UUIDS = (
    "GPU-6d1c2f30-8a4e-9d6b-1c57-2f0e9a7b3c41",
    "GPU-0b9e4c12-77ad-31f5-8e60-94d2c5a1b7f3",
)
TWO_H200 = together(
    gpu(0, "0000:17:00.0", UUIDS[0]),
    gpu(1, "0000:65:00.0", UUIDS[1], numa=1),
    control(),
    driver(),
    HOOK,
)

# The driver in a container, as the GPU operator runs it: device nodes lie there, too.
ROOT = "/run/nvidia/driver"
_IN_ROOT = Machine(
    nodes=[
        f"{ROOT}/dev/nvidia0 c 195:0 0666 0:0",
        f"{ROOT}/dev/nvidiactl c 195:255 0666 0:0",
        f"{ROOT}/dev/nvidia-modeset c 195:254 0666 0:0",
        f"{ROOT}/dev/nvidia-uvm c 510:0 0666 0:0",
        f"{ROOT}/dev/nvidia-uvm-tools c 510:1 0666 0:0",
    ]
)
_BARE_GPU = pci("0000:17:00.0", "0x10de", "0x2335", "0x030200", driver="nvidia") | Machine(
    files={
        "/proc/driver/nvidia/gpus/0000:17:00.0/information": information(
            "NVIDIA H200", UUIDS[0], "0000:17:00.0", 0
        )
    }
)
DRIVER_ROOT = together(
    _BARE_GPU,
    _IN_ROOT,
    Machine(files={"/proc/sys/kernel/osrelease": "6.8.0-79-generic\n"}),
    driver(root=ROOT, lib="/usr/lib64"),
    Machine(programs=["/usr/local/nvidia/toolkit/nvidia-cdi-hook"]),
)


def mig_minors(gpus=2):
    """Return mig-minors as the driver numbers them: nine to a GPU instance, 15 to a GPU."""
    lines = ["config 1", "monitor 2"]
    minor = 3
    for index in range(gpus):
        for gi in range(15):
            lines.append(f"gpu{index}/gi{gi}/access {minor}")
            lines += [f"gpu{index}/gi{gi}/ci{ci}/access {minor + 1 + ci}" for ci in range(8)]
            minor += 9
    return "\n".join(lines) + "\n"


# Two GPUs: one whole, one with a 3g and a 1g instance.
MIG = together(
    gpu(0, "0000:07:00.0", UUIDS[0], "NVIDIA A100-SXM4-40GB", "0x20b0"),
    gpu(1, "0000:0f:00.0", UUIDS[1], "NVIDIA A100-SXM4-40GB", "0x20b0", numa=1),
    control(),
    Machine(
        files={"/proc/driver/nvidia-caps/mig-minors": mig_minors()},
        empty=[
            "/proc/driver/nvidia/capabilities/gpu1/mig/gi2/access",
            "/proc/driver/nvidia/capabilities/gpu1/mig/gi2/ci0/access",
            "/proc/driver/nvidia/capabilities/gpu1/mig/gi9/access",
            "/proc/driver/nvidia/capabilities/gpu1/mig/gi9/ci0/access",
        ],
        nodes=[
            "/dev/nvidia-caps/nvidia-cap1 c 507:1 0400 0:0",
            "/dev/nvidia-caps/nvidia-cap2 c 507:2 0444 0:0",
            "/dev/nvidia-caps/nvidia-cap156 c 507:156 0444 0:0",
            "/dev/nvidia-caps/nvidia-cap157 c 507:157 0444 0:0",
            "/dev/nvidia-caps/nvidia-cap219 c 507:219 0444 0:0",
            "/dev/nvidia-caps/nvidia-cap220 c 507:220 0444 0:0",
        ],
    ),
)

# What nvidia-ctk's library was run over, with its own mock of an eight-GPU NVML: the same files,
# real device nodes, and libraries with the sonames that the links have.
ORACLE_VERSION = "550.54.15"
ORACLE = together(
    control(version=ORACLE_VERSION),
    driver(version=ORACLE_VERSION),
    HOOK,
    Machine(nodes=[f"/dev/nvidia{minor} c 195:{minor} 0666 0:0" for minor in range(8)]),
)
