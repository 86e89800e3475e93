"""Injection into an OCI runtime spec: order, override rules, device nodes, idempotence."""

import copy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.edits import apply_edits
from cdi.errors import InjectionError, InvalidOciError
from cdi.nodes import NodeFacts, RecordedNodes
from cdi.spec import ContainerEdits, DeviceNode, Hook, IntelRdt, Mount, NetDevice
from tests.cdi.strategies import EDITS

HOST = RecordedNodes(
    {
        "/dev/gpu0": NodeFacts(type="c", major=195, minor=7, file_mode=0o660, uid=0, gid=44),
        "/dev/disk": NodeFacts(type="b", major=8, minor=1, file_mode=0o600),
        "/dev/pipe": NodeFacts(type="p", major=0, minor=0, file_mode=0o644),
    }
)
NOTHING = RecordedNodes({})


def inject(oci, *, nodes=HOST, **edits):
    return apply_edits(oci, ContainerEdits(**edits), nodes=nodes)


def test_no_edits_change_nothing_at_all():
    oci = {"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "x-unknown": [1]}
    assert inject(oci) == oci


def test_the_argument_is_never_changed():
    oci = {"process": {"env": ["A=1"], "user": {"uid": 1}}, "mounts": [{"destination": "/b"}]}
    before = copy.deepcopy(oci)
    inject(
        oci,
        env=("A=2",),
        mounts=(Mount(host_path="/a", container_path="/b"),),
        device_nodes=(DeviceNode(path="/dev/gpu0"),),
        additional_gids=(5,),
    )
    assert oci == before


@pytest.mark.parametrize(
    ("before", "added", "after"),
    [
        pytest.param(["A=1", "B=2"], ("A=9",), ["A=9", "B=2"], id="replaces-in-place"),
        pytest.param(["A=1"], ("B=2", "C=3"), ["A=1", "B=2", "C=3"], id="appends"),
        pytest.param([], ("A=1", "A=2"), ["A=2"], id="last-of-the-edits-counts"),
        pytest.param(["A=1", "A=2"], ("A=3",), ["A=1", "A=3"], id="last-of-the-spec-is-replaced"),
        pytest.param(["A"], ("A=1",), ["A=1"], id="bare-name"),
        pytest.param(["AB=1"], ("A=1",), ["AB=1", "A=1"], id="whole-name"),
        pytest.param(None, ("A=1=2",), ["A=1=2"], id="none-before"),
    ],
)
def test_environment(before, added, after):
    oci = {"process": {} if before is None else {"env": before}}
    assert inject(oci, env=added) == {"process": {"env": after}}


@pytest.mark.parametrize(
    ("node", "device", "rule"),
    [
        pytest.param(
            DeviceNode(path="/dev/gpu0"),
            {"type": "c", "major": 195, "minor": 7, "fileMode": 0o660},
            {"type": "c", "major": 195, "minor": 7, "access": "rwm"},
            id="all-from-the-host",
        ),
        pytest.param(
            DeviceNode(path="/dev/x", host_path="/dev/disk", permissions="r"),
            {"type": "b", "major": 8, "minor": 1, "fileMode": 0o600},
            {"type": "b", "major": 8, "minor": 1, "access": "r"},
            id="other-host-path",
        ),
        pytest.param(
            DeviceNode(path="/dev/gpu0", type="c", major=5, minor=6, file_mode=0, uid=0, gid=0),
            {"type": "c", "major": 5, "minor": 6, "fileMode": 0, "uid": 0, "gid": 0},
            {"type": "c", "major": 5, "minor": 6, "access": "rwm"},
            id="given-numbers-win",
        ),
        pytest.param(
            DeviceNode(path="/dev/gpu0", type="c", major=5),
            {"type": "c", "major": 5, "minor": 0, "fileMode": 0o660},
            {"type": "c", "major": 5, "minor": 0, "access": "rwm"},
            id="mode-from-the-host-even-so",
        ),
        pytest.param(
            DeviceNode(path="/dev/gpu0", major=5),
            {"type": "c", "major": 5, "minor": 0, "fileMode": 0o660},
            {"type": "c", "major": 5, "minor": 0, "access": "rwm"},
            id="type-from-the-host",
        ),
        pytest.param(
            DeviceNode(path="/dev/gpu0", type="c", minor=3),
            {"type": "c", "major": 195, "minor": 7, "fileMode": 0o660},
            {"type": "c", "major": 195, "minor": 7, "access": "rwm"},
            id="a-minor-alone-does-not-count",
        ),
        pytest.param(
            DeviceNode(path="/dev/none", type="c", major=1),
            {"type": "c", "major": 1, "minor": 0},
            {"type": "c", "major": 1, "minor": 0, "access": "rwm"},
            id="not-on-the-host-but-given",
        ),
        pytest.param(
            DeviceNode(path="/dev/none", type="p"),
            {"type": "p", "major": 0, "minor": 0},
            None,
            id="fifo",
        ),
        pytest.param(
            DeviceNode(path="/dev/pipe"),
            {"type": "p", "major": 0, "minor": 0, "fileMode": 0o644},
            None,
            id="fifo-from-the-host",
        ),
        pytest.param(
            DeviceNode(path="/dev/none", type="u", major=1),
            {"type": "u", "major": 1, "minor": 0},
            None,
            id="unbuffered-has-no-rule",
        ),
        pytest.param(
            DeviceNode(path="/dev/gpu0", permissions="none"),
            {"type": "c", "major": 195, "minor": 7, "fileMode": 0o660},
            {"type": "c", "major": 195, "minor": 7},
            id="no-permissions",
        ),
    ],
)
def test_device_nodes(node, device, rule):
    linux = inject({}, device_nodes=(node,))["linux"]
    assert linux["devices"] == [{"path": node.path, **device}]
    assert linux.get("resources", {}).get("devices", []) == (
        [] if rule is None else [{"allow": True, **rule}]
    )


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (DeviceNode(path="/dev/none"), "no device node at /dev/none on the host"),
        (DeviceNode(path="/dev/gpu0", host_path="/dev/none"), "no device node at /dev/none"),
        (DeviceNode(path="/dev/none", type="c"), "gives no type and major"),
        (DeviceNode(path="/dev/none", major=195), "gives no type and major"),
        (DeviceNode(path="/dev/none", type="c", major=0, minor=1), "gives no type and major"),
        (DeviceNode(path="/dev/gpu0", type="b"), "type c on the host, but type b in the spec"),
        (DeviceNode(path="/dev/gpu0", type="u"), "type c on the host, but type u in the spec"),
    ],
)
def test_a_node_that_cannot_be_made_is_an_error(node, reason):
    with pytest.raises(InjectionError, match=reason):
        inject({}, device_nodes=(node,))


