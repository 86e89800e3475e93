"""modelpack cdi over spec directories, as a user meets it: list, inject, diff, refresh."""

import json

import pytest
import yaml

from tests.support.cdicli import SMALLEST, fails

SPEC = """\
cdiVersion: "0.5.0"
kind: vendor.com/gpu
devices:
- name: "0"
  containerEdits: {env: [A=%s], deviceNodes: [{path: /dev/v0, type: c, major: 9, minor: 0}]}
"""


@pytest.fixture
def specs(tmp_path):
    """Two spec directories, low and high."""
    for name in ("low", "high"):
        (tmp_path / name).mkdir()
    (tmp_path / "low/vendor.com-gpu.yaml").write_text(SPEC % 1)
    return tmp_path


DIRS = ("--spec-dir", "low", "--spec-dir", "high")


class TestSpecs:
    def test_list(self, call, specs):
        (specs / "low/vendor.com-gpu_2.yaml").write_text(SPEC % 2)
        (specs / "high/b.com-x.yaml").write_text(SPEC.replace("vendor.com/gpu", "b.com/x") % 1)
        (specs / "high/broken.yaml").write_text("kind: [")
        done = call("cdi", "list", "--json", *DIRS)
        assert done.code == 0
        assert json.loads(done.out) == [
            {"name": "b.com/x=0", "spec": "high/b.com-x.yaml", "conflict": False},
            {"name": "vendor.com/gpu=0", "spec": "low/vendor.com-gpu.yaml", "conflict": True},
        ]
        assert done.err.startswith("skipped: high/broken.yaml: ")
        table = call("cdi", "list", *DIRS).out.splitlines()
        assert [line.split() for line in table] == [
            ["DEVICE", "SPEC"],
            ["b.com/x=0", "high/b.com-x.yaml"],
            ["vendor.com/gpu=0", "low/vendor.com-gpu.yaml", "conflict"],
        ]

    def test_list_of_nothing(self, call):
        done = call("cdi", "list", "--spec-dir", "none")
        assert (done.code, done.out) == (0, "")
        assert "no devices in none" in done.err
        assert json.loads(call("cdi", "list", "--json", "--spec-dir", "none").out) == []

    def test_validate(self, call, specs):
        (specs / "bad.yaml").write_text(SPEC.replace("A=%s", "A") + "more: 1\n")
        done = call("cdi", "validate", "low/vendor.com-gpu.yaml", "bad.yaml")
        assert done.code == 5
        assert done.out.splitlines() == [
            "bad.yaml: devices[0].containerEdits.env[0]: invalid environment variable 'A'; write NAME=value",
            "bad.yaml: more: is not a known field",
        ]
        done = call("cdi", "validate", "--json", "low/vendor.com-gpu.yaml", "bad.yaml")
        assert done.code == 5
        assert [set(fault) for fault in json.loads(done.out)] == [{"file", "path", "reason"}] * 2

    def test_validate_what_is_good(self, call, specs):
        done = call("cdi", "validate", "low/vendor.com-gpu.yaml")
        assert (done.code, done.out) == (0, "")
        assert json.loads(call("cdi", "validate", "--json", "low/vendor.com-gpu.yaml").out) == []

    def test_validate_what_is_not_there(self, call, specs):
        fails(call("cdi", "validate", "none.yaml", "low/vendor.com-gpu.yaml"), 3, "none.yaml")
        (specs / "bad.yaml").write_text("{")
        done = call("cdi", "validate", "none.yaml", "bad.yaml")
        assert done.code == 5
        assert "none.yaml: no such file" in done.err

    def test_lint(self, call, specs):
        (specs / "low/vendor.com-gpu_2.yaml").write_text(SPEC % 2)
        (specs / "high/x.yml").write_text(SPEC % 2)
        done = call("cdi", "lint", "--root", specs, *DIRS)
        assert done.code == 5
        lines = done.out.splitlines()
        assert any("vendor.com/gpu=0 is in conflict" in line for line in lines)
        assert any(line.startswith("error: high/x.yml: ") for line in lines)
        assert any("/dev/v0 is no device node" in line for line in lines)
        found = json.loads(call("cdi", "lint", "--json", "--root", specs, *DIRS).out)
        assert {"level", "rule", "file", "path", "reason"} == set(found[0])
        assert {"conflict", "suffix", "missing"} <= {finding["rule"] for finding in found}

    def test_lint_finds_nothing_in_nothing(self, call):
        done = call("cdi", "lint", "--spec-dir", "none")
        assert (done.code, done.out) == (0, "")
        assert done.err == "none: no such directory\nno findings\n"
        fails(call("cdi", "lint", "--root", "none"), 3, "none")

    def test_lint_warnings_count_when_strict(self, call, tmp_path):
        (tmp_path / "d").mkdir()
        spec = 'cdiVersion: "1.1.0"\nkind: v.com/gpu\ndevices: [{name: a, containerEdits: {env: [A=1]}}]\n'
        spec = spec.replace("v.com", "vendor.com")
        (tmp_path / "d/vendor.com-gpu.yaml").write_text(spec)
        done = call("cdi", "lint", "--spec-dir", "d")
        assert done.code == 0
        assert done.out.startswith("warning: d/vendor.com-gpu.yaml: cdiVersion")
        assert call("cdi", "lint", "--spec-dir", "d", "--strict").code == 5

    def test_inject(self, call, specs):
        (specs / "oci.json").write_text('{"process": {"env": ["A=0"]}, "x-more": 1}')
        done = call("cdi", "inject", "--spec", "oci.json", "vendor.com/gpu=0", *DIRS)
        assert done.code == 0
        found = json.loads(done.out)
        assert found["process"]["env"] == ["A=1"]
        assert found["x-more"] == 1
        assert found["linux"]["devices"][0]["path"] == "/dev/v0"
        again = call("cdi", "inject", "--spec", "-", "vendor.com/gpu=0", *DIRS, stdin=done.out)
        assert json.loads(again.out) == found
        call("cdi", "inject", "--spec", "oci.json", "vendor.com/gpu=0", *DIRS, "-o", "new.json")
        assert json.loads((specs / "new.json").read_text()) == found

    @pytest.mark.parametrize(
        ("spec", "device", "code", "words"),
        [
            ("oci.json", "vendor.com/gpu=9", 3, ["unresolvable CDI devices vendor.com/gpu=9"]),
            ("oci.json", "gpu", 3, ["unresolvable CDI devices gpu", "see: modelpack cdi list"]),
            ("none.json", "vendor.com/gpu=0", 3, ["none.json"]),
            ("text.json", "vendor.com/gpu=0", 5, ["text.json is no JSON"]),
            ("array.json", "vendor.com/gpu=0", 5, ["array.json", "not a JSON object"]),
            ("wrong.json", "vendor.com/gpu=0", 5, ["process", "not an object"]),
        ],
    )
    def test_inject_fails(self, call, specs, spec, device, code, words):
        (specs / "oci.json").write_text("{}")
        (specs / "text.json").write_text("kind: x")
        (specs / "array.json").write_text("[]")
        (specs / "wrong.json").write_text('{"process": 3}')
        fails(call("cdi", "inject", "--spec", spec, device, *DIRS), code, *words)

    def test_inject_names_the_files_that_could_not_be_read(self, call, specs):
        (specs / "high/broken.yaml").write_text("kind: [")
        (specs / "oci.json").write_text("{}")
        done = call("cdi", "inject", "--spec", "oci.json", "vendor.com/gpu=9", *DIRS)
        fails(done, 3, "vendor.com/gpu=9", "skipped high/broken.yaml")


