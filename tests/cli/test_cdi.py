"""modelpack cdi, as a user meets it: output, notes and exit statuses, with bad input too."""

import json
import os

import pytest
import yaml

from cdi.generate import NameStrategy
from cdi.inventory import Vendor
from modelpack.cli.cdi._source import StrategyName, VendorName
from tests.cdi.machines import nvidia
from tests.cdi.machines.build import build
from tests.support.cdicli import EXAMPLES, SMALLEST, fails


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
