"""A destination's own notes: what they allow, and that nothing in them can do harm."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.chunkindex import ChunkIndex, encode_index
from modelpack.digest import chunk_hash
from modelpack.errors import FormatError, IntegrityError, UsageError
from modelpack.events import Warned, ignore
from modelpack.stores.destination import Destination, open_destination
from modelpack.stores.receipts import Receipt, read_receipt
from tests.support.indexes import make_index
from tests.support.models import leftovers, read_tree, write_files


def index_of(files):
    """The index of files by path, each of one chunk."""
    index = make_index([(path, [len(data)] if data else []) for path, data in files.items()])
    hashes = b"".join(chunk_hash(files[file.path]) for file in index.files if file.chunk_count)
    return ChunkIndex(layers=index.layers, files=index.files, lengths=index.lengths, hashes=hashes)


def put(out, files, *, modes=None, selected=False, digest="sha256:" + "1" * 64):
    """Do what a pull does once everything is staged; return how many files were removed."""
    index = index_of(files)
    with open_destination(out, ignore) as target:
        staging = target.staging_path(b"k" * 32)
        staging.mkdir(mode=0o700, exist_ok=True)
        target.begin_placing("oci:x:v", digest, list(files))
        for number, (path, data) in enumerate(files.items()):
            (staging / str(number)).write_bytes(data)
            target.place(staging / str(number), path, (modes or {}).get(path, 0o644))
        return target.finish(
            reference="oci:x:v",
            digest=digest,
            manifest=b"{}",
            paths=list(files),
            selected=selected,
            metadata_files={"chunks.bin": encode_index(index), "model.json": b"{}"},
        )


def warnings_of(out):
    events = []
    with open_destination(out, events.append) as target:
        receipt = target.receipt
    return receipt, [event.message for event in events if isinstance(event, Warned)]


V1 = {"a.bin": b"one", "d/e/b.txt": b"two", "empty": b""}


@pytest.fixture
def out(tmp_path):
    put(tmp_path / "out", V1, modes={"a.bin": 0o755})
    return tmp_path / "out"


def test_what_a_pull_leaves(out):
    assert read_tree(out) == {
        "a.bin": (0o755, b"one"),
        "d/e/b.txt": (0o644, b"two"),
        "empty": (0o644, b""),
    }
    assert leftovers(out) == ["chunks.bin", "lock", "manifest.json", "model.json", "receipt.json"]
    receipt = read_receipt(out)
    assert (receipt.complete, receipt.selected) == (True, False)
    assert receipt.owned == set(receipt.files) == set(V1)
    status = (out / "a.bin").stat()
    assert receipt.files["a.bin"] == (
        *(status.st_dev, status.st_ino, 3),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )


@pytest.mark.parametrize("obstacle", ["a link", "a directory", "a link above"])
def test_what_comes_in_the_way_of_a_first_pull_is_refused(tmp_path, obstacle):
    """A directory that was empty is not looked through again; each file is, as it gets its name."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.txt").write_bytes(b"untouched")
    out = tmp_path / "out"
    with open_destination(out, ignore) as target:
        target.refuse_strangers(["d/b.txt"])
        target.check_way(["d/b.txt"])
        staged = target.staging_path(b"k" * 32) / "0"
        staged.parent.mkdir()
        staged.write_bytes(b"two")
        if obstacle == "a link above":
            (out / "d").symlink_to(outside)
        else:
            (out / "d").mkdir()
            if obstacle == "a link":
                (out / "d/b.txt").symlink_to(outside / "b.txt")
            else:
                (out / "d/b.txt").mkdir()
        target.begin_placing("oci:x:v", "sha256:" + "1" * 64, ["d/b.txt"])
        with pytest.raises(IntegrityError, match=r"d/b\.txt"):
            target.place(staged, "d/b.txt", 0o644)
    assert (outside / "b.txt").read_bytes() == b"untouched"


def test_the_umask_does_not_matter(tmp_path):
    old = os.umask(0o077)
    try:
        put(tmp_path / "out", V1, modes={"a.bin": 0o755})
    finally:
        os.umask(old)
    assert {path: mode for path, (mode, _) in read_tree(tmp_path / "out").items()} == {
        "a.bin": 0o755,
        "d/e/b.txt": 0o644,
        "empty": 0o644,
    }