def test_a_node_without_an_owner_belongs_to_the_process():
    oci = {"process": {"user": {"uid": 1000, "gid": 100}}}
    nodes = (DeviceNode(path="/dev/gpu0"), DeviceNode(path="/dev/disk", uid=0, gid=0))
    first, second = inject(oci, device_nodes=nodes)["linux"]["devices"]
    assert (first["uid"], first["gid"]) == (1000, 100)
    assert (second["uid"], second["gid"]) == (0, 0)
    (device,) = inject({"process": {"user": {"uid": 0, "gid": 0}}}, device_nodes=nodes[:1])[
        "linux"
    ]["devices"]
    assert "uid" not in device
    assert "gid" not in device


def test_the_same_path_replaces_a_device_and_the_rule_comes_last():
    deny = {"allow": False, "access": "rwm"}
    oci = {
        "linux": {
            "devices": [{"path": "/dev/gpu0", "type": "b"}, {"path": "/dev/keep"}],
            "resources": {"devices": [deny], "pids": {"limit": 5}},
        }
    }
    linux = inject(oci, device_nodes=(DeviceNode(path="/dev/gpu0"),))["linux"]
    assert [device["path"] for device in linux["devices"]] == ["/dev/keep", "/dev/gpu0"]
    assert linux["devices"][1]["type"] == "c"
    assert linux["resources"]["devices"][0] == deny
    assert linux["resources"]["devices"][1]["major"] == 195
    assert linux["resources"]["pids"] == {"limit": 5}


