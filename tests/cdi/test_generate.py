"""Generation: names, the device all, kinds, versions, and what is said beside the specs."""

import dataclasses
from pathlib import Path

import pytest

from cdi.diff import compare
from cdi.edits import apply_edits
from cdi.emit import to_yaml
from cdi.errors import CdiUsageError, InjectionError
from cdi.generate import (
    BASIS_ANNOTATION,
    UNCERTAIN_ANNOTATION,
    GenerateOptions,
    NameStrategy,
    generate,
)
from cdi.inventory import Vendor
from cdi.inventory_discover import discover
from cdi.inventory_load import InvalidInventoryError, load_inventory
from cdi.nodes import RecordedNodes
from cdi.validate import validate
from cdi.vendors.base import NoteKind
from tests.cdi.machines import nvidia, others
from tests.cdi.machines.build import build

EXAMPLES = Path(__file__).parents[2] / "examples" / "inventories"
MIXED = """
devices:
- {vendor: nvidia, index: 0, uuid: GPU-1, major: 195, minor: 0}
- {vendor: nvidia, index: 3, uuid: GPU-2, major: 195, minor: 3, partitions: [
    {type: mig, index: 0, uuid: MIG-1, gi: 1, ci: 0, giMinor: 12, ciMinor: 13},
    {type: mig, index: 1, uuid: MIG-2, gi: 2, ci: 0, giMinor: 21, ciMinor: 22}]}
"""


def spec_of(text, **options):
    (spec,) = generate(load_inventory(text), GenerateOptions(**options)).specs
    return spec


def names_of(spec):
    return [device.name for device in spec.devices]


def notes_of(text, **options):
    return [str(note) for note in generate(load_inventory(text), GenerateOptions(**options)).notes]


class TestNames:
    @pytest.mark.parametrize(
        ("strategies", "names"),
        [
            ((NameStrategy.INDEX,), ["0", "3:0", "3:1", "all"]),
            ((NameStrategy.TYPE_INDEX,), ["gpu0", "mig3:0", "mig3:1", "all"]),
            ((NameStrategy.UUID,), ["GPU-1", "MIG-1", "MIG-2", "all"]),
            (
                (NameStrategy.INDEX, NameStrategy.UUID),
                ["0", "GPU-1", "3:0", "MIG-1", "3:1", "MIG-2", "all"],
            ),
        ],
        ids=["index", "type-index", "uuid", "both"],
    )
    def test_nvidia(self, strategies, names):
        spec = spec_of(MIXED, names=strategies)
        assert names_of(spec) == names
        assert validate(spec) == ()

    def test_a_device_has_the_same_edits_under_each_name(self):
        spec = spec_of(MIXED, names=(NameStrategy.INDEX, NameStrategy.UUID))
        edits = {device.name: device.container_edits for device in spec.devices}
        assert edits["3:0"] == edits["MIG-1"] != edits["3:1"]

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("{vendor: cambricon, index: 1}", "mlu-1"),
            ("{vendor: ascend, index: 1}", "npu1"),
            ("{vendor: nvidia, type: imex-channel, index: 7}", "channel7"),
            ("{vendor: intel, type: gaudi, index: 2}", "gaudi2"),
            ("{vendor: kunlunxin, index: 0}", "xpu0"),
        ],
    )
    def test_type_names(self, text, name):
        spec = spec_of(f"devices: [{text}]", names=(NameStrategy.TYPE_INDEX,))
        assert names_of(spec)[0] == name

    def test_a_missing_uuid_is_named_by_path(self):
        text = "devices: [{vendor: nvidia, index: 0, uuid: GPU-1}, {vendor: nvidia, index: 1}]"
        with pytest.raises(InvalidInventoryError) as caught:
            spec_of(text, names=(NameStrategy.UUID,))
        assert [fault.path for fault in caught.value.faults] == ["devices[1].uuid"]

    def test_a_uuid_that_is_no_device_name(self):
        text = "devices: [{vendor: nvidia, index: 0, uuid: GPU-6d1c…}]"
        assert names_of(spec_of(text)) == ["0", "all"]
        with pytest.raises(InvalidInventoryError, match=r"devices\[0\]\.uuid: invalid device name"):
            spec_of(text, names=(NameStrategy.UUID,))

    def test_two_devices_of_one_name(self):
        text = """devices: [{vendor: ascend, index: 100}, {vendor: ascend, index: 0, partitions: [
            {type: vnpu, index: 100}]}]"""
        with pytest.raises(InvalidInventoryError) as caught:
            spec_of(text)
        assert str(caught.value) == (
            "devices[1].partitions[0]: gives the device name '100', which is already that of "
            "devices[0]"
        )

    def test_intels_own_names(self):
        text = """devices: [{vendor: intel, index: 0, pci: "0000:03:00.0", render: 128,
                   attributes: {pciDevice: "0x56c0"}}]"""
        assert names_of(spec_of(text, names=(NameStrategy.UUID,)))[0] == "0000-03-00-0-0x56c0"