class TestInPlace:
    def seen(self, out, path, *, files=V1, rehash=False):
        index = index_of(files)
        with open_destination(out, ignore) as target:
            return target.in_place(index.by_path()[path], index, rehash=rehash)

    def test_what_was_pulled(self, out):
        assert all(self.seen(out, path) for path in V1)
        assert all(self.seen(out, path, rehash=True) for path in V1)

    def test_what_is_not_there(self, out):
        (out / "a.bin").unlink()
        assert not self.seen(out, "a.bin")

    def test_what_has_another_length(self, out):
        (out / "a.bin").write_bytes(b"o")
        assert not self.seen(out, "a.bin")

    def test_what_has_other_bytes(self, out):
        (out / "a.bin").write_bytes(b"two")
        assert not self.seen(out, "a.bin")

    def test_what_a_disk_changed_is_found_when_asked(self, out):
        status = (out / "a.bin").stat()
        receipt = out / ".modelpack" / "receipt.json"
        (out / "a.bin").write_bytes(b"two")
        os.utime(out / "a.bin", ns=(status.st_atime_ns, status.st_mtime_ns))
        value = json.loads(receipt.read_text())
        value["files"]["a.bin"][4] = (out / "a.bin").stat().st_ctime_ns  # as if it had not moved
        receipt.write_text(json.dumps(value))
        assert self.seen(out, "a.bin")
        assert not self.seen(out, "a.bin", rehash=True)

    def test_what_another_version_has_otherwise(self, out):
        """Both indexes claim one BLAKE3 for the whole file (these always do): only chunks count.

        Or whoever made the version before could choose what the next one's files hold.
        """
        files = {**V1, "a.bin": b"uno"}
        claims = [index_of(each).by_path()["a.bin"].blake3 for each in (V1, files)]
        assert claims[0] == claims[1]
        assert not self.seen(out, "a.bin", files=files)

    def test_what_is_cut_otherwise_is_hashed(self, out):
        before = index_of(V1).by_path()["a.bin"]
        index = make_index([("a.bin", [1, 2])])
        for second, expected in ((b"ne", True), (b"no", False)):
            index = ChunkIndex(
                layers=index.layers,
                files=(replace(index.files[0], blake3=before.blake3),),
                lengths=index.lengths,
                hashes=chunk_hash(b"o") + chunk_hash(second),
            )
            with open_destination(out, ignore) as target:
                assert target.in_place(index.files[0], index, rehash=False) is expected

    def test_what_is_known_is_not_read(self, out, monkeypatch):
        monkeypatch.setattr(Destination, "_hashes_right", None)
        assert all(self.seen(out, path) for path in V1)

    def test_what_the_user_put_there_and_is_right(self, tmp_path):
        write_files(tmp_path / "out", V1)
        assert self.seen(tmp_path / "out", "a.bin")

    @pytest.mark.parametrize("kind", ["link", "directory", "fifo", "linked-directory"])
    def test_what_is_no_file(self, out, kind):
        path = "a.bin"
        (out / "a.bin").unlink()
        if kind == "link":
            (out / "a.bin").symlink_to("empty")
        elif kind == "directory":
            (out / "a.bin").mkdir()
        elif kind == "fifo":
            os.mkfifo(out / "a.bin")
        else:
            path = "d/e/b.txt"
            (out / "d" / "e").rename(out / "elsewhere")
            (out / "d" / "e").symlink_to(out / "elsewhere")
        with pytest.raises(IntegrityError, match="remove it first"):
            self.seen(out, path)


TAMPERED = {
    "empty": b"",
    "text": b"hello",
    "null": b"null",
    "list": b"[]",
    "version-2": b'{"version":2}',
    "no-members": b'{"version":1}',
    "duplicates": b'{"version":1,"version":1}',
    "nested": b"[" * 100_000,
    "not-utf-8": b"\xff",
}
MEMBERS = {
    "files-list": {"files": []},
    "files-up": {"files": {"../../etc/passwd": [1, 2, 3, 4, 5]}},
    "files-absolute": {"files": {"/etc/passwd": [1, 2, 3, 4, 5]}},
    "files-short": {"files": {"a.bin": [1]}},
    "files-number": {"files": {"a.bin": 7}},
    "owned-up": {"owned": ["../victim"]},
    "owned-absolute": {"owned": ["/etc/passwd"]},
    "owned-number": {"owned": [7]},
    "owned-null": {"owned": None},
}


