import os
import socket

import pytest

from modelpack.errors import FormatError, NotFoundError, UsageError
from modelpack.scan import scan_directory
from modelpack.selection import Selection
from tests.support.models import write_files


@pytest.fixture
def model(tmp_path):
    return write_files(
        tmp_path / "model",
        {
            "b.bin": b"12345",
            "a/c.txt": b"",
            "a-b": b"1",
            "run.sh": b"#!",
            "é/x": b"x",
            ".dot": b".",
        },
    )


def paths(directory, **options):
    return [file.path for file in scan_directory(directory, **options).files]


def test_files_in_the_order_of_their_bytes(model):
    assert paths(model) == [".dot", "a-b", "a/c.txt", "b.bin", "run.sh", "é/x"]


def test_what_is_known_of_a_file(model):
    (model / "run.sh").chmod(0o750)
    (model / "b.bin").chmod(0o067)
    found = {file.path: file for file in scan_directory(model).files}
    assert found["run.sh"].mode == 0o755
    assert found["b.bin"].mode == 0o644  # what others may do says nothing
    assert found["b.bin"].size == 5
    assert found["b.bin"].source == model / "b.bin"
    status = (model / "b.bin").stat()
    assert found["b.bin"].identity == (
        *(status.st_dev, status.st_ino, 5),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )


def test_the_identity_changes_with_the_file(model):
    def identity():
        return {file.path: file.identity for file in scan_directory(model).files}["b.bin"]

    before = identity()
    status = (model / "b.bin").stat()
    (model / "b.bin").write_bytes(b"54321")
    os.utime(model / "b.bin", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert identity() != before  # the change time cannot be set back


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"include": ("*.bin",)}, ["b.bin"]),
        ({"exclude": ("a", ".dot", "é")}, ["a-b", "b.bin", "run.sh"]),
        ({"include": ("a/*", "b.bin"), "exclude": ("c.txt",)}, ["b.bin"]),
    ],
)
def test_a_selection(model, selection, expected):
    assert paths(model, selection=Selection(**selection)) == expected


@pytest.mark.parametrize("prefix", ["models", "models/"])
def test_a_prefix(model, prefix):
    found = scan_directory(model, prefix=prefix, selection=Selection(include=("a",))).files
    assert [(file.path, file.source) for file in found] == [
        ("models/a/c.txt", model / "a" / "c.txt")
    ]


@pytest.mark.parametrize("prefix", ["/models", "models//x", "../models", ".modelpack", "a\\b"])
def test_a_prefix_that_is_no_path(model, prefix):
    with pytest.raises(UsageError, match="--prefix"):
        scan_directory(model, prefix=prefix)


def test_what_belongs_to_the_working_copy_is_left_out(model):
    write_files(
        model,
        {
            ".git/config": b"",
            ".modelpack/chunks.bin": b"",
            ".cache/huggingface/download/x": b"",
            ".cache/other": b"",
            "sub/.git/config": b"",
            ".gitattributes": b"",
            "model.sig": b"",
            "lost+found/x": b"",
            "sub/model.sig": b"",
        },
    )
    scan = scan_directory(model)
    found = {file.path for file in scan.files}
    assert {
        ".git/config",
        ".modelpack/chunks.bin",
        ".cache/huggingface/download/x",
    } & found == set()
    assert found & {"model.sig", "lost+found/x"} == set()
    assert {".cache/other", "sub/.git/config", ".gitattributes", "sub/model.sig"} <= found
    assert set(scan.skipped) == {
        *(".git", ".modelpack", ".cache/huggingface", "model.sig", "lost+found")
    }


def test_a_directory_that_is_a_link_is_what_it_leads_to(model, tmp_path):
    (tmp_path / "link").symlink_to(model)
    assert paths(tmp_path / "link") == paths(model)


def test_links_that_stay_inside(model):
    (model / "alias").symlink_to("b.bin")
    (model / "a" / "up").symlink_to("../run.sh")
    (model / "chain").symlink_to("alias")
    found = {file.path: file for file in scan_directory(model).files}
    assert found["alias"].source == found["chain"].source == model / "b.bin"
    assert found["a/up"].source == model / "run.sh"
    assert found["alias"].size == 5


