import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios

import pytest

import modelpack
from modelpack.cli import _show as show
from modelpack.cli._run import run
from modelpack.cli.diff import bar
from tests.support.images import write_image
from tests.support.tensorfiles import safetensors_file

BLOCKS = "\N{FULL BLOCK}\N{LIGHT SHADE}"
CHUNK = 4 * 1024 * 1024


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, fill in (("one", 0), ("two", 1)):
        (root / name).mkdir()
        tensors = [
            ("layers.0.weight", "F32", [1024, 1025], bytes(CHUNK) + bytes([fill]) * 4096),
            ("layers.0.bias", "F32", [16], bytes(64)),
        ]
        (root / name / "model.safetensors").write_bytes(safetensors_file(tensors))
        (root / name / "config.json").write_text('{"architectures": ["TinyModel"]}')
        (root / name / "run.sh").write_text("true\n")
    (root / "two/config.json").rename(root / "two/settings.json")
    (root / "two/run.sh").chmod(0o755)
    return root / "one", root / "two"


@pytest.fixture(scope="module")
def store(tmp_path_factory, models):
    reference = f"oci:{tmp_path_factory.mktemp('layout') / 'store'}"
    for directory, tag in zip(models, ("v1", "v2"), strict=True):
        modelpack.push(directory, f"{reference}:{tag}")
    return reference


@pytest.fixture
def cli(capfd):
    """A function that runs a command line; returns its status, stdout and stderr."""

    def call(*arguments):
        status = run([str(argument) for argument in arguments])
        return status, *capfd.readouterr()

    return call


