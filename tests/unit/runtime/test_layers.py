"""A layer's directory is what unpacking its tar gives, and nothing is written beside it."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from modelpack.chunkindex import IndexedFile
from modelpack.digest import ChunkHash
from modelpack.errors import IntegrityError, ModelpackError
from modelpack.layering import SourceFile, frames
from modelpack.metadata import build_metadata_layer
from modelpack.runtime.layers import (
    place_layer,
    place_metadata,
    read_metadata_files,
    reclaim_layer,
)

pytestmark = pytest.mark.root  # every file of a layer belongs to root

FILES = {
    "a.bin": (b"weights", 0o644),
    "run.sh": (b"#!/bin/sh\n", 0o755),
    "empty": (b"", 0o644),
    "deep/er/est/c.txt": (b"c", 0o644),
    "deep/b.txt": (b"b", 0o644),
    "наука/" + "ф" * 100: (b"d", 0o644),
}


def indexed(path: str, data: bytes, mode: int) -> IndexedFile:
    return IndexedFile(
        path=path, size=len(data), mode=mode, blake3=ChunkHash(bytes(32)), layer=0, offset=0,
        first_chunk=0, chunk_count=0,
    )  # fmt: skip


def staged(directory: Path, files=None) -> list[tuple[IndexedFile, Path]]:
    """Write files as a staging directory holds them: numbered, private, of this moment."""
    directory.mkdir()
    made = []
    for number, (path, (data, mode)) in enumerate((files or FILES).items()):
        source = directory / str(number)
        source.write_bytes(data)
        source.chmod(0o600)
        made.append((indexed(path, data, mode), source))
    return made


def unpack(tar: bytes, directory: Path) -> None:
    directory.mkdir()
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        archive.extractall(directory, numeric_owner=True, filter="fully_trusted")


def tree(root: Path) -> dict[str, tuple]:
    """Return all that unpacking decides, by path; the root's own times are not in the tar."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = Path(directory, name)
            status = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
            found[path.relative_to(root).as_posix()] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content,
                sorted(os.listxattr(path)), status.st_nlink,
            )  # fmt: skip
    return found


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000], ids=oct)
def test_files_lie_as_if_their_tar_had_been_unpacked(umask, tmp_path):
    tar = b""
    for frame, source in frames(
        [SourceFile(path=path, size=len(d), mode=mode) for path, (d, mode) in FILES.items()]
    ):
        tar += frame + (FILES[source.path][0] if source else b"")
    unpack(tar, tmp_path / "expected")
    root = tmp_path / "fs"
    root.mkdir()
    before = os.umask(umask)
    try:
        place_layer(root, staged(tmp_path / "staging"))
    finally:
        os.umask(before)
    assert tree(root) == tree(tmp_path / "expected")
    assert os.listdir(tmp_path / "staging") == []


def test_metadata_lies_as_if_its_tar_had_been_unpacked(tmp_path):
    files = {"chunks.bin": b"index", "model.json": b"{}"}
    unpack(build_metadata_layer(files), tmp_path / "expected")
    (tmp_path / "fs").mkdir()
    place_metadata(tmp_path / "fs", files)
    assert tree(tmp_path / "fs") == tree(tmp_path / "expected")
    assert read_metadata_files(tmp_path / "fs", 100) == files


@pytest.mark.parametrize("way", ["deep", "deep/er"])
def test_a_link_on_the_way_is_not_followed(way, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "fs"
    (root / way).parent.mkdir(parents=True)
    (root / way).symlink_to(outside)
    with pytest.raises(IntegrityError):
        place_layer(root, staged(tmp_path / "staging", {"deep/er/file": (b"x", 0o644)}))
    assert os.listdir(outside) == []


def test_a_linked_source_is_not_taken(tmp_path):
    (tmp_path / "fs").mkdir()
    files = staged(tmp_path / "staging", {"a": (b"x", 0o644)})
    files[0][1].unlink()
    files[0][1].symlink_to("/etc/passwd")
    before = os.stat("/etc/passwd")
    with pytest.raises(ModelpackError):
        place_layer(tmp_path / "fs", files)
    after = os.stat("/etc/passwd")
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert os.listdir(tmp_path / "fs") == []


def test_what_was_placed_goes_back(tmp_path):
    root = tmp_path / "fs"
    root.mkdir()
    files = staged(tmp_path / "staging")
    place_layer(root, files[:4])
    reclaim_layer(root, files)
    for file, source in files:
        assert source.read_bytes() == FILES[file.path][0]
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_only_what_can_be_a_finished_file_goes_back(tmp_path):
    root = tmp_path / "fs"
    root.mkdir()
    (root / "a.bin").write_bytes(b"half")
    files = staged(tmp_path / "staging", {"a.bin": FILES["a.bin"], "kept": (b"k", 0o644)})
    files[0][1].unlink()
    (root / "kept").write_bytes(b"K")
    reclaim_layer(root, files)
    assert not files[0][1].exists()
    assert files[1][1].read_bytes() == b"k"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda root: None, id="nothing"),
        pytest.param(lambda root: (root / ".modelpack").symlink_to("/etc"), id="link"),
        pytest.param(lambda root: (root / ".modelpack").write_bytes(b""), id="file"),
        pytest.param(
            lambda root: ((root / ".modelpack").mkdir(), (root / ".modelpack/x").symlink_to("/x")),
            id="link-inside",
        ),
        pytest.param(
            lambda root: (
                (root / ".modelpack").mkdir(),
                (root / ".modelpack/x").write_bytes(bytes(200)),
            ),
            id="too-large",
        ),
    ],
)
def test_metadata_that_is_none_is_refused(make, tmp_path):
    make(tmp_path)
    with pytest.raises(IntegrityError):
        read_metadata_files(tmp_path, 100)