class TestReceipt:
    def tamper(self, out, raw=None, **members):
        path = out / ".modelpack" / "receipt.json"
        if raw is None:
            raw = json.dumps({**json.loads(path.read_text()), **members}).encode()
        path.write_bytes(raw)

    @pytest.mark.parametrize("raw", TAMPERED.values(), ids=TAMPERED)
    def test_what_is_none_is_said_and_not_used(self, out, raw):
        self.tamper(out, raw)
        receipt, said = warnings_of(out)
        assert receipt is None
        assert len(said) == 1
        assert "receipt.json is not usable" in said[0]
        assert read_receipt(out) is None

    @pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS)
    def test_a_forged_member(self, out, members):
        self.tamper(out, **members)
        receipt, said = warnings_of(out)
        assert receipt is None
        assert "not usable" in said[0]

    def test_a_forged_owner_cannot_make_a_pull_remove_what_it_did_not_write(self, out, tmp_path):
        """Removal asks for the file's own identity, or the bytes the last index has for it."""
        write_files(out, {"precious": b"mine", "sub/precious": b"mine"})
        self.tamper(out, owned=[*V1, "precious", "sub/precious", "not-there"])
        assert put(out, {"a.bin": b"one"}) == 2  # empty and d/e/b.txt
        assert set(read_tree(out)) == {"a.bin", "precious", "sub/precious"}

    def test_without_a_receipt_nothing_is_removed_and_strangers_are_respected(self, out):
        (out / ".modelpack" / "receipt.json").unlink()
        with open_destination(out, ignore) as target:
            target.refuse_strangers(["new"])
            with pytest.raises(UsageError, match=r"a\.bin exists, differs, .* --force"):
                target.refuse_strangers(["new", "a.bin"])
        assert put(out, {"a.bin": b"uno"}) == 0
        assert set(read_tree(out)) == set(V1)

    def test_a_damaged_index_is_said(self, out):
        (out / ".modelpack" / "chunks.bin").write_bytes(b"MPKCHNK\x01 and nonsense")
        events = []
        with open_destination(out, events.append) as target:
            assert target.previous is None
            assert target.in_place(index_of(V1).by_path()["a.bin"], index_of(V1), rehash=False)
        assert any("chunks.bin is damaged" in event.message for event in events)

    def test_placing_is_announced_before_it_begins(self, out):
        """After a crash in the middle the next pull knows which files are its own."""
        with open_destination(out, ignore) as target:
            target.begin_placing("oci:x:v2", "sha256:" + "2" * 64, ["new", "a.bin"])
        receipt = read_receipt(out)
        assert not receipt.complete
        assert receipt.owned == {*V1, "new"}
        assert set(receipt.files) == set(V1)
        assert receipt.digest == "sha256:" + "1" * 64  # what is there is still the old version
        write_files(out, {"new": b"half of it came"})
        with open_destination(out, ignore) as target:
            target.refuse_strangers(["new", "a.bin"])

    @given(st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["version", "reference", "digest", "files", "owned", "complete", "a"]),
            inner, max_size=7),
        max_leaves=12,
    ))  # fmt: skip
    @settings(max_examples=200, deadline=None)
    def test_any_json_is_a_receipt_or_our_error(self, value):
        try:
            receipt = Receipt.from_json(value)
        except FormatError:
            return
        assert Receipt.from_json(receipt.to_json()).owned == receipt.owned


