"""Discovery: each vendor's machine is found as it is, and what is missing is said."""

import re

import pytest

from cdi.discovery.tree import Tree
from cdi.generate import generate
from cdi.inventory import TYPES, Vendor
from cdi.inventory_discover import add_driver_files, discover
from cdi.inventory_load import InvalidInventoryError, load_inventory
from cdi.names import kind_fault
from cdi.vendors import MODULES
from cdi.vendors.base import NoteKind
from cdi.vendors.nvidia_driver import find_driver, loaded_version
from tests.cdi.machines import nvidia, others
from tests.cdi.machines.build import Machine, build, pci, together
from tests.cdi.machines.ldcache import cache


def nodes_of(spec, name):
    device = next(device for device in spec.devices if device.name == name)
    return [(node.path, node.major, node.minor) for node in device.container_edits.device_nodes]


# Vendor, machine, kind, the nodes of device 0, the common nodes, the mounts' container paths.
CASES = [
    (
        Vendor.CAMBRICON,
        others.MLU,
        "cambricon.com/mlu",
        ["/dev/cambricon_dev0", "/dev/cambricon_ipcm0"],
        ["/dev/cambricon_ctl"],
        ["/usr/bin/cnmon"],
    ),
    (
        Vendor.HYGON,
        others.DCU,
        "hygon.com/dcu",
        ["/dev/dri/card1", "/dev/dri/renderD128"],
        ["/dev/kfd", "/dev/mkfd"],
        ["/opt/hyhal"],
    ),
    (
        Vendor.ILUVATAR,
        others.ILUVATAR,
        "iluvatar.com/gpu",
        ["/dev/iluvatar0"],
        ["/dev/itrctl"],
        [],
    ),
    (
        Vendor.BIREN,
        others.BIREN,
        "birentech.com/gpu",
        ["/dev/biren/card_0", "/dev/dri/card2", "/dev/dri/renderD129"],
        ["/dev/biren-m"],
        ["/usr/bin/brsmi", "/usr/lib/libbiren-ml.so.1", "/usr/lib/libbiren-ml.so.1.2"],
    ),
    (
        Vendor.ENFLAME,
        others.ENFLAME,
        "enflame.com/gcu",
        ["/dev/gcu0"],
        ["/dev/gcuctl"],
        ["/usr/sbin/efsmi"],
    ),
    (
        Vendor.METAX,
        others.METAX,
        "metax-tech.com/gpu",
        ["/dev/dri/card1", "/dev/dri/renderD128"],
        ["/dev/mxcd"],
        [],
    ),
    (
        Vendor.MTHREADS,
        others.MTHREADS,
        "mthreads.com/gpu",
        ["/dev/mtgpu.0", "/dev/dri/card1", "/dev/dri/renderD128"],
        [],
        ["/usr/bin/mthreads-gmi"],
    ),
    (
        Vendor.KUNLUNXIN,
        others.KUNLUNXIN,
        "kunlunxin.com/xpu",
        ["/dev/xpu0"],
        ["/dev/xpuctrl"],
        ["/usr/local/xpu"],
    ),
    (
        Vendor.VASTAI,
        others.VASTAI,
        "vastaitech.com/va",
        [
            "/dev/va0_ctl",
            "/dev/va_video0",
            "/dev/vacc0",
            "/dev/dri/card1",
            "/dev/dri/renderD128",
        ],
        ["/dev/va_sync"],
        [],
    ),
]


