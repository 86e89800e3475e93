"""modelpack cdi, as a user meets it: output, notes and exit statuses, with bad input too."""

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cdi.generate import NameStrategy
from cdi.inventory import Vendor
from modelpack.cli._run import run
from modelpack.cli.cdi._source import StrategyName, VendorName
from tests.cdi.machines import nvidia
from tests.cdi.machines.build import build

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/inventories"
SMALLEST = """\
driver: {version: "580.95.05"}
devices:
  - {vendor: nvidia, index: 0, uuid: GPU-6d1c, product: NVIDIA H200, memory: 141Gi,
     pci: "0000:17:00.0", major: 195, minor: 0}
"""


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    """Run a command line in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return invoke


@pytest.fixture
def smallest(tmp_path):
    path = tmp_path / "smallest.yaml"
    path.write_text(SMALLEST)
    return path


def fails(done, code, *words):
    """Require an exit status and one line on stderr that has these words, and no output."""
    assert done.code == code, done.err
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("modelpack: ")
    for word in words:
        assert word in line


def test_words_are_those_of_the_library():
    assert [v.value for v in VendorName] == [v.value for v in Vendor]
    assert [s.value for s in StrategyName] == [s.value for s in NameStrategy]


class TestGenerate:
    def test_one_json_spec(self, call, smallest):
        done = call("cdi", "generate", "--inventory", smallest, "--format", "json", "--output", "-")
        assert done.code == 0
        spec = json.loads(done.out)
        assert spec["kind"] == "nvidia.com/gpu"
        assert [device["name"] for device in spec["devices"]] == ["0", "all"]
        node = spec["devices"][0]["containerEdits"]["deviceNodes"][0]
        assert (node["path"], node["major"], node["minor"]) == ("/dev/nvidia0", 195, 0)
        assert all(line.startswith("note: nvidia: ") for line in done.err.splitlines())
        assert "driver" in done.err

    def test_yaml_is_the_default_and_the_same_every_time(self, call, smallest):
        first, second = (call("cdi", "generate", "--inventory", smallest) for _ in range(2))
        assert first.out == second.out
        assert yaml.safe_load(first.out)["kind"] == "nvidia.com/gpu"

    def test_standard_input(self, call):
        done = call("cdi", "generate", "--inventory", "-", stdin=SMALLEST)
        assert yaml.safe_load(done.out)["kind"] == "nvidia.com/gpu"

    @pytest.mark.parametrize(
        ("options", "names"),
        [
            (["--no-all"], ["0"]),
            (["--name-strategy", "uuid"], ["GPU-6d1c", "all"]),
            (["--name-strategy", "type-index", "--no-all"], ["gpu0"]),
            (["--name-strategy", "index", "--name-strategy", "uuid"], ["0", "GPU-6d1c", "all"]),
        ],
    )
    def test_names(self, call, smallest, options, names):
        done = call("cdi", "generate", "--inventory", smallest, "--format", "json", *options)
        assert [device["name"] for device in json.loads(done.out)["devices"]] == names

    def test_several_kinds(self, call, tmp_path):
        inventory = EXAMPLES / "mixed-nvidia-amd.yaml"
        done = call("cdi", "generate", "--inventory", inventory)
        fails(done, 2, "nvidia.com/gpu, amd.com/gpu", "--kind", "--all-kinds")
        done = call("cdi", "generate", "--inventory", inventory, "--format", "json", "--all-kinds")
        assert [spec["kind"] for spec in json.loads(done.out)] == ["nvidia.com/gpu", "amd.com/gpu"]
        done = call("cdi", "generate", "--inventory", inventory, "--all-kinds")
        assert len(list(yaml.safe_load_all(done.out))) == 2
        done = call("cdi", "generate", "--inventory", inventory, "--kind", "amd.com/gpu")
        assert yaml.safe_load(done.out)["kind"] == "amd.com/gpu"
        done = call("cdi", "generate", "--inventory", inventory, "--vendor", "amd")
        assert yaml.safe_load(done.out)["kind"] == "amd.com/gpu"
        done = call("cdi", "generate", "--inventory", inventory, "--output", "specs/")
        assert sorted(os.listdir(tmp_path / "specs")) == ["amd.com-gpu.yaml", "nvidia.com-gpu.yaml"]
        assert done.out == ""

    def test_all_kinds_of_one_kind_is_an_array_too(self, call, smallest):
        done = call("cdi", "generate", "--inventory", smallest, "--format", "json", "--all-kinds")
        assert len(json.loads(done.out)) == 1

    def test_another_kind(self, call, smallest):
        done = call("cdi", "generate", "--inventory", smallest, "--kind", "my.org/gpu")
        assert yaml.safe_load(done.out)["kind"] == "my.org/gpu"

    def test_files(self, call, smallest, tmp_path):
        done = call("cdi", "generate", "--inventory", smallest, "-o", "deep/gpu.json")
        assert done.code == 0
        path = tmp_path / "deep/gpu.json"
        assert json.loads(path.read_text())["kind"] == "nvidia.com/gpu"
        assert path.stat().st_mode & 0o777 == 0o644
        assert "deep/gpu.json: nvidia.com/gpu, 2 devices, written" in done.err
        done = call("cdi", "generate", "--inventory", smallest, "-o", "deep/gpu.json")
        assert "already current" in done.err
        call("cdi", "generate", "--inventory", smallest, "-o", "deep", "--format", "json")
        assert (tmp_path / "deep/nvidia.com-gpu.json").exists()

    def test_uncertain_vendors_say_so(self, call):
        done = call("cdi", "generate", "--inventory", EXAMPLES / "biren-br106.yaml")
        assert "note: biren: uncertain: " in done.err
        assert "cdi-support-uncertain" in yaml.safe_load(done.out)["annotations"]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("devices: [", ["line 2, column 1"]),
            ("devices: []", ["devices: is empty"]),
            (
                "devices: [{vendor: nvidia, index: 0, memory: 141Gx}]",
                ["devices[0].memory", "141Gx"],
            ),
            ("devices: [{vendor: acme, index: 0}]", ["devices[0].vendor", "acme"]),
            ("- 1", ["bad.yaml"]),
        ],
    )
    def test_bad_inventories(self, call, tmp_path, text, words):
        (tmp_path / "bad.yaml").write_text(text)
        done = call("cdi", "generate", "--inventory", "bad.yaml")
        fails(done, 5, "bad.yaml: ", *words)

    def test_nothing_found_says_where_it_looked(self, call, tmp_path):
        done = call("cdi", "generate", "--root", tmp_path)
        fails(
            done, 3, "no devices found", "/proc/driver/nvidia/gpus", "/dev/davinci", "--inventory"
        )
        done = call("cdi", "generate", "--root", tmp_path, "--vendor", "amd")
        fails(done, 3, "/sys/module/amdgpu")
        assert "nvidia" not in done.err

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["--inventory", "none.yaml"], 3, ["none.yaml: no such file"]),
            (["--root", "none"], 3, ["none: no such directory"]),
            (["--inventory", "smallest.yaml", "--vendor", "amd"], 3, ["no devices of amd", "nvidia"]),
            (["--inventory", "smallest.yaml", "-o", "x.txt"], 2, ["x.txt", ".json and .yaml"]),
            (["--inventory", "smallest.yaml", "-o", "x.json", "--format", "yaml"], 2, ["x.json"]),
            (["--inventory", "smallest.yaml", "--kind", "x"], 2, ["vendor/class"]),
            (["--inventory", "smallest.yaml", "-o", "/proc/none/x.yaml"], 1, ["/proc/none/x.yaml"]),
        ],
    )  # fmt: skip
    def test_bad_calls(self, call, smallest, arguments, code, words):
        fails(call("cdi", "generate", *arguments), code, *words)

    @pytest.mark.parametrize("option", ["--vendor", "--name-strategy", "--format"])
    def test_words_that_are_not_choices(self, call, smallest, option):
        done = call("cdi", "generate", "--inventory", smallest, option, "acme")
        assert done.code == 2
        assert "acme" in done.err


@pytest.fixture
def machine(tmp_path):
    """A recorded machine's tree."""
    return build(tmp_path / "machine", nvidia.TWO_H200)


