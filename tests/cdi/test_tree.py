"""Trees: reading stays under the root, nodes come from lstat or dev.nodes, links are followed."""

import os
import stat
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi.discovery.ldcache import parse_ldcache
from cdi.discovery.sysfs import drm_of, pci_functions, pci_in_path, pci_of_node
from cdi.discovery.tree import NODES_FILE, Tree, TreeError, format_node_line, parse_node_line
from cdi.edits import apply_edits
from cdi.inventory import Node, NodeType
from cdi.spec import ContainerEdits, DeviceNode
from tests.cdi.machines.build import Machine, build, pci, together
from tests.cdi.machines.ldcache import cache

NODE = Node(path="/dev/a", type=NodeType.CHARACTER, major=195, minor=0, mode=0o666, uid=0, gid=44)


class TestLinks:
    @pytest.fixture
    def tree(self, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_text("secret")
        machine = Machine(
            files={"/etc/alternatives/target": "found", "/a/b/file": "deep"},
            links={
                "/absolute": "/etc/alternatives/target",
                "/relative": "a/b/file",
                "/up": "../../../../../outside/secret",
                "/escape": f"{outside}/secret",
                "/loop1": "loop2",
                "/loop2": "loop1",
                "/dangling": "nothing",
                "/directory": "a/b",
            },
        )
        return Tree(build(tmp_path / "root", machine))

    @pytest.mark.parametrize(
        ("path", "resolved", "text"),
        [
            ("/absolute", "/etc/alternatives/target", "found"),
            ("/relative", "/a/b/file", "deep"),
            ("/directory/file", "/a/b/file", "deep"),
            ("/directory/../b/./file", "/a/b/file", "deep"),
            ("/a/b", "/a/b", None),
            ("/", "/", None),
            ("/up", None, None),
            ("/escape", None, None),
            ("/loop1", None, None),
            ("/dangling", None, None),
            ("/a/b/file/more", None, None),
            ("/a\0b", None, None),
        ],
    )
    def test_resolve_and_read(self, tree, path, resolved, text):
        assert tree.resolve(path) == resolved
        assert tree.read(path) == text

    def test_link_text(self, tree):
        assert tree.link("/directory") == "a/b"
        assert tree.link("/a") is None
        assert tree.link("/nothing/at/all") is None

    def test_names_are_in_natural_order(self, tmp_path):
        build(tmp_path, Machine(empty=[f"/dev/nvidia{n}" for n in (10, 9, 1)] + ["/dev/nvidiactl"]))
        tree = Tree(tmp_path)
        assert tree.names("/dev", r"nvidia\d+") == ("nvidia1", "nvidia9", "nvidia10")
        assert tree.names("/nothing") == ()


class TestNodes:
    def test_a_listed_node_needs_no_file(self, tmp_path):
        tree = Tree(build(tmp_path, Machine(nodes=[format_node_line(NODE)])))
        assert tree.node("/dev/a") == NODE
        assert tree.names("/dev") == ("a",)
        assert tree.exists("/dev/a")
        assert not tree.is_live

    def test_a_link_leads_to_a_listed_node(self, tmp_path):
        machine = Machine(
            links={"/dev/by-path/x": "../a"}, nodes=[format_node_line(NODE)], empty=["/dev/plain"]
        )
        tree = Tree(build(tmp_path, machine))
        assert tree.node("/dev/by-path/x").major == 195
        assert tree.node("/dev/plain") is None, "with a list, only what it names is a node"

    def test_without_a_list_files_are_no_nodes(self, tmp_path):
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev" / "nvidia0").write_bytes(b"")
        assert Tree(tmp_path).node("/dev/nvidia0") is None

    def test_the_running_machine(self):
        tree = Tree(Path("/"))
        real = os.stat("/dev/null")
        node = tree.node("/dev/null")
        assert tree.is_live
        assert (node.major, node.minor) == (1, 3)
        assert node.mode == stat.S_IMODE(real.st_mode)
        assert tree.read("/dev/null") is None, "a device is never opened"

    @pytest.mark.parametrize(
        "line",
        [
            "/dev/a c 195 0666 0:0",
            "/dev/a x 195:0 0666 0:0",
            "dev/a c 195:0 0666 0:0",
            "/dev/a c 195:0 0888 0:0",
            "/dev/a c 5000:0 0666 0:0",
            "/dev/a c 195:2000000 0666 0:0",
            "/dev/a c 195:0 0666 0:0 more",
        ],
    )
    def test_a_malformed_line_is_an_error_that_names_the_file(self, tmp_path, line):
        (tmp_path / NODES_FILE).write_text(f"# comment\n\n{line}\n")
        with pytest.raises(TreeError, match=NODES_FILE):
            Tree(tmp_path).node("/dev/a")

    def test_a_list_that_is_no_text(self, tmp_path):
        (tmp_path / NODES_FILE).write_bytes(b"\xff\xfe")
        with pytest.raises(TreeError, match=NODES_FILE):
            Tree(tmp_path).names("/dev")

    @given(
        st.builds(
            Node,
            path=st.text("abc019/_.", min_size=1).map(lambda t: f"/dev/{t}"),
            type=st.sampled_from(NodeType),
            major=st.integers(0, 4095),
            minor=st.integers(0, 2**20 - 1),
            mode=st.integers(0, 0o7777),
            uid=st.integers(0, 2**32 - 1),
            gid=st.integers(0, 2**32 - 1),
        )
    )
    def test_lines_round_trip(self, node):
        assert parse_node_line(format_node_line(node)) == (node.path, node)

    def test_a_tree_answers_injection(self, tmp_path):
        tree = Tree(build(tmp_path, Machine(nodes=[format_node_line(NODE)])))
        edits = ContainerEdits(device_nodes=(DeviceNode(path="/dev/a"),))
        (device,) = apply_edits({}, edits, nodes=tree)["linux"]["devices"]
        assert (device["type"], device["major"], device["minor"]) == ("c", 195, 0)


class TestSysfs:
    def test_functions_of_a_vendor(self, tmp_path):
        machine = together(
            pci("0000:1a:00.0", "0x10de", "0x2335", "0x030200", driver="nvidia", numa=1),
            pci("0000:19:00.0", "0x10de", "0x2335", "0x120000", numa=-1),
            pci("0000:1a:00.1", "0x10de", "0x10f9", "0x040300"),  # its sound
            pci("0000:1b:00.0", "0x1002", "0x74a1", "0x038000"),
        )
        found = pci_functions(Tree(build(tmp_path, machine)), "0x10de")
        assert [(f.address, f.driver, f.numa) for f in found] == [
            ("0000:19:00.0", "", None),
            ("0000:1a:00.0", "nvidia", 1),
        ]

    def test_drm_nodes_that_do_not_exist_are_left_out(self, tmp_path):
        machine = pci("0000:19:00.0", "0x1002", "0x1", "0x030000", drm=["card0", "renderD128"])
        machine |= Machine(nodes=["/dev/dri/renderD128 c 226:128 0660 0:109"])
        drm = drm_of(Tree(build(tmp_path, machine)), "/sys/bus/pci/devices/0000:19:00.0")
        assert (drm.card, drm.render) == (0, 128)
        assert [node.path for node in drm.nodes] == ["/dev/dri/renderD128"]

    def test_the_pci_function_behind_a_node(self, tmp_path):
        path = "/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/misc/a"
        machine = Machine(
            directories=[path],
            links={"/sys/dev/char/195:0": f"../..{path.removeprefix('/sys')}"},
        )
        assert pci_of_node(Tree(build(tmp_path, machine)), NODE) == "0000:01:00.0"
        assert pci_in_path("/sys/devices/virtual/misc/a") == ""


class TestLdcache:
    def test_the_machines_own(self):
        data = Path("/etc/ld.so.cache")
        if not data.exists():
            pytest.skip("no linker cache here")
        found = dict(parse_ldcache(data.read_bytes()))
        assert any(name.startswith("libc.so") for name in found)

    def test_entries_and_the_old_header(self):
        new = cache({"libcuda.so.1": "/opt/nv/libcuda.so.1"})
        old = b"ld.so-1.7.0\0" + struct.pack("=I", 1) + bytes(12)
        old += bytes(-len(old) % 8)
        for data in (new, old + new):
            assert parse_ldcache(data) == (("libcuda.so.1", "/opt/nv/libcuda.so.1"),)

    @given(st.integers(0, 120), st.binary(max_size=40))
    @settings(max_examples=200)
    def test_damage_never_raises(self, at, rubbish):
        data = cache({"libcuda.so.1": "/opt/nv/libcuda.so.1"})
        parse_ldcache(data[:at] + rubbish + data[at + len(rubbish) :])
        parse_ldcache(data[:at])