def test_an_equal_rule_before_a_deny_moves_behind_it():
    allow = {"allow": True, "type": "c", "major": 195, "minor": 7, "access": "rwm"}
    deny = {"allow": False, "access": "rwm"}
    oci = {"linux": {"resources": {"devices": [allow, deny]}}}
    linux = inject(oci, device_nodes=(DeviceNode(path="/dev/gpu0"),))["linux"]
    assert linux["resources"]["devices"] == [deny, allow]


def test_mounts_replace_by_container_path_and_are_sorted_by_depth():
    oci = {
        "mounts": [
            {"destination": "/proc"},
            {"destination": "/dev/shm"},
            {"destination": "/usr/lib/a.so", "source": "old"},
            {"destination": "/"},
        ]
    }
    added = (
        Mount(host_path="/h/a", container_path="/usr/lib/a.so", options=("ro",), type="none"),
        Mount(host_path="/h/b", container_path="/b"),
        Mount(host_path="/h/c", container_path="//c/../c/./"),
        Mount(host_path="/h/d", container_path="/dev/d/"),
    )
    mounts = inject(oci, mounts=added)["mounts"]
    assert [mount["destination"] for mount in mounts] == [
        *("/proc", "/", "/b", "//c/../c/./"),
        *("/dev/shm", "/dev/d/"),
        "/usr/lib/a.so",
    ]
    assert mounts[-1] == {
        "destination": "/usr/lib/a.so",
        "type": "none",
        "source": "/h/a",
        "options": ["ro"],
    }
    assert mounts[2] == {"destination": "/b", "source": "/h/b"}


def test_without_mounts_in_the_edits_nothing_is_sorted():
    oci = {"mounts": [{"destination": "/a/b"}, {"destination": "/a"}]}
    assert inject(oci, env=("A=1",))["mounts"] == oci["mounts"]


@pytest.mark.parametrize(
    ("options", "kind", "after"),
    [
        (("ro", "bind"), "", ["ro", "bind", "idmap"]),
        (("rbind", "ro"), "", ["rbind", "ro", "ridmap"]),
        (("bind", "ridmap"), "", ["bind", "ridmap"]),
        (("bind", "rbind"), "", ["bind", "rbind", "ridmap"]),
        (("ro",), "bind", ["ro", "idmap"]),
        (("ro",), "tmpfs", ["ro"]),
    ],
)
def test_bind_mounts_are_id_mapped_in_a_user_namespace(options, kind, after):
    mount = Mount(host_path="/a", container_path="/b", options=options, type=kind)
    oci = {"linux": {"namespaces": [{"type": "pid"}, {"type": "user"}]}}
    assert inject(oci, mounts=(mount,))["mounts"][0]["options"] == after
    oci["linux"]["namespaces"].pop()
    assert inject(oci, mounts=(mount,))["mounts"][0]["options"] == list(options)


def test_hooks_are_appended_each_to_its_list():
    hooks = tuple(
        Hook(hook_name=name, path=f"/{i}", args=("a",), env=("A=1",), timeout=i)
        for i, name in enumerate(("prestart", "createRuntime", "poststop", "prestart"))
    )
    oci = {"hooks": {"prestart": [{"path": "/first"}], "startContainer": [{"path": "/other"}]}}
    result = inject(oci, hooks=hooks)["hooks"]
    assert [hook["path"] for hook in result["prestart"]] == ["/first", "/0", "/3"]
    assert result["createRuntime"] == [{"path": "/1", "args": ["a"], "env": ["A=1"], "timeout": 1}]
    assert result["startContainer"] == [{"path": "/other"}]
    assert inject({}, hooks=(Hook(hook_name="poststart", path="/x"),)) == {
        "hooks": {"poststart": [{"path": "/x"}]}
    }


