"""The examples run as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import modelpack
from tests.support.models import one_shard, read_tree, write_files

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch):
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name, value in home.items():
        monkeypatch.setenv(name, value)

    def call(name, *arguments):
        return subprocess.run(
            [sys.executable, EXAMPLES / name, *map(str, arguments)],
            env={**os.environ, **home},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


@pytest.fixture
def model(tmp_path):
    files = {"model.safetensors": one_shard(range(8)), "config.json": b"{}"}
    return write_files(tmp_path / "model", files)


def test_push_and_pull(run, model, tmp_path):
    out = tmp_path / "out"
    done = run("push_and_pull.py", model, f"oci:{tmp_path / 'store'}:v1", out)
    assert done.returncode == 0, done.stderr
    assert "2 files, ok=True" in done.stdout
    assert read_tree(out) == read_tree(model)
    done = run("push_and_pull.py", tmp_path / "nowhere", f"oci:{tmp_path / 'store'}:v1", out)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


def test_pull_only_what_changed(run, model, tmp_path):
    store = f"oci:{tmp_path / 'store'}"
    modelpack.push(model, f"{store}:v1")
    write_files(model, {"config.json": b'{"changed": true}'})
    modelpack.push(model, f"{store}:v2")
    assert run("pull_only_what_changed.py", f"{store}:v1", tmp_path / "out").returncode == 0
    done = run("pull_only_what_changed.py", f"{store}:v2", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "2 files" in done.stdout
    assert "0 removed" in done.stdout
    assert read_tree(tmp_path / "out") == read_tree(model)
