"""Lint: each finding is found, a sound node has none, and lint predicts what cannot be resolved."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi.cache import Cache
from cdi.files import write_spec
from cdi.lint import lint
from cdi.nodes import NodeFacts, RecordedNodes
from cdi.spec import ContainerEdits, Device, DeviceNode, Hook, Mount, Spec
from tests.cdi.specdirs import spec_of, tree

NODES = RecordedNodes(
    {
        "/dev/gpu0": NodeFacts(type="c", major=195, minor=0, file_mode=0o666),
        "/dev/pipe": NodeFacts(type="p", major=0, minor=0, file_mode=0o666),
    }
)


def node_with(tmp_path, name="v.com-gpu.yaml", *, version="0.5.0", kind="v.com/gpu", **edits):
    """Write one spec with one device to a node's directory and return the findings."""
    write_spec(
        Spec(
            cdi_version=version,
            kind=kind,
            devices=(Device(name="0", container_edits=ContainerEdits(**edits)),),
        ),
        tmp_path / "etc" / "cdi" / name,
    )
    return lint(root=tmp_path, nodes=NODES)


def short(findings):
    return [(found.level, found.rule, found.path) for found in findings]


def test_a_sound_node_has_no_findings(tmp_path):
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "usr" / "bin" / "hook").write_text("")
    (tmp_path / "lib").symlink_to("/usr/bin")
    findings = node_with(
        tmp_path,
        device_nodes=(
            DeviceNode(path="/dev/gpu0"),
            DeviceNode(path="/dev/gpu0", type="c", major=195, minor=0),
            DeviceNode(path="/dev/gpu0", type="u", major=195),
            DeviceNode(path="/dev/pipe", type="p"),
        ),
        mounts=(
            Mount(host_path="/lib/hook", container_path="/a"),
            Mount(host_path="tmpfs", container_path="/b"),
        ),
        hooks=(Hook(hook_name="createContainer", path="/usr/bin/hook", timeout=1),),
    )
    assert findings == ()


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        pytest.param(
            {"device_nodes": (DeviceNode(path="/dev/none"),)},
            [("error", "missing", "devices[0].containerEdits.deviceNodes[0].path")],
            id="missing-node",
        ),
        pytest.param(
            {"device_nodes": (DeviceNode(path="/dev/gpu0", host_path="/dev/none"),)},
            [("error", "missing", "devices[0].containerEdits.deviceNodes[0].hostPath")],
            id="missing-host-node",
        ),
        pytest.param(
            {"device_nodes": (DeviceNode(path="/dev/gpu0", type="c", major=510, minor=1),)},
            [
                ("error", "stale", "devices[0].containerEdits.deviceNodes[0].major"),
                ("error", "stale", "devices[0].containerEdits.deviceNodes[0].minor"),
            ],
            id="stale-numbers",
        ),
        pytest.param(
            {"device_nodes": (DeviceNode(path="/dev/gpu0", type="b", major=195),)},
            [("error", "stale", "devices[0].containerEdits.deviceNodes[0].type")],
            id="stale-type",
        ),
        pytest.param(
            {"device_nodes": (DeviceNode(path="/dev/gpu0", permissions="none"),)},
            [("warning", "permissions", "devices[0].containerEdits.deviceNodes[0].permissions")],
            id="no-permissions",
        ),
        pytest.param(
            {"mounts": (Mount(host_path="/none", container_path="/a"),)},
            [("error", "missing", "devices[0].containerEdits.mounts[0].hostPath")],
            id="missing-mount",
        ),
        pytest.param(
            {"mounts": (Mount(host_path="/", container_path="a"),)},
            [("error", "relative", "devices[0].containerEdits.mounts[0].containerPath")],
            id="relative-mount",
        ),
        pytest.param(
            {"hooks": (Hook(hook_name="poststop", path="/none", timeout=0),)},
            [
                ("error", "missing", "devices[0].containerEdits.hooks[0].path"),
                ("error", "timeout", "devices[0].containerEdits.hooks[0].timeout"),
            ],
            id="missing-hook",
        ),
    ],
)
def test_findings_about_the_node(tmp_path, edits, expected):
    assert short(node_with(tmp_path, **edits)) == expected


@pytest.mark.parametrize(
    ("kind", "version", "expected"),
    [
        ("v.com/gpu", "0.6.0", [("warning", "version", "cdiVersion")]),
        ("v/gpu", "0.5.0", [("error", "crash", "kind")]),
        ("v.com/g", "0.5.0", [("error", "crash", "kind")]),
        ("V.com/gpu", "0.5.0", [("warning", "kind", "kind")]),
        ("v_m/gpu", "0.5.0", [("warning", "kind", "kind")]),
        ("v.com/" + "x" * 64, "0.5.0", [("warning", "kind", "kind")]),
    ],
)
def test_findings_about_the_spec_alone(tmp_path, kind, version, expected):
    name = f"{kind.replace('/', '-')}.yaml"
    findings = node_with(tmp_path, name, kind=kind, version=version, env=("A=1",))
    assert short(findings) == expected