def test_inventory_of_a_recorded_machine(call, machine, tmp_path):
    done = call("cdi", "inventory", "--root", machine, "--node", "n1", "-o", "inventory.yaml")
    assert done.code == 0
    found = yaml.safe_load((tmp_path / "inventory.yaml").read_text())
    assert found["node"] == "n1"
    direct = call("cdi", "generate", "--root", machine, "--all-kinds", "--format", "json")
    declared = call(
        "cdi", "generate", "--inventory", "inventory.yaml", "--all-kinds", "--format", "json"
    )
    assert json.loads(direct.out) == json.loads(declared.out)
    as_json = call("cdi", "inventory", "--root", machine, "--format", "json")
    assert json.loads(as_json.out)["devices"] == found["devices"]


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


class TestKind:
    """A vendor's own kind is never a name for another's devices."""

    @pytest.mark.parametrize("kind", ["amd.com/gpu", "nvidia.com/imex-channel"])
    def test_a_known_kind_that_is_not_there(self, call, smallest, kind):
        done = call("cdi", "generate", "--inventory", smallest, "--kind", kind)
        fails(done, 3, f"no devices of kind {kind}", "nvidia")

    def test_notes_are_those_of_the_kind(self, call):
        mixed = EXAMPLES / "mixed-nvidia-amd.yaml"
        done = call("cdi", "generate", "--inventory", mixed, "--kind", "amd.com/gpu")
        assert done.code == 0
        assert yaml.safe_load(done.out)["kind"] == "amd.com/gpu"
        assert "nvidia" not in done.err


