"""What the operating system refuses is one clear line and an honest status, wherever it happens.

All commands run in one child process that may not read or write what its mode bits forbid, be it
root or not.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.models import write_files

_RUN = """
import contextlib, io, json, sys
from modelpack.cli._run import run

results = []
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(arguments)
    results.append([status, err.getvalue()])
json.dump(results, sys.stdout)
"""
# Root without the right to pass over mode bits is refused like anybody else.
_AS_ANYBODY = (
    ["setpriv", "--bounding-set", "-dac_override,-dac_read_search",
     "--inh-caps", "-dac_override,-dac_read_search"]
    if os.geteuid() == 0
    else []
)  # fmt: skip


def run_all(root: Path, commands: list[list[str]]) -> list[tuple[int, str]]:
    env = {**os.environ, "HOME": str(root / "home"), "XDG_CACHE_HOME": str(root / "cache")}
    done = subprocess.run(
        [*_AS_ANYBODY, sys.executable, "-c", _RUN],
        input=json.dumps(commands),
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [tuple(outcome) for outcome in json.loads(done.stdout)]


def denied(path: Path) -> None:
    path.chmod(0)


def unwritable(path: Path) -> None:
    path.chmod(0o555)


def unenterable(path: Path) -> None:
    path.chmod(0o444)


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


LONG = "x" * 300
PULL = ["pull", "oci:layout:v1", "DIR"]
PUSH = ["push", "DIR", "oci:new:v1"]
VERIFY = ["verify", "DIR"]
FRESH = ["pull", "oci:DIR:v1", "fresh"]


@dataclass(frozen=True)
class Case:
    """What is done to which path of which place, the command, its status, words in its line."""

    place: str
    path: str
    change: Callable[[Path], None] | None
    command: list[str]
    status: int
    words: tuple[str, ...] = ()


CASES = {
    name: Case(*case[:5], case[5:])
    for name, case in {
        "push-unreadable-file": ("model", "config.json", denied, PUSH, 1, "config.json", "denied"),
        "push-unreadable-directory": ("model", "sub", denied, PUSH, 1, "sub", "denied"),
        "push-unenterable-directory": ("model", "sub", unenterable, PUSH, 1, "sub/b.txt", "denied"),
        "push-unreachable": ("model", "", denied, ["push", "DIR/x", "oci:new:v1"], 1, "denied"),
        "push-name-too-long": ("model", "", None, ["push", LONG, "oci:new:v1"], 1, "too long"),
        "push-into-unwritable": ("empty", "", unwritable, ["push", "model", "oci:DIR/s:v1"], 1, "denied"),
        "push-into-unreachable": ("empty", "", denied, ["push", "model", "oci:DIR/s:v1"], 1, "denied"),
        "push-into-name-too-long": ("model", "", None, ["push", "DIR", f"oci:{LONG}:v1"], 1, "too long"),
        "push-unreadable-blobs": ("layout", "blobs", denied, ["push", "model", "oci:DIR:v2"], 1, "denied"),
        "pull-into-unwritable": ("empty", "", unwritable, PULL, 1, "denied"),
        "pull-into-unreachable": ("empty", "", denied, ["pull", "oci:layout:v1", "DIR/out"], 1, "denied"),
        "pull-name-too-long": ("empty", "", None, ["pull", "oci:layout:v1", LONG], 1, "too long"),
        "pull-unreadable-receipt": ("pulled", ".modelpack/receipt.json", denied, PULL, 1, "denied"),
        "pull-receipt-directory": ("pulled", ".modelpack/receipt.json", directory_instead, PULL, 5, "receipt.json"),
        "pull-index-directory": ("pulled", ".modelpack/chunks.bin", directory_instead, PULL, 5, "chunks.bin"),
        "pull-unreadable-file": ("model", "config.json", denied, [*PULL, "--force"], 1, "config.json", "denied"),
        "pull-unreadable-directory": ("pulled", "sub", denied, PULL, 1, "sub", "denied"),
        "pull-unreadable-state": ("pulled", ".modelpack", denied, PULL, 1, "denied"),
        "pull-unreadable-seed": ("pulled", "config.json", denied, ["pull", "oci:layout:v1", "fresh", "--seed", "DIR"], 0),
        "pull-unreadable-plain-seed": ("model", "config.json", denied, ["pull", "oci:layout:v1", "fresh2", "--seed", "DIR"], 1, "config.json", "denied"),
        "pull-unreadable-index": ("layout", "index.json", denied, FRESH, 1, "index.json", "denied"),
        "pull-index-json-directory": ("layout", "index.json", directory_instead, FRESH, 1, "index.json"),
        "pull-unreadable-blobs": ("layout", "blobs/sha256", denied, FRESH, 1, "denied"),
        "tags-unreadable": ("layout", "index.json", denied, ["tags", "oci:DIR"], 1, "denied"),
        "copy-unreadable": ("layout", "blobs", denied, ["copy", "oci:DIR:v1", "oci:other:v1"], 1, "denied"),
        "verify-unreadable-file": ("pulled", "config.json", denied, VERIFY, 1, "config.json", "denied"),
        "verify-unreadable-directory": ("pulled", "sub", denied, VERIFY, 1, "sub", "denied"),
        "verify-unreadable-index": ("pulled", ".modelpack/chunks.bin", denied, VERIFY, 1, "denied"),
        "verify-index-directory": ("pulled", ".modelpack/chunks.bin", directory_instead, VERIFY, 5, "chunks.bin"),
        "verify-unreachable": ("empty", "", denied, ["verify", "./DIR/x"], 1, "denied"),
        "verify-name-too-long": ("empty", "", None, ["verify", f"./{LONG}"], 1, "too long"),
        "verify-lost+found": ("pulled", "lost+found", denied, VERIFY, 0),
        "inspect-unreadable": ("pulled", ".modelpack/chunks.bin", denied, ["inspect", "DIR"], 1, "denied"),
        "diff-unreadable": ("model", "sub", denied, ["diff", "DIR", "model"], 1, "sub", "denied"),
    }.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Run every case in a place of its own, and return what came of it by name."""
    root = tmp_path_factory.mktemp("refused")
    write_files(root / "model", {"config.json": b"{}", "sub/b.txt": b"x", "w.bin": bytes(2000)})
    (root / "empty").mkdir()
    run_all(root, [["push", "model", "oci:layout:v1"], ["pull", "oci:layout:v1", "pulled"]])
    (root / "pulled" / "lost+found").mkdir()
    commands = []
    for name, case in CASES.items():
        subprocess.run(["cp", "-a", root / case.place, root / name], check=True)
        if case.change is not None:
            case.change(root / name / case.path)
        commands.append([word.replace("DIR", name) for word in case.command])
    found = dict(zip(CASES, run_all(root, commands), strict=True))
    subprocess.run(["chmod", "-R", "u+rwX", root], check=True)
    return found


@pytest.mark.parametrize("name", CASES)
def test_refusal_is_one_line(name, outcomes):
    case = CASES[name]
    status, errors = outcomes[name]
    assert status == case.status, errors
    if status:
        last = errors.splitlines()[-1]
        assert "unexpected" not in last
        assert last.startswith("modelpack: ")
        for word in case.words:
            assert word.lower() in last.lower()