class TestSimpleVendors:
    @pytest.mark.parametrize(
        ("vendor", "machine", "kind", "own", "common", "mounts"),
        CASES,
        ids=[case[0].value for case in CASES],
    )
    def test_nodes_and_files(self, tmp_path, vendor, machine, kind, own, common, mounts):
        found = discover(build(tmp_path, machine))
        assert found.inventory.vendors == (vendor,)
        (spec,) = generate(found.inventory).specs
        assert spec.kind == kind
        assert [path for path, _, _ in nodes_of(spec, "0")] == own
        assert [node.path for node in spec.container_edits.device_nodes] == common
        assert [mount.container_path for mount in spec.container_edits.mounts] == mounts
        numbered = [node for _, edits in spec.all_edits() for node in edits.device_nodes]
        assert all(node.major and node.type == "c" for node in numbered)

    def test_a_cambricon_card_divided_by_mim(self, tmp_path):
        found = discover(build(tmp_path, others.MLU_MIM)).inventory
        (spec,) = generate(found).specs
        assert [device.name for device in spec.devices] == ["0", "1:1", "1:3", "all"]
        assert [path for path, _, _ in nodes_of(spec, "1:3")] == [
            "/dev/cambricon_dev1",
            "/dev/cambricon_ipcm1",
            "/dev/cambricon-caps/cap_dev1_mi3",
        ]

    def test_a_missing_control_node_is_said(self, tmp_path):
        machine = Machine(nodes=["/dev/gcu0 c 500:0 0666 0:0"])
        (note,) = discover(build(tmp_path, machine)).notes
        assert str(note) == (
            "enflame: left out: control node /dev/gcuctl: it does not exist on this machine"
        )

    def test_drm_nodes_that_sysfs_does_not_lead_to_are_said(self, tmp_path):
        machine = Machine(nodes=["/dev/mtgpu.0 c 509:0 0666 0:0"])
        (note,) = discover(build(tmp_path, machine)).notes
        assert "DRM nodes of /dev/mtgpu.0" in note.text


class TestAmd:
    def test_facts_of_a_card(self, tmp_path):
        inventory = discover(build(tmp_path, others.TWO_MI300X)).inventory
        first = inventory.devices[0]
        assert (first.index, first.pci, first.numa, first.render) == (0, "0000:05:00.0", 0, 128)
        assert first.uuid == "GPU-ab54a98ceb1f0ad2"
        assert first.product == "AMD Instinct MI300X OAM"
        assert first.memory == 206141652992
        assert first.attributes == {"computeUnits": 304}
        assert inventory.driver(Vendor.AMD).version == "6.12.12"

    def test_partitions_are_devices_of_their_card(self, tmp_path):
        inventory = discover(build(tmp_path, others.MI300X_DPX)).inventory
        assert [(d.index, d.render, d.pci, d.uuid) for d in inventory.devices] == [
            (0, 128, "0000:05:00.0", ""),
            (1, 129, "0000:05:00.0", ""),
        ]
        assert {d.attributes["uniqueID"] for d in inventory.devices} == {"GPU-ab54a98ceb1f0ad2"}
        (spec,) = generate(inventory).specs
        assert [path for path, _, _ in nodes_of(spec, "1")] == [
            "/dev/dri/card2",
            "/dev/dri/renderD129",
            "/dev/kfd",
        ]

    def test_an_old_kernel_does_not_say_the_compute_units(self, tmp_path):
        root = build(tmp_path, others.TWO_MI300X)
        for path in root.glob(f"{others.KFD[1:]}/*/properties"):
            path.write_text(path.read_text().replace("simd_per_cu 4", "simd_per_cu 0"))
        assert all(device.attributes == {} for device in discover(root).inventory.devices)

    def test_a_machine_without_kfd_is_said(self, tmp_path):
        machine = others.mi300x("0000:05:00.0", 1, 128, 1, 1, 0)
        found = discover(build(tmp_path, machine))
        assert [note.kind for note in found.notes] == [NoteKind.LEFT_OUT]
        assert "/dev/kfd" in found.notes[0].text