class TestAll:
    def test_it_is_everything_once(self):
        spec = spec_of(MIXED)
        paths = [node.path for node in spec.devices[-1].container_edits.device_nodes]
        assert paths == [
            "/dev/nvidia0",
            "/dev/nvidia3",
            "/dev/nvidia-caps/nvidia-cap12",
            "/dev/nvidia-caps/nvidia-cap13",
            "/dev/nvidia-caps/nvidia-cap21",
            "/dev/nvidia-caps/nvidia-cap22",
        ]

    def test_it_can_be_left_out(self):
        assert names_of(spec_of(MIXED, with_all=False)) == ["0", "3:0", "3:1"]

    def test_it_gives_way_to_a_device_of_that_name(self):
        text = "devices: [{vendor: nvidia, index: 0, uuid: all}]"
        spec = spec_of(text, names=(NameStrategy.UUID,))
        assert names_of(spec) == ["all"]


class TestKinds:
    TEXT = """devices: [{vendor: nvidia, index: 0}, {vendor: nvidia, type: imex-channel, index: 0},
               {vendor: amd, index: 0, render: 128}]"""

    def test_one_spec_for_each(self):
        specs = generate(load_inventory(self.TEXT)).specs
        assert [spec.kind for spec in specs] == [
            "nvidia.com/gpu",
            "nvidia.com/imex-channel",
            "amd.com/gpu",
        ]

    def test_chosen_by_vendor(self):
        options = GenerateOptions(vendors=(Vendor.AMD,), kind="example.com/my.gpu")
        (spec,) = generate(load_inventory(self.TEXT), options).specs
        assert (spec.kind, spec.cdi_version) == ("example.com/my.gpu", "0.6.0")

    @pytest.mark.parametrize(
        ("kind", "match"),
        [("nvidia", "vendor/class"), ("example.com/gpu", "cannot name nvidia.com/gpu, ")],
    )
    def test_a_kind_that_cannot_be(self, kind, match):
        with pytest.raises(CdiUsageError, match=match):
            generate(load_inventory(self.TEXT), GenerateOptions(kind=kind))

    def test_no_device_of_the_vendor_is_no_spec(self):
        options = GenerateOptions(vendors=(Vendor.HYGON,), kind="example.com/gpu")
        assert generate(load_inventory(self.TEXT), options).specs == ()


