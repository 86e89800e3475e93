"""Layers byte for byte, with Python's tarfile and GNU tar as judges."""

import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack import tarformat
from modelpack.tarformat import END_OF_ARCHIVE, directory_header, file_header, padding
from tests.support import secondreader
from tests.support.indexes import PATHS

GIB = 1024**3
NAMES = {
    "short": "a",
    "99": "n" * 99,
    "100": "n" * 100,
    "101": "n" * 101,
    "250": "n" * 250,
    "100-in-directories": "d" * 49 + "/" + "n" * 50,
    "101-in-directories": "d" * 50 + "/" + "n" * 50,
    "156-that-ustar-could-split": "d" * 100 + "/" + "n" * 55,
    "3072": "/".join(["n" * 255] * 12),
    "not-ascii": "é",
    "not-ascii-100-letters": "é" * 100,
    "99-bytes-not-ascii": "é" + "n" * 97,
    "astral": "\U0001f600.txt",
    "spaces": " a b ",
    "odd": "a'\"$`;&|*?[]{}~#%=,:@!",
    "looks-like-an-option": "-rf",
    "like-a-record": "12 path=x",
    "right-to-left": "\u202egnp.exe",
}


def archive(entries):
    """A tar of (path, mode, content)."""
    out = b""
    for path, mode, content in entries:
        out += file_header(path, size=len(content), mode=mode) + content
        out += bytes(padding(len(content)))
    return out + END_OF_ARCHIVE


def read_back(raw):
    """What tarfile makes of it: (name, type, mode, size, content, and all that must be nothing)."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:", encoding="utf-8") as tar:
        for entry in tar:
            content = tar.extractfile(entry).read() if entry.isreg() else None
            nothing = (entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime, entry.linkname)
            found.append((entry.name, entry.type, entry.mode, content, nothing))
    return found


NOTHING = (0, 0, "", "", 0, "")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_tarfile_reads_what_was_written(name, mode):
    raw = archive([(name, mode, b"content"), ("after", 0o644, b"")])
    assert len(raw) % 512 == 0
    assert read_back(raw) == [
        (name, tarfile.REGTYPE, mode, b"content", NOTHING),
        ("after", tarfile.REGTYPE, 0o644, b"", NOTHING),
    ]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_gnu_tar_reads_what_was_written(name, tmp_path):
    raw = directory_header("top") + archive([(f"top/{name}", 0o755, b"content")])
    (tmp_path / "out").mkdir()
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["tar", "-xvf-", "-C", tmp_path / "out", "--quoting-style=literal"],
        input=raw,
        capture_output=True,
        check=True,
        env=environment,
    )
    assert done.stderr == b""
    assert done.stdout.decode() == f"top/\ntop/{name}\n"
    target = tmp_path / "out" / "top" / name
    assert target.read_bytes() == b"content"
    assert target.stat().st_mode & 0o7777 == 0o755
    assert target.stat().st_mtime == 0


@pytest.mark.parametrize(
    "size", [8 * GIB - 1, 8 * GIB, 8 * GIB + 1, 100 * GIB + 7, 2**53], ids=lambda n: f"{n}"
)
def test_sizes_around_eight_gibibytes(size, tmp_path):
    """Only headers are written; the content is a hole."""
    header = file_header("weights.bin", size=size, mode=0o644)
    assert len(header) == (512 if size < 8 * GIB else 3 * 512)
    with tarfile.open(fileobj=io.BytesIO(header + END_OF_ARCHIVE), mode="r:") as tar:
        assert tar.firstmember.size == size
    if size < 200 * GIB:
        path = tmp_path / "layer.tar"
        path.write_bytes(header)
        os.truncate(path, len(header) + size + padding(size) + len(END_OF_ARCHIVE))
        with tarfile.open(path) as tar:
            assert [(entry.name, entry.size) for entry in tar] == [("weights.bin", size)]
        done = subprocess.run(
            ["tar", "-tvf", path], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.split()[2] == str(size)


def test_a_long_name_and_a_large_size_share_a_pax_header():
    header = file_header("n" * 200, size=9 * GIB, mode=0o644)
    assert header[156:157] == b"x"
    assert header[512:1024].rstrip(b"\0") == b"210 path=" + b"n" * 200 + b"\n19 size=9663676416\n"
    assert header[1024 + 124 : 1024 + 136] == b"00000000000\0"


def test_gnu_tar_writes_the_same_bytes(tmp_path):
    """Told to leave out what is left out here, for names that need no pax header."""
    long = "n" * 98
    (tmp_path / "d").mkdir(mode=0o755)
    (tmp_path / "d" / long).write_bytes(b"content")
    (tmp_path / "run").write_bytes(bytes(512))
    (tmp_path / "d" / long).chmod(0o644)
    (tmp_path / "run").chmod(0o755)
    command = "tar --format=ustar --blocking-factor=1 --owner=0 --group=0 --numeric-owner"
    command += f" --mtime=@0 --no-recursion -c d d/{long} run"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=True)
    entries = [(f"d/{long}", 0o644, b"content"), ("run", 0o755, bytes(512))]
    assert directory_header("d") + archive(entries) == done.stdout


@pytest.mark.parametrize("length", [98, 99, 100, 101])
def test_directories_count_with_their_slash(length):
    path = "d" * length
    header = directory_header(path)
    assert len(header) == (512 if length < 100 else 3 * 512)
    ((name, kind, mode, _, nothing),) = read_back(header + END_OF_ARCHIVE)
    assert (name, kind, mode, nothing) == (path, tarfile.DIRTYPE, 0o755, NOTHING)


@pytest.mark.parametrize(
    ("size", "expected"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511), (2**53, 0)]
)
def test_padding(size, expected):
    assert padding(size) == expected


@given(st.lists(st.tuples(PATHS, st.sampled_from([0o644, 0o755]), st.binary(max_size=2000))))
@settings(max_examples=100, deadline=None)
def test_any_files_come_back(entries):
    found = [(name, mode, content) for name, _, mode, content, _ in read_back(archive(entries))]
    assert found == entries


@given(PATHS, st.integers(0, 2**53), st.sampled_from([0o644, 0o755]))
@settings(deadline=None)
def test_the_specification_gives_the_same_bytes(path, size, mode):
    assert file_header(path, size=size, mode=mode) == secondreader.entry(path, size, mode, b"0")
    assert directory_header(path) == secondreader.entry(path + "/", 0, 0o755, b"5")


def test_a_record_counts_its_own_digits():
    for length in range(1, 1100):
        record = tarformat._pax_record(b"path", b"n" * length)
        stated, rest = record.split(b" ", 1)
        assert int(stated) == len(record)
        assert rest == b"path=" + b"n" * length + b"\n"