@pytest.mark.parametrize(
    ("name", "findings"),
    [
        ("v.com-gpu.yaml", 0),
        ("v.com-gpu.json", 0),
        ("v.com-gpu_claim.json", 0),
        ("nvidia.yaml", 1),
        ("v.com-gpu-claim.yaml", 1),
    ],
)
def test_file_names(tmp_path, name, findings):
    found = node_with(tmp_path, name, env=("A=1",))
    assert [finding.rule for finding in found] == ["name"] * findings


@pytest.mark.parametrize(
    ("mode", "reasons"),
    [
        (0o644, []),
        (0o444, []),
        (0o600, ["others than its owner cannot read it"]),
        (0o640, ["others than its owner cannot read it"]),
        (0o666, ["who can write it can mount any host path"]),
        (
            0o622,
            ["who can write it can mount any host path", "others than its owner cannot read it"],
        ),
    ],
)
def test_modes(tmp_path, mode, reasons):
    (directory,) = tree(tmp_path, {"a/v.com-gpu.yaml": "v.com/gpu=0"})
    (directory / "v.com-gpu.yaml").chmod(mode)
    found = lint((directory,))
    assert {finding.rule for finding in found} <= {"mode"}
    text = [finding.reason.split("; ")[1] for finding in found]
    assert sorted(reason.split(", make")[0] for reason in text) == sorted(reasons)
    assert all(f"{mode:04o}" in finding.reason for finding in found)


def test_findings_about_directories(tmp_path):
    directories = tree(
        tmp_path,
        {
            "a/v.com-gpu.yaml": "v.com/gpu=0,1",
            "a/v.com-gpu_x.yaml": "v.com/gpu=0",
            "a/w.yml": "v.com/gpu=8",
            "a/w.JSON": "v.com/gpu=8",
            "a/nested/n.yaml": "v.com/gpu=9",
            "a/notes/readme.txt": "",
            "a/bad.yaml": "kind: 5\n",
            "b/v.com-gpu.yaml": "v.com/gpu=1",
        },
    )
    (tmp_path / "a" / "gone.yaml").symlink_to("nowhere")
    (tmp_path / "c").symlink_to("nowhere")
    findings = lint((*directories, tmp_path / "c", tmp_path / "d"))
    assert [
        (found.level, found.rule, str(found.file.relative_to(tmp_path)), found.path)
        for found in findings
    ] == [
        ("error", "invalid", "a/bad.yaml", "cdiVersion"),
        ("error", "invalid", "a/bad.yaml", "devices"),
        ("error", "invalid", "a/bad.yaml", "kind"),
        ("error", "unreadable", "a/gone.yaml", ""),
        ("warning", "nested", "a/nested", ""),
        ("error", "conflict", "a/v.com-gpu.yaml", ""),
        ("warning", "hidden", "a/v.com-gpu.yaml", ""),
        ("error", "conflict", "a/v.com-gpu_x.yaml", ""),
        ("error", "suffix", "a/w.JSON", ""),
        ("error", "suffix", "a/w.yml", ""),
        ("warning", "link", "c", ""),
    ]
    text = "\n".join(str(found) for found in findings)
    assert "rename it to w.yaml" in text
    assert "rename it to w.json" in text
    assert f"device v.com/gpu=1 is hidden by {tmp_path / 'b' / 'v.com-gpu.yaml'}" in text


def test_lint_reads_the_default_directories_below_the_root(tmp_path):
    write_spec(spec_of("v.com/gpu=0"), tmp_path / "var" / "run" / "cdi" / "x.yaml")
    (found,) = lint(root=tmp_path)
    assert found.rule == "name"
    assert found.file == tmp_path / "var" / "run" / "cdi" / "x.yaml"


def test_a_path_that_is_no_directory_is_unreadable(tmp_path):
    (tmp_path / "file").write_text("")
    assert [found.rule for found in lint((tmp_path / "file",))] == ["unreadable"]


DEVICES = st.lists(st.sampled_from(["0", "1", "2"]), min_size=1, max_size=3, unique=True)
FILES = st.dictionaries(
    st.sampled_from(["a/1.yaml", "a/2.yaml", "b/1.yaml", "b/2.json", "c/1.yaml"]), DEVICES
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILES)
def test_lint_predicts_what_cannot_be_resolved(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("lint")
    directories = tree(root, {name: f"v.com/gpu={','.join(ids)}" for name, ids in files.items()})
    cache = Cache.load(directories)
    predicted = {
        found.reason.split()[1]
        for found in lint(directories, root=Path("/"))
        if found.rule == "conflict"
    }
    defined = {f"v.com/gpu={device}" for ids in files.values() for device in ids}
    assert predicted == defined - set(cache.names())
