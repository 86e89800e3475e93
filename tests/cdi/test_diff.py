"""Staleness: each way in which a node departs from its spec, and nothing else, is a difference."""

import dataclasses
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi.diff import Difference, Kind, compare, driver_version, needs_refresh, verify
from cdi.discovery.tree import Tree
from cdi.generate import GenerateOptions, generate
from cdi.inventory_discover import discover
from cdi.parse import parse_spec
from cdi.spec import ContainerEdits, Device, DeviceNode, Mount, Spec
from tests.cdi.machines import nvidia, others
from tests.cdi.machines.build import Machine, build, together
from tests.cdi.test_golden import GOLDEN

NO_ALL = GenerateOptions(with_all=False)


def spec_of(root, machine, options=NO_ALL, driver_root="/"):
    found = discover(build(root, machine), driver_root=driver_root)
    return generate(found.inventory, options).specs[0]


def kinds_of(differences):
    return [(difference.kind, difference.device, difference.subject) for difference in differences]


@pytest.fixture
def stored(tmp_path):
    return spec_of(tmp_path / "before", nvidia.TWO_H200)


class TestCompare:
    def test_the_same_machine_is_current(self, tmp_path, stored):
        again = spec_of(tmp_path / "after", nvidia.TWO_H200)
        assert compare(stored, again) == ()
        assert not needs_refresh(stored, again)
        assert needs_refresh(None, again)

    def test_a_reboot_that_moves_a_major(self, tmp_path, stored):
        machine = together(
            nvidia.gpu(0, "0000:17:00.0", nvidia.UUIDS[0]),
            nvidia.gpu(1, "0000:65:00.0", nvidia.UUIDS[1], numa=1),
            nvidia.control(uvm=511),
            nvidia.driver(),
            nvidia.HOOK,
        )
        found = compare(stored, spec_of(tmp_path / "after", machine))
        assert [str(difference) for difference in found] == [
            "/dev/nvidia-uvm: is 510:0 in the spec and 511:0 on this node",
            "/dev/nvidia-uvm-tools: is 510:1 in the spec and 511:1 on this node",
        ]

    def test_a_driver_upgrade_is_one_difference(self, tmp_path, stored):
        machine = together(
            nvidia.gpu(0, "0000:17:00.0", nvidia.UUIDS[0]),
            nvidia.gpu(1, "0000:65:00.0", nvidia.UUIDS[1], numa=1),
            nvidia.control(),
            nvidia.driver(version="580.105.08"),
            nvidia.HOOK,
        )
        (difference,) = compare(stored, spec_of(tmp_path / "after", machine))
        assert str(difference) == "driver: is 580.95.05 in the spec and 580.105.08 on this node"

    def test_an_upgrade_that_brings_a_library_says_that_too(self, tmp_path, stored):
        machine = together(
            nvidia.gpu(0, "0000:17:00.0", nvidia.UUIDS[0]),
            nvidia.gpu(1, "0000:65:00.0", nvidia.UUIDS[1], numa=1),
            nvidia.control(),
            nvidia.driver(version="580.105.08"),
            Machine(empty=[f"{nvidia.LIB}/libnvidia-gpucomp.so.580.105.08"]),
            nvidia.HOOK,
        )
        path = f"{nvidia.LIB}/libnvidia-gpucomp.so.580.105.08"
        assert kinds_of(compare(stored, spec_of(tmp_path / "after", machine))) == [
            (Kind.DRIVER_VERSION, "", "driver"),
            (Kind.FILE_NEW, "", path),
        ]

    def test_a_missing_library(self, tmp_path, stored):
        root = build(tmp_path / "after", nvidia.TWO_H200)
        (root / f"usr/lib/x86_64-linux-gnu/vdpau/libvdpau_nvidia.so.{nvidia.VERSION}").unlink()
        current = generate(discover(root).inventory, NO_ALL).specs[0]
        kinds = kinds_of(compare(stored, current))
        gone = f"{nvidia.LIB}/vdpau/libvdpau_nvidia.so.{nvidia.VERSION}"
        assert (Kind.FILE_GONE, "", gone) in kinds
        assert (Kind.EDITS, "", "hooks") in kinds, "its folder leaves the linker's cache"

    def test_devices_that_come_and_go(self, tmp_path, stored):
        one = together(
            nvidia.gpu(0, "0000:17:00.0", nvidia.UUIDS[0]),
            nvidia.control(),
            nvidia.driver(),
            nvidia.HOOK,
        )
        current = spec_of(tmp_path / "after", one)
        (gone,) = compare(stored, current)
        assert str(gone) == "1: is in the spec and not on this node"
        (new,) = compare(current, stored)
        assert (new.kind, str(new)) == (
            Kind.DEVICE_NEW,
            "1: is on this node and not in the spec",
        )

    def test_partitions_that_come_and_go(self, tmp_path):
        before = spec_of(tmp_path / "before", nvidia.MIG)
        machine = dataclasses.replace(
            nvidia.MIG, empty=[path for path in nvidia.MIG.empty if "/gi9/" not in path]
        )
        after = spec_of(tmp_path / "after", machine)
        assert kinds_of(compare(before, after)) == [(Kind.PARTITION_GONE, "1:1", "1:1")]
        assert kinds_of(compare(after, before)) == [(Kind.PARTITION_NEW, "1:1", "1:1")]

    def test_a_new_layout_of_partitions_under_old_names(self, tmp_path):
        """MIG names number the devices, so a new layout moves other nodes under them."""
        before = spec_of(tmp_path / "before", nvidia.MIG)
        machine = dataclasses.replace(
            nvidia.MIG, empty=[path.replace("/gi9/", "/gi2/") for path in nvidia.MIG.empty]
        )
        changed = dataclasses.replace(
            machine,
            empty=[path.replace("gi2/ci0", "gi9/ci0") for path in machine.empty],
        )
        found = compare(before, spec_of(tmp_path / "after", changed))
        assert {difference.device for difference in found} == {"1:0", "1:1"}
        assert Kind.NODE_GONE in {difference.kind for difference in found}

    def test_all_does_not_repeat_what_its_devices_say(self, tmp_path):
        before = spec_of(tmp_path / "before", others.TWO_910B, GenerateOptions())
        machine = dataclasses.replace(
            others.TWO_910B,
            nodes=[
                n.replace("davinci1 c 502:1", "davinci1 c 499:1") for n in others.TWO_910B.nodes
            ],
        )
        after = spec_of(tmp_path / "after", machine, GenerateOptions())
        (difference,) = compare(before, after)
        assert (difference.kind, difference.device) == (Kind.NODE_NUMBERS, "1")

    def test_unknown_numbers_are_current(self, stored):
        def without(edits):
            nodes = tuple(
                replace(node, major=None, minor=None, type="", file_mode=None, permissions="")
                for node in edits.device_nodes
            )
            return replace(edits, device_nodes=nodes)

        declared = replace(
            stored,
            container_edits=without(stored.container_edits),
            devices=tuple(
                replace(device, container_edits=without(device.container_edits))
                for device in stored.devices
            ),
        )
        assert compare(declared, stored) == ()

    @pytest.mark.parametrize(
        ("change", "subject"),
        [
            (lambda spec: replace(spec, kind="example.com/gpu"), "kind"),
            (lambda spec: replace(spec, annotations={"a": "1"}), "annotations"),
            (lambda spec: with_edits(spec, env=("A=1",)), "env"),
            (lambda spec: with_edits(spec, hooks=()), "hooks"),
            (lambda spec: with_edits(spec, additional_gids=(1,)), "additionalGids"),
            (
                lambda spec: with_edits(
                    spec,
                    mounts=tuple(replace(m, options=("rw",)) for m in spec.container_edits.mounts),
                ),
                "/run/nvidia-persistenced/socket",
            ),
            (
                lambda spec: with_edits(
                    spec,
                    device_nodes=tuple(
                        replace(n, permissions="r") for n in spec.container_edits.device_nodes
                    ),
                ),
                "/dev/nvidia-modeset",
            ),
        ],
    )
    def test_other_changes(self, stored, change, subject):
        found = compare(stored, change(stored))
        assert (Kind.EDITS, subject) in {(d.kind, d.subject) for d in found}
        assert needs_refresh(stored, change(stored))


