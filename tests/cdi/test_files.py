"""Spec files: names, atomic writing, modes, and files that must not be read."""

import os
import stat
import threading
from pathlib import Path

import pytest

from cdi import files
from cdi.emit import to_yaml
from cdi.errors import CdiError, CdiNotFoundError, CdiUsageError, InvalidSpecError, SpecWriteError
from cdi.files import read_spec, remove_spec, spec_file_name, write_spec
from cdi.parse import MAX_SPEC_BYTES
from cdi.spec import ContainerEdits, Device, Spec


def spec_with(*names, env="A=1"):
    edits = ContainerEdits(env=(env,))
    devices = tuple(Device(name=name, container_edits=edits) for name in names)
    return Spec(cdi_version="0.5.0", kind="vendor.com/gpu", devices=devices)


SPEC = spec_with("0")


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({}, "vendor.com-gpu.yaml"),
        ({"syntax": "json"}, "vendor.com-gpu.json"),
        ({"transient_id": "claim"}, "vendor.com-gpu_claim.yaml"),
        ({"transient_id": "a/b/../c"}, "vendor.com-gpu_a_b_.._c.yaml"),
    ],
)
def test_file_names(arguments, name):
    assert spec_file_name(SPEC, **arguments) == name


@pytest.mark.parametrize("transient_id", ["x" * 300, "a\0b", "é" * 130])
def test_ids_that_make_no_file_name(transient_id):
    with pytest.raises(CdiUsageError):
        spec_file_name(SPEC, transient_id=transient_id)


def test_a_spec_without_a_kind_has_no_file_name():
    with pytest.raises(CdiUsageError):
        spec_file_name(Spec(cdi_version="0.5.0", kind="gpu", devices=()))


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_a_written_spec_reads_back_with_mode_0644(tmp_path, suffix, umask):
    path = tmp_path / f"a{suffix}"
    before = os.umask(umask)
    try:
        assert write_spec(SPEC, path) is True
    finally:
        os.umask(before)
    assert mode_of(path) == 0o644
    assert read_spec(path) == SPEC
    assert list(tmp_path.iterdir()) == [path]


def test_missing_directories_are_created(tmp_path):
    path = tmp_path / "run" / "cdi" / "a.yaml"
    assert write_spec(SPEC, path)
    assert read_spec(path) == SPEC


def test_an_equal_file_is_left_alone(tmp_path):
    path = tmp_path / "a.yaml"
    write_spec(SPEC, path)
    before = path.stat()
    assert write_spec(SPEC, path) is False
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("change", ["content", "mode", "link"])
def test_a_different_file_is_replaced(tmp_path, change):
    path = tmp_path / "a.yaml"
    write_spec(SPEC, path)
    if change == "content":
        path.write_text(to_yaml(spec_with("1")))
    elif change == "mode":
        path.chmod(0o600)
    else:
        path.rename(tmp_path / "target")
        path.symlink_to("target")
    assert write_spec(SPEC, path) is True
    assert read_spec(path) == SPEC
    assert mode_of(path) == 0o644
    assert not path.is_symlink()


def test_steps_of_a_write_file_before_name_before_directory(tmp_path, monkeypatch):
    steps = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor):
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("sync directory" if is_directory else "sync file")
        real_sync(descriptor)

    def replace(self, target):
        assert mode_of(self) == 0o644
        assert self.suffix == ".tmp"
        steps.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_spec(SPEC, tmp_path / "a.yaml")
    assert steps == ["sync file", "rename", "sync directory"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml"
    write_spec(SPEC, path)

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SpecWriteError, match=r"a\.yaml cannot be written: No space left"):
        write_spec(spec_with("1"), path)
    assert read_spec(path) == SPEC
    assert list(tmp_path.iterdir()) == [path]


def test_an_invalid_spec_is_not_written(tmp_path):
    with pytest.raises(InvalidSpecError, match="no devices"):
        write_spec(spec_with(), tmp_path / "a.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.yml", "a", "a.yaml.bak"])
def test_names_that_runtimes_ignore_are_refused(tmp_path, name):
    with pytest.raises(CdiUsageError, match="runtimes read only"):
        write_spec(SPEC, tmp_path / name)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecWriteError):
        write_spec(SPEC, tmp_path / "file" / "a.yaml")
    (tmp_path / "b.yaml").mkdir()
    with pytest.raises(SpecWriteError):
        write_spec(SPEC, tmp_path / "b.yaml")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.yaml", "file"]


def test_readers_never_see_a_part(tmp_path):
    path = tmp_path / "a.yaml"
    specs = [spec_with(*map(str, range(n)), env=f"N={n}") for n in (1, 40)]
    write_spec(specs[0], path)
    seen, wrong, done = set(), [], threading.Event()

    def read():
        while not done.is_set():
            try:
                seen.add(len(read_spec(path).devices))
            except CdiError as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        write_spec(specs[i % 2], path)
    done.set()
    reader.join()
    assert wrong == []
    assert seen <= {1, 40}


def test_remove(tmp_path):
    path = tmp_path / "a.yaml"
    write_spec(SPEC, path)
    assert remove_spec(path) is True
    assert remove_spec(path) is False
    (tmp_path / "d.yaml").mkdir()
    with pytest.raises(SpecWriteError):
        remove_spec(tmp_path / "d.yaml")


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(CdiNotFoundError) as info:
        read_spec(tmp_path / "none.yaml")
    assert info.value.exit_code == 3


def test_a_named_pipe_does_not_hang_the_reader(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(CdiError, match="not a regular file"):
        read_spec(tmp_path / "a.yaml")


def test_a_directory_and_a_huge_file_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").mkdir()
    with pytest.raises(CdiError, match="cannot be read: Is a directory"):
        read_spec(tmp_path / "a.yaml")
    with (tmp_path / "b.yaml").open("wb") as file:
        file.truncate(MAX_SPEC_BYTES + 1)
    with pytest.raises(CdiError, match="larger than"):
        read_spec(tmp_path / "b.yaml")


def test_the_suffix_decides_the_syntax(tmp_path):
    (tmp_path / "a.json").write_text(to_yaml(SPEC))
    with pytest.raises(InvalidSpecError):
        read_spec(tmp_path / "a.json")
    (tmp_path / "a.yaml").write_text(files.render(SPEC, "json"))
    assert read_spec(tmp_path / "a.yaml") == SPEC