class TestIntel:
    def test_a_gpu_under_vfio_is_not_one(self, tmp_path):
        machine = pci("0000:03:00.0", "0x8086", "0x56c0", "0x038000", driver="vfio-pci")
        assert discover(build(tmp_path, machine)).inventory is None

    def test_by_path_mounts_only_for_links_that_exist(self, tmp_path):
        machine = together(
            pci("0000:03:00.0", "0x8086", "0x56c0", "0x038000", driver="xe", drm=["renderD128"]),
            Machine(nodes=["/dev/dri/renderD128 c 226:128 0660 0:109"]),
        )
        (spec,) = generate(discover(build(tmp_path, machine)).inventory).specs
        assert all(not device.container_edits.mounts for device in spec.devices)


class TestAscend:
    def test_facts(self, tmp_path):
        inventory = discover(build(tmp_path, others.TWO_910B)).inventory
        assert inventory.driver(Vendor.ASCEND).version == "24.1.rc2"
        assert [(d.pci, d.numa) for d in inventory.devices] == [
            ("0000:c1:00.0", 6),
            ("0000:c2:00.0", 6),
        ]

    def test_310b_has_a_manager_of_its_own(self, tmp_path):
        (spec,) = generate(discover(build(tmp_path, others.ATLAS_310B)).inventory).specs
        first, *rest = spec.container_edits.device_nodes
        assert (first.path, first.host_path) == (
            "/dev/davinci_manager",
            "/dev/davinci_manager_docker",
        )
        assert [node.path for node in rest] == ["/dev/svm0", "/dev/ts_aisle", "/dev/sys"]

    def test_missing_shared_nodes_are_said(self, tmp_path):
        found = discover(build(tmp_path, others.npu(0, "0000:c1:00.0")))
        assert [note.text.partition(":")[0] for note in found.notes] == [
            "shared node /dev/davinci_manager",
            "shared node /dev/devmm_svm",
            "shared node /dev/hisi_hdc",
        ]


class TestNvidia:
    def test_facts(self, tmp_path):
        inventory = discover(build(tmp_path, nvidia.TWO_H200)).inventory
        second = inventory.devices[1]
        assert (second.index, second.minor, second.uuid) == (1, 1, nvidia.UUIDS[1])
        assert (second.product, second.pci, second.numa) == ("NVIDIA H200", "0000:65:00.0", 1)

    def test_a_uuid_of_question_marks_is_none(self, tmp_path):
        unused = nvidia.gpu(0, "0000:17:00.0", "GPU-????????-????-????-????-????????????")
        inventory = discover(build(tmp_path, unused)).inventory
        assert inventory.devices[0].uuid == ""

    def test_mig_without_nvml_says_what_it_lacks(self, tmp_path):
        notes = discover(build(tmp_path, nvidia.MIG)).notes
        assert any("UUIDs and profiles of the MIG devices of GPU 1" in note.text for note in notes)

    def test_imex_channels_are_a_kind_of_their_own(self, tmp_path):
        machine = nvidia.TWO_H200 | Machine(
            nodes=[
                "/dev/nvidia-caps-imex-channels/channel0 c 506:0 0666 0:0",
                "/dev/nvidia-caps-imex-channels/channel2047 c 506:2047 0666 0:0",
            ]
        )
        gpu, channels = generate(discover(build(tmp_path, machine)).inventory).specs
        assert (gpu.kind, channels.kind) == ("nvidia.com/gpu", "nvidia.com/imex-channel")
        assert [device.name for device in channels.devices] == ["0", "2047", "all"]
        assert nodes_of(channels, "2047") == [
            ("/dev/nvidia-caps-imex-channels/channel2047", 506, 2047)
        ]
        assert channels.container_edits.env == ("NVIDIA_VISIBLE_DEVICES=void",)
        assert not channels.container_edits.mounts

    def test_gpus_without_a_loaded_driver_are_said(self, tmp_path):
        machine = pci("0000:17:00.0", "0x10de", "0x2335", "0x030200")
        found = discover(build(tmp_path, machine))
        assert found.inventory is None
        (note,) = found.notes
        assert note.kind is NoteKind.WARNING
        assert "0000:17:00.0" in note.text
        assert "modprobe nvidia" in note.text

    def test_a_kernel_module_of_another_version_is_said(self, tmp_path):
        machine = together(
            nvidia.gpu(0, "0000:17:00.0", nvidia.UUIDS[0]),
            nvidia.control(),
            nvidia.driver(version="580.105.08"),
        )
        notes = discover(build(tmp_path, machine)).notes
        assert any(
            note.text.startswith("the kernel module is 580.95.05 and the libraries are 580.105.08")
            for note in notes
        )

    def test_nodes_alone_are_gpus_where_procfs_is_hidden(self, tmp_path):
        inventory = discover(build(tmp_path, nvidia.ORACLE)).inventory
        assert [(d.index, d.minor, d.uuid) for d in inventory.devices][:2] == [
            (0, 0, ""),
            (1, 1, ""),
        ]
        assert len(inventory.devices) == 8

    @pytest.mark.parametrize(
        ("text", "version"),
        [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32",
                "535.129.03",
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build",
                "580.95.05",
            ),
            ("nothing", ""),
        ],
    )
    def test_version_of_the_kernel_module(self, tmp_path, text, version):
        machine = Machine(files={"/proc/driver/nvidia/version": text})
        assert loaded_version(Tree(build(tmp_path, machine))) == version