def on_terminal(arguments, *, columns, **environment):
    """Run a command on a terminal of its own and return what it shows."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "CI"}
    }
    with subprocess.Popen(
        [sys.executable, "-c", "from modelpack.cli import main; main()", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**inherited, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environment},
    ) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not piece:
                break
            shown += piece
    os.close(master)
    assert process.returncode == 0, shown
    return shown.decode(environment.get("PYTHONIOENCODING", "utf-8"))


# --- inspect -------------------------------------------------------------------------------------


def test_inspect_shows_files_tensors_layers_and_annotations(cli, store):
    status, out, err = cli("inspect", f"{store}:v1")
    assert (status, err) == (0, "")
    assert re.search(r"^model\.safetensors +4\.0 MiB +0644 +weight +\d", out, re.MULTILINE)
    assert re.search(r"^model\.safetensors +safetensors +2 +1M +F32 1M$", out, re.MULTILINE)
    assert "TinyModel" in out
    assert "v1-modelpack (sha256:" in out
    assert re.search(r"^dev\.modelpack\.format +1$", out, re.MULTILINE)
    assert re.search(r"^ +2 +sha256:[0-9a-f]{12} .*chunk index and facts", out, re.MULTILINE)
    assert "layers.0.weight" not in out
    assert "\x1b" not in out


def test_inspect_lists_tensors_when_asked(cli, store):
    status, out, _ = cli("inspect", f"{store}:v1", "--tensors")
    assert status == 0
    assert re.search(r"^layers\.0\.weight +F32 +\[1024, 1025\] +4\.0 MiB$", out, re.MULTILINE)


@pytest.mark.parametrize("tensors", [False, True])
def test_inspect_prints_one_json_object(cli, store, tensors):
    status, out, err = cli("inspect", f"{store}:v1", "--json", *(["--tensors"] * tensors))
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    value = json.loads(out)
    assert value["reference"] == f"{store}:v1"
    header = next(file["tensors"] for file in value["files"] if file["tensors"])
    assert header["parameters"] == 1024 * 1025 + 16
    assert ("list" in header) == tensors


def test_inspect_takes_a_pulled_directory(cli, store, tmp_path):
    modelpack.pull(f"{store}:v1", tmp_path / "there")
    status, out, err = cli("inspect", tmp_path / "there")
    assert (status, err) == (0, "")
    assert f"pulled from  {store}:v1" in out
    (tmp_path / "there/run.sh").unlink()
    status, out, err = cli("inspect", tmp_path / "there")
    assert status == 0
    assert "run.sh (not here)" in out
    assert err == "modelpack: warning: 'run.sh' is missing; pull again\n"


def test_inspect_shows_other_tools_artifacts(cli, tmp_path):
    layout = write_image(tmp_path / "image", [{"weights.bin": b"x" * 100}])
    status, out, _ = cli("inspect", f"oci:{layout}:latest")
    assert status == 0
    assert re.search(r"packed by +another tool", out)
    assert "application/vnd.oci.image.layer.v1.tar" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["inspect", "{store}:v9"], 3, "v9 does not exist (there is: v1, v2"),
        (["inspect", "/nothing/here"], 3, "/nothing/here does not exist"),
        (
            ["inspect", "here"],
            2,
            "there is no directory 'here' here, and reference 'here' does not start with a registry host",
        ),
        (["inspect", "{broken}"], 5, "are not those of manifest"),
        (["diff", "{store}:v1", "{store}:v9"], 3, "v9 does not exist"),
        (["diff", "{store}:v1", "/nothing/here"], 3, "/nothing/here does not exist"),
        (["diff", "{store}:v1-modelpack", "{store}:v1"], 5, "was not packed by modelpack"),
        (["diff", "{broken}", "{store}:v1"], 5, "are not those of manifest"),
        (["diff", "{store}:v1"], 2, "Missing argument"),
    ],
)
def test_failures_are_one_line_and_a_status(cli, store, tmp_path, arguments, status, message):
    broken = tmp_path / "broken"
    modelpack.pull(f"{store}:v1", broken)
    (broken / ".modelpack/model.json").write_text("{}")
    got, out, err = cli(*(each.format(store=store, broken=broken) for each in arguments))
    assert got == status
    assert out == ""
    assert message in err
    if status != 2:
        assert re.fullmatch(r"modelpack: [^\n]+\n", err)


HOSTILE = "x\x1b[31mred\x07\u202egnp.\x9b2J\u2028end\\"


def test_nothing_from_an_artifact_reaches_the_terminal(cli, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for version in (1, 2):
        tensors = [(HOSTILE, "F32", [version], bytes(4 * version))]
        (model / "model.safetensors").write_bytes(safetensors_file(tensors))
        (model / "a\u202eb.txt").write_text(f"{version}")
        modelpack.push(
            model, f"oci:{tmp_path / 'store'}:v{version}", annotations={"org.example": HOSTILE}
        )
    store = f"oci:{tmp_path / 'store'}"
    for arguments in (
        ["inspect", f"{store}:v1", "--tensors"],
        ["diff", f"{store}:v1", f"{store}:v2"],
    ):
        status, out, err = cli(*arguments)
        assert status == 0
        for character in "\x1b\x07\u202e\x9b\u2028":
            assert character not in out + err
        assert r"x\x1b[31mred\x07\u202egnp.\x9b2J\u2028end" in out
        assert r"a\u202eb.txt" in out


def test_a_pipe_gets_whole_rows(cli, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    name = "n" * 200 + ".txt"
    for number in range(60):
        (model / f"{number:02}-{name}").write_text(str(number))
    modelpack.push(model, f"oci:{tmp_path / 'store'}:v1")
    _, out, _ = cli("inspect", f"oci:{tmp_path / 'store'}:v1")
    rows = [line for line in out.splitlines() if name in line]
    assert len(rows) == 60
    assert all(re.search(r"\d B +0644", row) for row in rows)
    shown = on_terminal(["inspect", f"oci:{tmp_path / 'store'}:v1"], columns=80)
    assert f"and {60 - show.MAX_ROWS} more files" in shown


def test_a_terminal_is_not_flooded(models, tmp_path):
    reference = f"oci:{tmp_path / 'store'}:v1"
    modelpack.push(models[0], reference, annotations={"org.example.long": "y" * 5000})
    shown = on_terminal(["inspect", reference], columns=80)
    assert "(and 4,700 more characters)" in re.sub(r"\s+", " ", shown)
    assert shown.count("y") < 400


def test_thousands_of_tensors_are_listed_at_once(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    tensors = [(f"layers.{number}.weight", "F32", [1], bytes(4)) for number in range(3000)]
    (model / "model.safetensors").write_bytes(safetensors_file(tensors))
    reference = f"oci:{tmp_path / 'store'}:v1"
    modelpack.push(model, reference)
    shown = on_terminal(["inspect", reference, "--tensors"], columns=80)
    assert len(re.findall(r"^layers\.\d+\.weight +F32 +\[1\] +4 B\r$", shown, re.MULTILINE)) == 3000


# --- diff ----------------------------------------------------------------------------------------


def test_diff_shows_files_tensors_and_the_pull(cli, store):
    status, out, err = cli("diff", f"{store}:v1", f"{store}:v2")
    assert (status, err) == (0, "")
    assert re.search(
        rf"^~ +model\.safetensors +4\.0 MiB +[{BLOCKS}]{{28}} +4\.0 KiB +4\.0 MiB$",
        out,
        re.MULTILINE,
    )
    assert re.search(
        rf"^> +config\.json → settings\.json .*[{BLOCKS[0]}]{{28}} +0 B", out, re.MULTILINE
    )
    assert "run.sh (mode 0644 → 0755)" in out
    assert re.search(
        r"^ +~ +layers\.0\.weight +F32 \[1024, 1025\] +4\.0 KiB of 4\.0 MiB$", out, re.MULTILINE
    )
    assert "1 changed, 1 unchanged" in out
    assert re.search(rf"^  [{BLOCKS}]{{60}}$", out, re.MULTILINE)
    assert re.search(r"█ 4\.0 MiB reused \(99\.9% of B\)   ░ \d+\.\d KiB fetched", out)


def test_diff_of_the_same_is_no_failure(cli, store, models):
    status, out, err = cli("diff", f"{store}:v1", models[0])
    assert (status, err) == (0, "")
    assert "identical: 3 files" in out
    assert "reused (100.0% of B)" in out


def test_diff_prints_one_json_object(cli, store, models):
    status, out, err = cli("diff", models[0], f"{store}:v2", "--json")
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    value = json.loads(out)
    assert value["a"]["kind"] == "plain"
    assert value["files"]["renamed"][0]["path"] == "settings.json"
    assert value["pull"]["chunk_bytes"] == 4096
    assert value["pull"]["fetched_bytes"] == 4096 + value["pull"]["index_bytes"]


def test_diff_warns_of_touched_files(cli, store, tmp_path):
    modelpack.pull(f"{store}:v1", tmp_path / "there")
    (tmp_path / "there/run.sh").write_text("false\n")
    status, _, err = cli("diff", tmp_path / "there", f"{store}:v1")
    assert status == 0
    assert "'run.sh' was changed since it was pulled" in err


@pytest.mark.parametrize("columns", [80, 140])
def test_a_terminal_gets_colour_within_its_width(store, columns):
    shown = on_terminal(["diff", f"{store}:v1", f"{store}:v2"], columns=columns)
    assert "\x1b[32m" + BLOCKS[0] in shown
    assert "\x1b[33m" + BLOCKS[1] in shown
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.splitlines()]
    assert max(len(line) for line in lines) <= columns
    assert any("model.safetensors" in line and BLOCKS[0] in line for line in lines)


def test_no_color_is_honoured(store):
    shown = on_terminal(["diff", f"{store}:v1", f"{store}:v2"], columns=80, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", shown)
    assert BLOCKS[0] in shown


def test_a_terminal_without_unicode_gets_ascii(store):
    shown = on_terminal(
        ["diff", f"{store}:v1", f"{store}:v2"],
        columns=100,
        NO_COLOR="1",
        PYTHONIOENCODING="ascii",
    )
    assert "#" * 27 + "." in shown
    assert "config.json -> settings.json" in shown


def test_names_that_the_encoding_lacks_are_escaped(models, tmp_path):
    shutil.copytree(models[0], tmp_path / "other")
    (tmp_path / "other/modèle.txt").write_text("x")
    shown = on_terminal(
        ["diff", str(models[0]), str(tmp_path / "other")], columns=100, PYTHONIOENCODING="ascii"
    )
    assert r"mod\xe8le.txt" in shown


@pytest.mark.parametrize(
    ("reused", "fetched", "expected"),
    [
        (0, 0, "##########"),
        (1, 0, "##########"),
        (0, 1, ".........."),
        (1, 1, "#####....."),
        (10**12, 1, "#########."),
        (1, 10**12, "#........."),
        (999, 1001, "#####....."),
    ],
)
def test_a_bar_shows_every_share_that_is_not_nothing(monkeypatch, reused, fetched, expected):
    monkeypatch.setattr("modelpack.cli.diff.has_unicode", lambda: False)
    assert bar(reused, fetched, 10).plain == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (22_713_728, "22.7M"),
        (8 * 10**9, "8B"),
        (10**12, "1T"),
    ],
)
def test_counts_are_written_as_model_cards_do(count, expected):
    assert show.human_count(count) == expected