class TestBounds:
    def test_a_note_names_a_few_nodes(self, call, tmp_path):
        devices = "".join(f"- {{vendor: nvidia, index: {i}}}\n" for i in range(100))
        (tmp_path / "many.yaml").write_text("devices:\n" + devices)
        done = call("cdi", "generate", "--inventory", "many.yaml")
        assert "and 90 more" in done.err
        assert max(map(len, done.err.splitlines())) < 500

    @pytest.mark.parametrize("verb", ["generate", "validate"])
    def test_large_input_is_invalid(self, call, tmp_path, verb):
        (tmp_path / "big.yaml").write_text("a" * (8 << 20) + "a")
        name = ("--inventory",) if verb == "generate" else ()
        done = call("cdi", verb, *name, "big.yaml")
        assert done.code == 5
        assert "big.yaml: is larger than 8388608 bytes" in done.out + done.err
        done = call("cdi", verb, *name, "-", stdin="a" * (9 << 20))
        assert done.code == 5
        assert "standard input: is larger than 8388608 bytes" in done.out + done.err

    @pytest.mark.parametrize(
        ("driver_root", "code", "words"),
        [("relative", 2, "no absolute path"), ("/nowhere", 3, "not there below")],
    )
    def test_a_driver_root_that_cannot_be(self, call, smallest, tmp_path, driver_root, code, words):
        places = ("--root", tmp_path, "--driver-root", driver_root)
        fails(call("cdi", "generate", "--inventory", smallest, *places), code, words)

    def test_names_are_whole_in_a_pipe(self, call, smallest, monkeypatch, tmp_path):
        monkeypatch.setenv("COLUMNS", "20")
        place = tmp_path / ("d" * 120)
        call("cdi", "generate", "--inventory", smallest, "-o", f"{place}/")
        lines = call("cdi", "list", "--spec-dir", place).out.splitlines()
        path = place / "nvidia.com-gpu.yaml"
        assert lines[1].split() == ["nvidia.com/gpu=0", str(path)]
        assert not any(line.endswith(" ") for line in lines)


def test_validate_reads_standard_input(call, smallest):
    made = call("cdi", "generate", "--inventory", smallest)
    done = call("cdi", "validate", "-", stdin=made.out)
    assert (done.code, done.out) == (0, "")
    done = call("cdi", "validate", "--json", "-", stdin="{}")
    assert done.code == 5
    assert json.loads(done.out)[0]["file"] == "standard input"


def test_lint_takes_the_nodes_of_a_recorded_tree(call, tmp_path):
    root = build(tmp_path / "machine", nvidia.TWO_H200 | nvidia.HOOK)
    call("cdi", "generate", "--root", root, "-o", "cdi/")
    done = call("cdi", "lint", "--spec-dir", "cdi", "--root", root)
    assert "is no device node" not in done.out


class TestRecord:
    @pytest.fixture
    def machine(self, tmp_path):
        return build(tmp_path / "machine", nvidia.TWO_H200 | nvidia.HOOK)

    def test_the_record_is_discovered_as_the_machine_is(self, call, machine):
        done = call("cdi", "record", "copy", "--root", machine)
        assert done.code == 0
        assert "copy: 2 devices of nvidia" in done.err
        made = [call("cdi", "generate", "--root", root).out for root in (machine, "copy")]
        assert made[0] == made[1]
        assert made[0].startswith("cdiVersion")

    def test_no_uuid_of_the_machine_is_in_it(self, call, machine, tmp_path):
        assert call("cdi", "record", "copy", "--root", machine, "--json").code == 0
        for path in (tmp_path / "copy").rglob("*"):
            if path.is_file():
                assert not any(uuid in path.read_text() for uuid in nvidia.UUIDS)

    def test_json(self, call, machine):
        done = call("cdi", "record", "copy", "--root", machine, "--json")
        assert json.loads(done.out) == {"root": "copy", "devices": 2, "vendors": ["nvidia"]}

    def test_nothing_to_record(self, call, tmp_path):
        fails(call("cdi", "record", "copy", "--root", tmp_path), 3, "no devices found")
        assert not (tmp_path / "copy").exists()

    def test_the_target_is_a_directory_of_its_own(self, call, machine, tmp_path):
        (tmp_path / "full").mkdir()
        (tmp_path / "full/x").touch()
        fails(call("cdi", "record", "full", "--root", machine), 2, "full is not empty")
        fails(call("cdi", "record", "full/x", "--root", machine), 1, "full/x")
        fails(call("cdi", "record", "/proc/none/x", "--root", machine), 1, "/proc/none")


def test_a_result_replaces_a_file_whole(call, tmp_path):
    build(tmp_path / "machine", nvidia.TWO_H200)
    (tmp_path / "node.yaml").write_text("old")
    (tmp_path / "link.yaml").symlink_to("node.yaml")
    done = call("cdi", "inventory", "--root", "machine", "-o", "link.yaml")
    assert done.code == 0
    assert (tmp_path / "link.yaml").is_symlink()
    assert "NVIDIA H200" in (tmp_path / "node.yaml").read_text()
    done = call("cdi", "inventory", "--root", "machine", "-o", "/dev/full")
    assert done.code == 1
    assert "/dev/full cannot be written: No space left on device" in done.err