class TestFinish:
    def test_the_destination_mirrors_the_artifact(self, out):
        write_files(out, {"mine": b"mine", "d/mine": b"mine"})
        assert put(out, {"a.bin": b"uno", "new/x": b"x"}) == 2
        assert read_tree(out) == {
            "a.bin": (0o644, b"uno"),
            "new/x": (0o644, b"x"),
            "mine": (0o644, b"mine"),
            "d/mine": (0o644, b"mine"),
        }
        assert not (out / "d" / "e").exists()  # empty without its file
        assert read_receipt(out).owned == {"a.bin", "new/x"}

    def test_what_the_user_changed_is_left_with_a_word(self, out):
        (out / "empty").write_bytes(b"not any more")
        events = []
        with open_destination(out, events.append) as target:
            target.begin_placing("r", "d", [])
            removed = target.finish(
                reference="r",
                digest="d",
                manifest=b"{}",
                paths=["a.bin"],
                selected=False,
                metadata_files={},
            )
        assert removed == 1
        assert (out / "empty").read_bytes() == b"not any more"
        assert "was changed since it was pulled" in events[-1].message
        # metadata files that the new version lacks are gone
        assert leftovers(out) == ["lock", "manifest.json", "receipt.json"]

    def test_a_file_that_vanishes_meanwhile(self, out):
        (out / "a.bin").unlink()
        with (
            open_destination(out, ignore) as target,
            pytest.raises(IntegrityError, match="vanished; run pull again"),
        ):
            target.finish(
                reference="r",
                digest="d",
                manifest=b"{}",
                paths=["a.bin"],
                selected=False,
                metadata_files={},
            )

    @pytest.mark.parametrize("way", ["a.bin", "d", "d/e"])
    def test_nothing_is_placed_through_a_link(self, tmp_path, way):
        out, outside = tmp_path / "out", tmp_path / "outside"
        outside.mkdir()
        (out / way).parent.mkdir(parents=True)
        (out / way).symlink_to(outside)
        with pytest.raises(IntegrityError, match="remove it first"):
            put(out, V1)
        assert list(outside.iterdir()) == []

    def test_modes_are_set_right(self, out):
        with open_destination(out, ignore) as target:
            target.set_mode("a.bin", 0o644)
            target.set_mode("empty", 0o755)
        assert read_tree(out)["a.bin"][0] == 0o644
        assert read_tree(out)["empty"][0] == 0o755

    def test_equal_files(self, out, tmp_path):
        for name, data in {"same": b"one", "other": b"two", "longer": b"ones"}.items():
            (tmp_path / name).write_bytes(data)
        with open_destination(out, ignore) as target:
            assert target.equals("a.bin", tmp_path / "same")
            assert not target.equals("a.bin", tmp_path / "other")
            assert not target.equals("a.bin", tmp_path / "longer")
            assert not target.equals("none", tmp_path / "same")


class TestOpening:
    def test_a_file_is_no_destination(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        with (
            pytest.raises(UsageError, match="exists and is not a directory"),
            open_destination(tmp_path / "file", ignore),
        ):
            pytest.fail("opened")

    @pytest.mark.parametrize("kind", ["link", "file"])
    def test_its_own_directory_must_be_one(self, tmp_path, kind):
        (tmp_path / "out").mkdir()
        (tmp_path / "elsewhere").mkdir()
        if kind == "link":
            (tmp_path / "out" / ".modelpack").symlink_to(tmp_path / "elsewhere")
        else:
            (tmp_path / "out" / ".modelpack").write_bytes(b"")
        with pytest.raises(IntegrityError), open_destination(tmp_path / "out", ignore):
            pytest.fail("opened")
        assert list((tmp_path / "elsewhere").iterdir()) == []

    @pytest.mark.parametrize("name", ["staging", "staging/" + (b"k" * 32).hex()[:32], "lock"])
    def test_links_in_it_are_not_followed(self, out, tmp_path, name):
        (tmp_path / "elsewhere").mkdir()
        victim = write_files(tmp_path / "elsewhere", {"victim": b"here"})
        link = out / ".modelpack" / name
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(victim)
        with pytest.raises((IntegrityError, OSError, FormatError, Exception)) as caught:
            put(out, V1)
        assert type(caught.value).__module__ == "modelpack.errors"
        assert read_tree(victim) == {"victim": (0o644, b"here")}

    def test_the_staging_of_another_artifact_goes(self, out):
        with open_destination(out, ignore) as target:
            old = target.staging_path(b"o" * 32)
            write_files(old, {"journal": b"", "0": b"partial"})
            mine = target.staging_path(b"m" * 32)
            assert not old.exists()
            assert mine.name == (b"m" * 32).hex()[:32]

    def test_a_second_pull_waits_and_says_so(self, out):
        events, order = [], []
        entered = threading.Event()

        def second():
            with open_destination(out, events.append):
                order.append("second")

        with open_destination(out, ignore):
            thread = threading.Thread(target=second)
            thread.start()
            deadline = time.monotonic() + 10
            while not events and time.monotonic() < deadline:
                entered.wait(0.01)
            order.append("first")
        thread.join(10)
        assert order == ["first", "second"]
        assert "another pull" in events[0].message

    def test_the_lock_dies_with_its_process(self, out):
        code = (
            "import os, sys; from pathlib import Path\n"
            "from modelpack.events import ignore\n"
            "from modelpack.stores.destination import open_destination\n"
            f"with open_destination(Path({str(out)!r}), ignore):\n"
            "    os.kill(os.getpid(), 9)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], check=False)
        assert done.returncode == -9
        receipt, said = warnings_of(out)
        assert receipt is not None
        assert said == []