def test_net_devices_rdt_and_groups():
    oci = {
        "process": {"user": {"additionalGids": [1, 2]}},
        "linux": {"netDevices": {"eth1": {"name": "old"}}, "intelRdt": {"closID": "old"}},
    }
    result = inject(
        oci,
        net_devices=(
            NetDevice(host_interface_name="eth1", name="a"),
            NetDevice(host_interface_name="eth2", name="b"),
        ),
        intel_rdt=IntelRdt(clos_id="gpu", enable_monitoring=True),
        additional_gids=(0, 2, 44, 44),
    )
    assert result["linux"] == {
        "netDevices": {"eth1": {"name": "a"}, "eth2": {"name": "b"}},
        "intelRdt": {"closID": "gpu", "enableMonitoring": True},
    }
    assert result["process"]["user"]["additionalGids"] == [1, 2, 44]


def test_group_zero_alone_creates_nothing():
    assert inject({}, additional_gids=(0,)) == {}


@pytest.mark.parametrize(
    ("oci", "reason"),
    [
        ({"process": []}, "process is an array, not an object"),
        ({"process": {"env": "A=1"}}, "process.env is a string, not an array"),
        ({"mounts": {}}, "mounts is an object, not an array"),
        ({"mounts": ["/a"]}, r"mounts.\[\] is a string, not an object"),
        ({"linux": 5}, "linux is a number, not an object"),
        ({"linux": {"devices": [None]}}, r"linux.devices.\[\] is null, not an object"),
        ({"hooks": {"poststop": {}}}, "hooks.poststop is an object, not an array"),
    ],
)
def test_a_malformed_runtime_spec_is_an_error_with_its_place(oci, reason):
    with pytest.raises(InvalidOciError, match=reason) as info:
        inject(
            oci,
            env=("A=1",),
            device_nodes=(DeviceNode(path="/dev/gpu0"),),
            mounts=(Mount(host_path="/a", container_path="/b"),),
            hooks=(Hook(hook_name="poststop", path="/x"),),
        )
    assert info.value.exit_code == 5


OCI = st.fixed_dictionaries(
    {},
    optional={
        "process": st.fixed_dictionaries(
            {},
            optional={
                "env": st.lists(st.sampled_from(["A=1", "B=2", "PATH=/bin", "A=3"]), max_size=3),
                "user": st.just({"uid": 7, "gid": 8, "additionalGids": [9]}),
            },
        ),
        "mounts": st.lists(
            st.sampled_from([{"destination": path} for path in ("/a/b/c", "/", "/dev/a", "/x")]),
            max_size=4,
        ),
        "hooks": st.just({"poststop": [{"path": "/h"}]}),
        "linux": st.fixed_dictionaries(
            {},
            optional={
                "devices": st.lists(
                    st.sampled_from([{"path": "/dev/a"}, {"path": "/q"}]), max_size=2
                ),
                "namespaces": st.just([{"type": "user"}]),
                "resources": st.just({"devices": [{"allow": False, "access": "rwm"}]}),
            },
        ),
    },
)
# Fully specified nodes, so that no host is needed.
SPECIFIED = EDITS.map(
    lambda edits: replace(
        edits,
        device_nodes=tuple(
            replace(node, type=node.type or "c", major=node.major or 5)
            for node in edits.device_nodes
        ),
    )
)


@given(OCI, SPECIFIED)
def test_injecting_twice_is_injecting_once(oci, edits):
    once = apply_edits(oci, edits, nodes=NOTHING)
    assert apply_edits(once, edits, nodes=NOTHING) == once


@given(OCI, SPECIFIED)
def test_what_no_edit_touches_stays(oci, edits):
    result = apply_edits({**oci, "annotations": {"a": "b"}}, edits, nodes=NOTHING)
    assert result["annotations"] == {"a": "b"}
    replaced = {mount.container_path for mount in edits.mounts}
    for mount in oci.get("mounts", []):
        assert (mount in result["mounts"]) or mount["destination"] in replaced