class TestEdits:
    def test_a_device_without_any_node_is_an_error(self):
        with pytest.raises(InvalidInventoryError) as caught:
            spec_of("devices: [{vendor: amd, index: 0}]")
        assert str(caught.value) == (
            "devices[0]: has no device node that could be told; give its numbers or name its nodes"
        )

    def test_a_divided_device_without_partitions_gives_no_spec(self):
        text = "devices: [{vendor: nvidia, index: 0, partitions: []}]"
        assert generate(load_inventory(text)).specs == ()
        assert notes_of(text) == [
            (
                "nvidia: left out: every gpu is set up to be divided and none has a partition yet, so "
                "there is no spec"
            )
        ]

    def test_drm_numbers_follow_from_names(self):
        spec = spec_of("devices: [{vendor: amd, index: 0, card: 1, render: 128}]")
        nodes = spec.devices[0].container_edits.device_nodes
        assert [(node.path, node.major, node.minor) for node in nodes] == [
            ("/dev/dri/card1", 226, 1),
            ("/dev/dri/renderD128", 226, 128),
            ("/dev/kfd", None, None),
        ]

    @pytest.mark.parametrize(
        ("mode", "gid", "gids"),
        [("0666", 44, ()), ("0660", 44, (44,)), ("0660", 0, ()), ("0664", 44, (44,))],
    )
    def test_a_group_is_added_where_a_node_is_not_open_to_all(self, mode, gid, gids):
        text = f"""devices: [{{vendor: nvidia, index: 0, nodes: [
            {{path: /dev/nvidia0, major: 195, minor: 0, mode: "{mode}", uid: 7, gid: {gid}}}]}}]"""
        spec = spec_of(text)
        edits = spec.devices[0].container_edits
        assert edits.additional_gids == gids
        assert edits.device_nodes[0].uid is None, "the container's user owns it"
        assert spec.cdi_version == ("0.7.0" if gids else "0.5.0")

    @pytest.mark.parametrize(
        ("text", "paths"),
        [
            (
                "{vendor: cambricon, index: 1, partitions: [{type: mim, index: 3}]}",
                [("/dev/cambricon_dev1", ""), ("/dev/cambricon-caps/cap_dev1_mi3", "")],
            ),
            (
                "{vendor: ascend, index: 0, partitions: [{type: vnpu, index: 100}]}",
                [("/dev/davinci100", "/dev/vdavinci100")],
            ),
            (
                """{vendor: nvidia, index: 4, partitions: [
                    {type: mig, index: 0, gi: 1, ci: 0, giMinor: 12, ciMinor: 13}]}""",
                [
                    ("/dev/nvidia4", ""),
                    ("/dev/nvidia-caps/nvidia-cap12", ""),
                    ("/dev/nvidia-caps/nvidia-cap13", ""),
                ],
            ),
        ],
        ids=["mim", "vnpu", "mig"],
    )
    def test_nodes_of_a_partition_follow_from_its_numbers(self, text, paths):
        spec = spec_of(f"devices: [{text}]")
        nodes = spec.devices[0].container_edits.device_nodes
        assert [(node.path, node.host_path) for node in nodes] == paths

    def test_sockets_are_not_read_only(self):
        spec = spec_of("driver: {sockets: [/run/a]}\ndevices: [{vendor: nvidia, index: 0}]")
        assert spec.container_edits.mounts[0].options == (
            "nosuid",
            "nodev",
            "rbind",
            "rprivate",
            "noexec",
        )


class TestWithoutHook:
    """Where nvidia-cdi-hook is not installed, links are bind mounts, and the rest is said."""

    @pytest.fixture
    def generated(self, tmp_path):
        inventory = discover(build(tmp_path, nvidia.TWO_H200)).inventory
        driver = dataclasses.replace(inventory.driver(Vendor.NVIDIA), hook="")
        return generate(dataclasses.replace(inventory, drivers={Vendor.NVIDIA: driver}))

    def test_no_hook_is_left(self, generated):
        (spec,) = generated.specs
        assert not any(edits.hooks for _, edits in spec.all_edits())

    def test_links_are_mounts_of_the_libraries(self, generated):
        mounts = {
            mount.container_path: mount.host_path
            for mount in generated.specs[0].container_edits.mounts
        }
        lib, version = nvidia.LIB, nvidia.VERSION
        assert mounts[f"{lib}/libcuda.so.1"] == f"{lib}/libcuda.so.{version}"
        assert mounts[f"{lib}/libcuda.so"] == f"{lib}/libcuda.so.{version}"
        assert mounts[f"{lib}/gbm/nvidia-drm_gbm.so"] == f"{lib}/libnvidia-allocator.so.{version}"
        assert mounts[f"{lib}/libGLX_indirect.so.0"] == f"{lib}/libGLX_nvidia.so.{version}"

    def test_what_is_lost_is_said(self, generated):
        (note,) = [note for note in generated.notes if "nvidia-cdi-hook" in note.text]
        for lost in ("linker's cache", "forward compatibility", "device nodes"):
            assert lost in note.text

    def test_nvidia_ctk_has_its_hooks_under_a_subcommand(self, tmp_path):
        inventory = discover(build(tmp_path, nvidia.TWO_H200)).inventory
        driver = dataclasses.replace(inventory.driver(Vendor.NVIDIA), hook="/usr/bin/nvidia-ctk")
        (spec,) = generate(dataclasses.replace(inventory, drivers={Vendor.NVIDIA: driver})).specs
        assert {hook.args[:2] for hook in spec.container_edits.hooks} == {("nvidia-ctk", "hook")}