class TestNvidiaDriver:
    def find(self, tmp_path, machine, root="/"):
        return find_driver(Tree(build(tmp_path, machine)), root)

    def test_no_libraries_is_a_note(self, tmp_path):
        driver, (note,) = self.find(tmp_path, nvidia.control())
        assert not driver.has_files
        assert "no libcuda.so.*" in note.text

    @pytest.mark.parametrize("directory", ["/usr/lib64", "/lib/aarch64-linux-gnu", "/lib64"])
    def test_places(self, tmp_path, directory):
        driver, notes = self.find(tmp_path, nvidia.driver(lib=directory))
        assert driver.version == nvidia.VERSION
        assert driver.libraries[0].path.startswith(f"{directory}/")
        assert notes == ()

    def test_the_linkers_cache_leads_to_unusual_places(self, tmp_path):
        machine = nvidia.driver(lib="/opt/nvidia/lib")
        root = build(tmp_path, machine)
        assert find_driver(Tree(root), "/")[0].version == ""
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc/ld.so.cache").write_bytes(
            cache({"libcuda.so.1": "/opt/nvidia/lib/libcuda.so.1"})
        )
        assert find_driver(Tree(root), "/")[0].libraries[0].path.startswith("/opt/nvidia/lib/")

    def test_debians_alternatives(self, tmp_path):
        """There libcuda.so.1 leads through /etc/alternatives, and containers have no such path."""
        lib = "/usr/lib/x86_64-linux-gnu"
        current = f"{lib}/nvidia/current"
        machine = Machine(
            empty=[f"{current}/libcuda.so.535.247.01"],
            links={
                f"{current}/libcuda.so.1": "/etc/alternatives/glx--libcuda.so.1-x86_64-linux-gnu",
                "/etc/alternatives/glx--libcuda.so.1-x86_64-linux-gnu": (
                    f"{current}/libcuda.so.535.247.01"
                ),
            },
        )
        driver, _ = self.find(tmp_path, machine)
        assert [(link.target, link.path) for link in driver.links] == [
            ("libcuda.so.535.247.01", f"{current}/libcuda.so.1")
        ]

    def test_firmware_from_the_kernels_own_path_too(self, tmp_path):
        machine = nvidia.driver() | Machine(
            files={
                "/sys/module/firmware_class/parameters/path": "/var/lib/firmware\n",
                "/proc/sys/kernel/osrelease": "6.8.0\n",
            },
            empty=[
                f"/var/lib/firmware/nvidia/{nvidia.VERSION}/gsp_ga10x.bin",
                f"/lib/firmware/6.8.0/nvidia/{nvidia.VERSION}/ucodes_ad10x.bin",
                f"/lib/firmware/nvidia/{nvidia.VERSION}/readme.txt",
            ],
        )
        driver, _ = self.find(tmp_path, machine)
        assert [file.path for file in driver.firmware] == [
            f"/var/lib/firmware/nvidia/{nvidia.VERSION}/gsp_ga10x.bin",
            f"/lib/firmware/6.8.0/nvidia/{nvidia.VERSION}/ucodes_ad10x.bin",
            f"/lib/firmware/nvidia/{nvidia.VERSION}/gsp_ga10x.bin",
            f"/lib/firmware/nvidia/{nvidia.VERSION}/gsp_tu10x.bin",
        ]

    def test_the_older_program_with_hooks(self, tmp_path):
        machine = nvidia.driver() | Machine(programs=["/usr/bin/nvidia-ctk"])
        assert self.find(tmp_path, machine)[0].hook == "/usr/bin/nvidia-ctk"


