"""Uploads that a later run goes on with."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from modelpack.registry.uploadstate import UploadState
from tests.support.faultregistry import Fault
from tests.support.uploads import NAME, PIECE, body_bytes, methods


def interrupted(registry, repository, blob, after):
    """Push until so many bytes have gone, then stop as an interrupt would.

    Returns once the registry has taken what was on its way: until then it may say that it has less.
    """
    seen = 0

    def progress(count):
        nonlocal seen
        seen += count
        if seen >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repository.push_blob(blob.descriptor, blob.content, progress)
    taken = -1
    while taken != (taken := sum(record.body_received for record in registry.requests)):
        time.sleep(0.5)


def test_an_interrupted_push_goes_on(registry, open_repository, push, blob):
    interrupted(registry, open_repository(registry), blob, 3 * PIECE + PIECE // 2)
    registry.clear_records()
    moved = push(registry, blob)
    assert moved[0] >= 3 * PIECE
    assert "POST" not in methods(registry)
    asked = methods(registry).index("GET")
    assert sum(record.body_received for record in registry.requests[asked:]) <= (
        blob.descriptor.size - 3 * PIECE
    )


def test_a_killed_push_goes_on(registry, push, blob, tmp_path):
    script = """
import sys
from pathlib import Path
from modelpack.content import BlobContent, FileRegion
from modelpack.descriptor import Descriptor
from modelpack.reference import parse_reference
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.repository import RegistryRepository
host, name, data, state = sys.argv[1:]
raw = Path(data).read_bytes()
options = ConnectionOptions(state_directory=Path(state), auth_file=Path(state, "none"))
repository = RegistryRepository(parse_reference(f"{host}/{name}:v1"), options)
repository._uploader.piece_bytes = 1024 * 1024
repository.push_blob(
    Descriptor.of(raw, media_type="a/b"), BlobContent((FileRegion(Path(data), len(raw)),))
)
"""
    whole = tmp_path / "whole"
    whole.write_bytes(blob.data)
    registry.faults.add(Fault.stall_upload(1000, seconds=60, method="PATCH", nth=4))
    child = subprocess.Popen(
        [sys.executable, "-c", script, registry.host, NAME, whole, tmp_path / "state"]
    )
    try:
        deadline = time.monotonic() + 30
        while len(registry.select(method="PATCH")) < 4:
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    registry.clear_records()
    registry.faults.clear()
    push(registry, blob)
    assert body_bytes(registry) <= blob.descriptor.size - 3 * PIECE


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\xff{"),
        lambda file: file.write_text("[]"),
        lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), "time": 0})),
        lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), "digest": "x"})),
        lambda file: file.write_text(
            json.dumps({**json.loads(file.read_text()), "location": "file:///etc/passwd"})
        ),
        lambda file: file.write_text(
            json.dumps({**json.loads(file.read_text()), "location": "http://127.0.0.1:1/x"})
        ),
    ],
    ids=["empty", "binary", "list", "old", "other blob", "no URL", "dead"],
)
def test_a_damaged_state_costs_only_time(registry, open_repository, push, blob, tmp_path, damage):
    interrupted(registry, open_repository(registry), blob, 3 * PIECE)
    (file,) = (tmp_path / "state/uploads").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    damage(file)
    registry.clear_records()
    push(registry, blob, patience=0.5)


def test_an_upload_that_the_registry_has_dropped(registry, open_repository, push, blob):
    interrupted(registry, open_repository(registry), blob, 3 * PIECE)
    for upload in registry.store.uploads():
        registry.store.end_upload(upload)
    push(registry, blob)


def test_one_upload_has_one_state(tmp_path, blob):
    digest = blob.descriptor.digest
    with UploadState.claim("r.example", NAME, digest, home=tmp_path) as first:
        first.save("https://r.example/u/1", 5)
        with UploadState.claim("r.example", NAME, digest, home=tmp_path) as second:
            second.save("https://r.example/u/2", 9)
            assert second.load() is None
        assert first.load() == "https://r.example/u/1"
    with UploadState.claim("r.example", NAME, digest, home=tmp_path) as later:
        assert later.load() == "https://r.example/u/1"
        later.forget()
    with UploadState.claim("r.example", "team/other", digest, home=tmp_path) as other:
        assert other.load() is None


def test_state_that_cannot_be_kept_is_done_without(registry, open_repository, blob, tmp_path):
    (tmp_path / "state").write_text("a file where a directory should be")
    open_repository(registry).push_blob(blob.descriptor, blob.content)
    assert registry.blob(blob.descriptor.digest) == blob.data


def test_old_states_are_removed(tmp_path, blob):
    directory = tmp_path / "uploads"
    directory.mkdir()
    old = directory / "old"
    old.write_text("x")
    os.utime(old, (0, 0))
    with UploadState.claim("r.example", NAME, blob.descriptor.digest, home=tmp_path):
        assert not old.exists()