class TestDiffAndRefresh:
    def test_a_node_and_its_changes(self, call, smallest, tmp_path):
        where = ("--inventory", smallest, "--spec-dir", "cdi")
        done = call("cdi", "diff", *where)
        assert done.code == 1
        assert "nvidia.com/gpu: has devices on this node and no spec" in done.out

        done = call("cdi", "refresh", "--inventory", smallest, "-o", "cdi")
        assert (done.code, done.out) == (0, "cdi/nvidia.com-gpu.yaml: renewed\n")
        path = tmp_path / "cdi/nvidia.com-gpu.yaml"
        before = path.stat()
        done = call("cdi", "refresh", "--inventory", smallest, "-o", "cdi", "--json")
        assert json.loads(done.out) == [
            {"kind": "nvidia.com/gpu", "spec": "cdi/nvidia.com-gpu.yaml", "changed": False}
        ]
        assert path.stat().st_mtime_ns == before.st_mtime_ns
        done = call("cdi", "diff", *where)
        assert (done.code, done.out) == (0, "")

        smallest.write_text(SMALLEST.replace("major: 195", "major: 234"))
        done = call("cdi", "diff", *where)
        assert done.code == 1
        assert done.out == (
            "cdi/nvidia.com-gpu.yaml: 0: /dev/nvidia0: is 195:0 in the spec and 234:0 on this node\n"
        )
        found = json.loads(call("cdi", "diff", "--json", *where).out)
        assert found["current"] is False
        (report,) = found["specs"]
        assert report["spec"] == "cdi/nvidia.com-gpu.yaml"
        assert report["differences"][0]["kind"] == "node-numbers"
        assert call("cdi", "refresh", "--inventory", smallest, "-o", "cdi").out.endswith(
            "renewed\n"
        )
        assert call("cdi", "diff", *where).code == 0

    def test_a_spec_keeps_its_names(self, call, smallest, tmp_path):
        names = ("--name-strategy", "uuid", "--no-all")
        call("cdi", "generate", "--inventory", smallest, *names, "-o", "cdi/")
        assert call("cdi", "diff", "--inventory", smallest, "--spec-dir", "cdi").code == 0
        smallest.write_text(SMALLEST.replace("major: 195", "major: 234"))
        call("cdi", "refresh", "--inventory", smallest, "-o", "cdi")
        spec = yaml.safe_load((tmp_path / "cdi/nvidia.com-gpu.yaml").read_text())
        assert [device["name"] for device in spec["devices"]] == ["GPU-6d1c"]
        call("cdi", "refresh", "--inventory", smallest, "-o", "cdi", "--name-strategy", "index")
        spec = yaml.safe_load((tmp_path / "cdi/nvidia.com-gpu.yaml").read_text())
        assert [device["name"] for device in spec["devices"]] == ["0", "all"]

    def test_a_broken_spec_is_written_anew(self, call, smallest, tmp_path):
        (tmp_path / "cdi").mkdir()
        (tmp_path / "cdi/nvidia.com-gpu.yaml").write_text("kind: [")
        done = call("cdi", "refresh", "--inventory", smallest, "-o", "cdi")
        assert "it is written anew" in done.err
        assert done.out == "cdi/nvidia.com-gpu.yaml: renewed\n"

    def test_devices_that_are_gone(self, call, smallest, tmp_path):
        call("cdi", "generate", "--inventory", smallest, "-o", "cdi/")
        done = call("cdi", "diff", "--root", tmp_path, "--spec-dir", "cdi")
        assert done.code == 1
        assert (
            "cdi/nvidia.com-gpu.yaml: 0: /dev/nvidia0: is in the spec and not on this node"
            in done.out
        )

    def test_nothing_to_compare(self, call, tmp_path):
        fails(call("cdi", "diff", "--root", tmp_path, "--spec-dir", "none"), 3, "no devices found")
        fails(call("cdi", "refresh", "--root", tmp_path, "-o", "cdi"), 3, "no devices found")

    def test_a_recorded_machine(self, call, machine):
        call("cdi", "refresh", "--root", machine, "-o", "cdi")
        done = call("cdi", "diff", "--root", machine, "--spec-dir", "cdi")
        assert done.code == 0, done.out