def with_edits(spec, **fields):
    return replace(spec, container_edits=replace(spec.container_edits, **fields))


class TestVerify:
    """Against the machine itself, for specs that others wrote."""

    @pytest.fixture
    def official(self):
        return parse_spec((GOLDEN / "nvidia-ctk-1.20.1.yaml").read_bytes())

    def test_the_official_generators_spec_is_current(self, tmp_path, official):
        assert verify(official, Tree(build(tmp_path, nvidia.ORACLE))) == ()

    def test_what_is_stale(self, tmp_path, official):
        root = build(tmp_path, nvidia.ORACLE)
        nodes = (root / "dev.nodes").read_text().replace("510:", "511:")
        nodes = nodes.replace("/dev/nvidia7 c 195:7 0666 0:0\n", "")
        (root / "dev.nodes").write_text(nodes)
        (root / "usr/bin/nvidia-smi").unlink()
        assert [str(difference) for difference in verify(official, Tree(root))] == [
            "/dev/nvidia-uvm: is 510:0 in the spec and 511:0 on this node",
            "/dev/nvidia-uvm-tools: is 510:1 in the spec and 511:1 on this node",
            "/usr/bin/nvidia-smi: is in the spec and not on this node",
            "7: /dev/nvidia7: is in the spec and not on this node",
        ]

    def test_the_loaded_driver(self, tmp_path, stored):
        root = build(tmp_path / "after", nvidia.TWO_H200)
        (root / "proc/driver/nvidia/version").write_text("Kernel Module  580.105.08  Release")
        (difference,) = verify(stored, Tree(root))
        assert difference == Difference(
            kind=Kind.DRIVER_VERSION,
            device="",
            subject="driver",
            stored="580.95.05",
            current="580.105.08",
        )

    def test_nodes_without_numbers_need_only_be_there(self, tmp_path):
        device = Device(
            name="0", container_edits=ContainerEdits(device_nodes=(DeviceNode(path="/dev/kfd"),))
        )
        spec = Spec(cdi_version="0.5.0", kind="amd.com/gpu", devices=(device,))
        tree = Tree(build(tmp_path, Machine(nodes=["/dev/kfd c 235:0 0660 0:109"])))
        assert verify(spec, tree) == ()

    def test_every_generated_spec_is_current_on_its_machine(self, tmp_path):
        for name, machine in (
            ("mig", nvidia.MIG),
            ("amd", others.TWO_MI300X),
            ("npu", others.VNPU),
        ):
            root = build(tmp_path / name, machine)
            for spec in generate(discover(root).inventory).specs:
                assert verify(spec, Tree(root)) == ()