class TestNotes:
    def test_without_files(self):
        notes = notes_of('driver: {version: "580.95.05"}\ndevices: [{vendor: nvidia, index: 0}]')
        assert any("libraries, programs, firmware" in note for note in notes)
        assert any("major and minor of /dev/nvidia-uvm, /dev/nvidia-uvm-tools" in n for n in notes)

    @pytest.mark.parametrize("vendor", ["hygon", "biren", "enflame", "metax", "mthreads", "vastai"])
    def test_unconfirmed_facts_are_in_the_spec_and_beside_it(self, vendor):
        device = f"{{vendor: {vendor}, index: 0, render: 128}}"
        generated = generate(load_inventory(f"devices: [{device}]"))
        annotations = generated.specs[0].annotations
        assert annotations[BASIS_ANNOTATION].startswith("documentation only: ")
        uncertain = [note for note in generated.notes if note.kind is NoteKind.UNCERTAIN]
        assert uncertain[0].text in annotations[UNCERTAIN_ANNOTATION]

    @pytest.mark.parametrize("vendor", ["nvidia", "amd", "intel", "ascend", "cambricon"])
    def test_confirmed_vendors_carry_no_annotation(self, vendor):
        spec = spec_of(f"devices: [{{vendor: {vendor}, index: 0, render: 128}}]")
        assert spec.annotations == {}

    def test_each_note_comes_once(self):
        text = (
            "devices: [{vendor: nvidia, index: 0}, {vendor: nvidia, type: imex-channel, index: 0}]"
        )
        notes = notes_of(text)
        assert len(notes) == len(set(notes))


class TestInjection:
    """An inventory with all numbers gives specs that need no look at the host."""

    @pytest.mark.parametrize(
        ("name", "device", "path", "major"),
        [
            ("nvidia-h200", "1", "/dev/nvidia1", 195),
            ("amd-mi300x", "1", "/dev/kfd", 235),
            ("intel-gaudi2", "0", "/dev/infiniband/uverbs0", 231),
            ("ascend-910b", "116", "/dev/davinci116", 499),
            ("cambricon-mlu370", "1:3", "/dev/cambricon-caps/cap_dev1_mi3", 240),
            ("hygon-k100", "0", "/dev/mkfd", 242),
            ("kunlunxin-p800", "1", "/dev/xpuctrl", 243),
        ],
    )
    def test_numbered_examples(self, name, device, path, major):
        (spec,) = generate(load_inventory((EXAMPLES / f"{name}.yaml").read_bytes())).specs
        (chosen,) = [one for one in spec.devices if one.name == device]
        oci = {}
        for edits in (spec.container_edits, chosen.container_edits):
            oci = apply_edits(oci, edits, nodes=RecordedNodes({}))
        majors = {node["path"]: node["major"] for node in oci["linux"]["devices"]}
        assert majors[path] == major

    def test_the_smallest_needs_the_host_for_uvm(self):
        (spec,) = generate(load_inventory((EXAMPLES / "smallest.yaml").read_bytes())).specs
        with pytest.raises(InjectionError, match="/dev/nvidia-uvm"):
            apply_edits({}, spec.container_edits, nodes=RecordedNodes({}))


MACHINES = [
    *(("nvidia", name) for name in ("TWO_H200", "MIG", "DRIVER_ROOT", "ORACLE")),
    *(
        ("others", name)
        for name in (
            *("TWO_MI300X", "MI300X_DPX", "FLEX", "TWO_GAUDI2", "TWO_910B", "VNPU", "ATLAS_310B"),
            *("MLU", "MLU_MIM", "DCU", "ILUVATAR", "BIREN", "ENFLAME", "METAX", "MTHREADS"),
            *("KUNLUNXIN", "VASTAI"),
        )
    ),
]


@pytest.mark.parametrize(("module", "name"), MACHINES, ids=[name for _, name in MACHINES])
def test_every_machine_gives_valid_specs_the_same_each_time(tmp_path, module, name):
    machine = getattr({"nvidia": nvidia, "others": others}[module], name)
    roots = [build(tmp_path / place, machine) for place in ("one", "two")]
    first, second = (generate(discover(root).inventory) for root in roots)
    assert [to_yaml(spec) for spec in first.specs] == [to_yaml(spec) for spec in second.specs]
    assert first.notes == second.notes
    for spec in first.specs:
        assert validate(spec) == ()
        assert compare(spec, spec) == ()