def test_links_of_a_hugging_face_cache(tmp_path):
    home = tmp_path / "models--org--name"
    write_files(home, {"blobs/1": b"1", "refs/main": b"abc"})
    snapshot = home / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.bin").symlink_to("../../blobs/1")
    assert [file.source for file in scan_directory(snapshot).files] == [home / "blobs" / "1"]
    (snapshot / "ref").symlink_to("../../refs/main")
    with pytest.raises(FormatError, match="outside the directory"):
        scan_directory(snapshot)


def test_the_layout_of_that_cache_is_meant_exactly(tmp_path):
    """blobs/ beside any other directory is not part of the model."""
    for home in ("models--o--n/other/abc", "name/snapshots/abc"):
        snapshot = tmp_path / home
        snapshot.mkdir(parents=True)
        write_files(snapshot.parent.parent, {"blobs/1": b"1"})
        (snapshot / "model.bin").symlink_to("../../blobs/1")
        with pytest.raises(FormatError, match="outside the directory"):
            scan_directory(snapshot)


def socket_at(path):
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)
        server.bind(path.name)


REFUSED = {
    "link-absolute": (lambda d: (d / "x").symlink_to("/etc/hostname"), "outside the directory"),
    "link-above": (lambda d: (d / "x").symlink_to("../secret"), "outside the directory"),
    "link-sibling-prefix": (
        lambda d: (d / "x").symlink_to("../model-other/file"),
        "outside the directory",
    ),
    "link-through-a-link": (
        lambda d: ((d / "way").symlink_to(".."), (d / "x").symlink_to("way/secret")),
        "outside the directory",
    ),
    "link-to-nothing": (lambda d: (d / "x").symlink_to("gone"), "symlink to nothing"),
    "link-to-itself": (lambda d: (d / "x").symlink_to("x"), "symlink to nothing"),
    "link-to-a-directory": (lambda d: (d / "x").symlink_to("a"), "symlink to a directory"),
    "link-to-the-top": (lambda d: (d / "x").symlink_to("."), "symlink to a directory"),
    "fifo": (lambda d: os.mkfifo(d / "x"), "is a FIFO"),
    "socket": (lambda d: socket_at(d / "x"), "is a socket"),
    "link-to-a-fifo": (
        lambda d: (os.mkfifo(d / "y"), (d / "x").symlink_to("y")),
        "is a FIFO",
    ),
    "whiteout": (lambda d: (d / ".wh.x").write_bytes(b""), "whiteout"),
    "newline": (
        lambda d: (d / "a\nb").write_bytes(b""),
        "control character; rename it, or leave it out",
    ),
    "backslash": (lambda d: (d / "a\\b").write_bytes(b""), "backslash"),
    "not-utf-8": (
        lambda d: open(os.fsencode(d) + b"/\xff", "wb").close(),
        "not valid UTF-8",
    ),
}


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_packed(model, tmp_path, monkeypatch, make, said):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"secret": b"", "model-other/file": b""})
    make(model)
    with pytest.raises(FormatError, match=said) as caught:
        scan_directory(model)
    assert "\n" not in str(caught.value)


def test_what_is_not_selected_is_not_looked_at(model):
    os.mkfifo(model / "pipe")
    assert "pipe" not in paths(model, selection=Selection(exclude=("pipe",)))


def test_a_tree_deeper_than_paths_may_be(tmp_path):
    """Refused by its path, not by Python's stack."""
    write_files(tmp_path / "model", {"d/" * 127 + "f": b""})
    assert len(paths(tmp_path / "model")) == 1
    write_files(tmp_path / "model", {"d/" * 200 + "f": b""})
    with pytest.raises(FormatError, match="nested too deep"):
        scan_directory(tmp_path / "model")


def test_no_directory(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        scan_directory(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="is not a directory"):
        scan_directory(tmp_path / "file")


def test_nothing_to_pack(tmp_path, model):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(NotFoundError, match="holds no file to pack"):
        scan_directory(tmp_path / "empty")
    with pytest.raises(NotFoundError, match="holds no file to pack"):
        scan_directory(model, selection=Selection(include=("*.none",)))
