"""What a destination promises across crashes, machines and users."""

import json
import os
import shutil
from pathlib import Path

import pytest

import modelpack
from modelpack.errors import IntegrityError
from modelpack.stores import destination
from tests.support.models import leftovers, random_bytes, read_tree, write_files


@pytest.fixture
def versions(tmp_path):
    """Two versions of a model in a layout: the second lacks a file, and has another changed."""
    store = f"oci:{tmp_path / 'store'}"
    first = write_files(
        tmp_path / "first",
        {"a/b/old.bin": random_bytes(5000), "a/kept.bin": random_bytes(3000, 2), "c.json": b"1"},
    )
    modelpack.push(first, f"{store}:v1")
    second = write_files(
        tmp_path / "second", {"a/kept.bin": random_bytes(3000, 2), "c.json": b"22", "d/e/f": b"x"}
    )
    modelpack.push(second, f"{store}:v2")
    return f"{store}:v1", f"{store}:v2", second


def on_another_machine(out: Path) -> None:
    receipt = out / ".modelpack" / "receipt.json"
    value = json.loads(receipt.read_text())
    value["files"] = {path: [number[0] + 7, *number[1:]] for path, number in value["files"].items()}
    receipt.write_text(json.dumps(value))


def copied(out: Path) -> None:
    shutil.copytree(out, out.with_name("moved"))
    shutil.rmtree(out)
    out.with_name("moved").rename(out)


def touched(out: Path) -> None:
    for path in read_tree(out):
        os.utime(out / path)


@pytest.mark.parametrize("change", [on_another_machine, copied, touched])
def test_what_was_pulled_is_known_again(change, versions, tmp_path):
    """A volume has another device number elsewhere; a copy has other inodes and times."""
    out = tmp_path / "out"
    modelpack.pull(versions[0], out)
    change(out)
    result = modelpack.pull(versions[1], out)
    assert (result.warnings, result.removed) == ((), 1)
    assert read_tree(out) == read_tree(versions[2])


def test_a_volume_on_another_machine_is_not_read_again(versions, tmp_path, monkeypatch):
    out = tmp_path / "out"
    modelpack.pull(versions[0], out)
    on_another_machine(out)
    monkeypatch.setattr(destination, "chunk_hash", lambda _: pytest.fail("hashed"))
    assert modelpack.pull(versions[0], out).reused_bytes > 0


def test_a_changed_file_of_an_old_version_is_left(versions, tmp_path):
    out = tmp_path / "out"
    modelpack.pull(versions[0], out)
    (out / "a/b/old.bin").write_bytes(bytes(5000))
    result = modelpack.pull(versions[1], out)
    assert result.removed == 0
    assert "left where it is" in result.warnings[0]
    assert (out / "a/b/old.bin").exists()


def test_names_are_durable_before_the_receipt_says_so(versions, tmp_path, monkeypatch):
    """Every directory on the way to a new file is forced to disk, and so is every removal."""
    out = tmp_path / "deep" / "out"
    synced: list[str] = []
    real = os.fsync

    def fsync(fd):
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    modelpack.pull(versions[0], out)
    receipt = max(n for n, name in enumerate(synced) if ".receipt.json" in name)
    before = set(synced[:receipt])
    assert {str(out.parent.parent), str(out.parent), str(out)} <= before
    assert {str(out / "a/b"), str(out / "a")} <= before
    synced.clear()
    modelpack.pull(versions[1], out)
    index = min(n for n, name in enumerate(synced) if ".chunks.bin" in name)
    assert synced[:index].count(str(out / "a")) == 2  # for what came, and for what went


def test_half_written_files_of_a_killed_pull_are_removed(versions, tmp_path):
    out = tmp_path / "out"
    modelpack.pull(versions[0], out)
    (out / ".modelpack" / ".receipt.json.0a1b2c3d").write_bytes(b"{")
    modelpack.pull(versions[0], out)
    assert ".receipt.json.0a1b2c3d" not in leftovers(out)


@pytest.mark.root
@pytest.mark.parametrize("where", [".modelpack", ".modelpack/staging"])
def test_nobody_else_may_own_where_files_are_verified(where, versions, tmp_path):
    """Attack 11, CVE-2026-4137: whoever owns the directory can swap a file after its check."""
    out = tmp_path / "out"
    (out / where).mkdir(parents=True)
    os.chown(out / where, 65534, 65534)
    with pytest.raises(IntegrityError, match="another user"):
        modelpack.pull(versions[0], out)
    assert read_tree(out) == {}


@pytest.mark.root
def test_a_directory_of_a_user_is_filled_by_root(versions, tmp_path):
    out = tmp_path / "out"
    (out / ".modelpack").mkdir(parents=True)
    for path in (out, out / ".modelpack"):
        os.chown(path, 65534, 65534)
    modelpack.pull(versions[0], out)
    assert modelpack.verify(out).ok