class TestAddDriverFiles:
    DECLARED = load_inventory(
        'driver: {version: "580.95.05"}\ndevices: [{vendor: nvidia, index: 0, major: 195, minor: 0}]'
    )

    def test_a_declared_inventory_gets_the_files_of_a_driver_root(self, tmp_path):
        root = build(tmp_path, nvidia.DRIVER_ROOT)
        inventory, notes = add_driver_files(self.DECLARED, root, nvidia.ROOT)
        (spec,) = generate(inventory).specs
        assert notes == ()
        assert "NVIDIA_CTK_LIBCUDA_DIR=/usr/lib64" in spec.container_edits.env
        assert nodes_of(spec, "0") == [("/dev/nvidia0", 195, 0)]

    def test_another_version_is_refused(self, tmp_path):
        root = build(tmp_path, nvidia.driver(version="570.86.10"))
        with pytest.raises(InvalidInventoryError, match=r"driver\.version: is 580\.95\.05, but"):
            add_driver_files(self.DECLARED, root, "/")

    def test_other_vendors_stay_as_they_are(self, tmp_path):
        inventory = load_inventory("devices: [{vendor: amd, index: 0, render: 128}]")
        assert add_driver_files(inventory, tmp_path, "/") == (inventory, ())


class TestDiscover:
    def test_nothing_says_where_it_looked(self, tmp_path):
        found = discover(tmp_path)
        assert found.inventory is None
        for place in ("/proc/driver/nvidia/gpus", "/dev/davinciN", "/sys/module/amdgpu"):
            assert any(place in looked for looked in found.looked)
        assert len(found.looked) >= len(Vendor)

    def test_the_places_are_for_people_to_read(self, tmp_path):
        for place in discover(tmp_path).looked:
            assert re.fullmatch(r"/[A-Za-z0-9_./:-]+( for vendor 0x[0-9a-f]{4})?", place)

    def test_only_the_vendors_asked_for(self, tmp_path):
        root = build(tmp_path, nvidia.TWO_H200 | others.TWO_910B)
        assert discover(root).inventory.vendors == (Vendor.NVIDIA, Vendor.ASCEND)
        assert discover(root, vendors=[Vendor.ASCEND]).inventory.vendors == (Vendor.ASCEND,)

    def test_a_mixed_machine_has_a_spec_for_each_kind(self, tmp_path):
        root = build(tmp_path, nvidia.MIG | others.TWO_GAUDI2 | others.KUNLUNXIN)
        specs = generate(discover(root, node="n").inventory).specs
        assert [spec.kind for spec in specs] == [
            "nvidia.com/gpu",
            "intel.com/gaudi",
            "kunlunxin.com/xpu",
        ]

    def test_every_vendor_has_a_module_with_a_kind_for_each_type(self):
        assert set(MODULES) == set(Vendor)
        for vendor, module in MODULES.items():
            assert module.support.vendor is vendor
            assert set(module.support.kinds) == set(TYPES[vendor])
            assert not any(kind_fault(kind) for kind in module.support.kinds.values())