class TestDriverVersion:
    def test_from_the_hook_or_the_library(self, stored):
        assert driver_version(stored) == "580.95.05"
        assert driver_version(with_edits(stored, hooks=())) == "580.95.05"
        assert driver_version(with_edits(stored, hooks=(), mounts=())) == ""


nodes = st.builds(
    DeviceNode,
    path=st.sampled_from(["/dev/a", "/dev/b"]),
    type=st.just("c"),
    major=st.integers(1, 3),
    minor=st.integers(0, 2),
)
mounts = st.builds(
    Mount,
    host_path=st.sampled_from(["/lib/x", "/lib/y"]),
    container_path=st.sampled_from(["/c/x", "/c/y"]),
    options=st.sampled_from([("ro",), ("rw",)]),
)
edits = st.builds(
    ContainerEdits,
    env=st.lists(st.sampled_from(["A=1", "B=2"]), max_size=2).map(tuple),
    device_nodes=st.lists(nodes, max_size=2, unique_by=lambda n: n.path).map(tuple),
    mounts=st.lists(mounts, max_size=2, unique_by=lambda m: m.container_path).map(tuple),
    additional_gids=st.lists(st.integers(1, 3), max_size=2).map(tuple),
)
specs = st.builds(
    Spec,
    cdi_version=st.just("0.7.0"),
    kind=st.sampled_from(["a.com/gpu", "b.com/gpu"]),
    devices=st.lists(
        st.builds(Device, name=st.sampled_from("012"), container_edits=edits),
        max_size=3,
        unique_by=lambda device: device.name,
    ).map(tuple),
    container_edits=edits,
    annotations=st.dictionaries(st.just("a"), st.sampled_from("12")),
)


def in_order(spec):
    """Return a spec whose devices, nodes and mounts are in one order: that order means nothing."""

    def ordered(one):
        return replace(
            one,
            device_nodes=tuple(sorted(one.device_nodes, key=lambda n: n.path)),
            mounts=tuple(sorted(one.mounts, key=lambda m: m.container_path)),
        )

    devices = sorted(spec.devices, key=lambda device: device.name)
    return replace(
        spec,
        container_edits=ordered(spec.container_edits),
        devices=tuple(replace(d, container_edits=ordered(d.container_edits)) for d in devices),
    )


@given(specs, specs)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_difference_means_the_same_edits(one, other):
    assert compare(one, one) == ()
    assert (compare(one, other) == ()) == (in_order(one) == in_order(other))
