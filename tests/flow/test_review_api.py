"""The library's front door: what it offers, and how it tells of its work."""

import threading
import time

import pytest

import modelpack
from modelpack.connect import names_directory
from modelpack.errors import NotFoundError
from modelpack.events import Moved, Retried
from modelpack.reference import parse_reference
from tests.support.faultregistry import Fault, FaultRegistry
from tests.support.models import write_files

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:store:v1", False),
        ("oci:/abs/store", False),
        ("localhost:5000/a/b:v1", False),
        ("/nowhere", True),
        ("./nowhere", True),
        ("../nowhere", True),
        ("there", True),
        ("x" * 300, False),
        ("a\0b", False),
    ],
)
def test_what_names_a_directory(text, expected, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    assert names_directory(text) is expected


def test_inspect_takes_references_and_directories(published, tmp_path, monkeypatch):
    modelpack.pull(published.reference, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    there = modelpack.inspect(published.reference)
    assert there.digest == str(published.manifest.digest)
    assert modelpack.inspect(parse_reference(published.reference)) == there
    for here in ("out", "./out", tmp_path / "out"):
        assert modelpack.inspect(here).digest == there.digest
    with pytest.raises(NotFoundError):
        modelpack.inspect(tmp_path / "nowhere")


def test_diff_takes_any_two_sides(published, tmp_path):
    modelpack.pull(published.reference, tmp_path / "out")
    other = write_files(tmp_path / "other", {"config.json": b'{"model_type":"qwen"}'})
    same = modelpack.diff(published.reference, tmp_path / "out")
    assert same.identical
    found = modelpack.diff(tmp_path / "out", other)
    assert [(change.kind, change.path) for change in found.files] == [
        ("changed", "config.json"),
        ("removed", "model.safetensors"),
        ("removed", "sub/tokenizer.json"),
    ]


@pytest.fixture
def strict_observer():
    """An observer that fails when two threads tell it something at once."""
    busy = threading.Lock()
    seen = []

    def observer(event):
        assert busy.acquire(blocking=False), "two events at once"
        time.sleep(0.001)
        seen.append(event)
        busy.release()

    observer.seen = seen
    return observer


def test_events_come_one_at_a_time_while_things_go_wrong(published, tmp_path, strict_observer):
    faults = published.registry.faults
    faults.add(
        Fault.truncate(after=MIB, digest=published.weights, times=4),
        Fault.status(503, digest=published.weights, times=4),
    )
    modelpack.pull(published.reference, tmp_path / "out", observer=strict_observer)
    assert any(isinstance(event, Retried) for event in strict_observer.seen)
    faults.clear()
    faults.add(Fault.status(503, kind="upload", times=2))
    modelpack.push(
        published.model,
        f"{published.registry.host}/team/other:v1",
        use_cache=False,
        observer=strict_observer,
    )


def test_a_copy_tells_of_retries_on_both_sides(published, strict_observer):
    with FaultRegistry() as target:
        published.registry.faults.add(Fault.truncate(after=MIB, digest=published.weights, times=1))
        target.faults.add(Fault.status(503, kind="upload", times=1))
        modelpack.copy(
            published.reference, f"{target.host}/team/model:v1", observer=strict_observer
        )
    retried = [event.what for event in strict_observer.seen if isinstance(event, Retried)]
    assert any(published.registry.host in what for what in retried), retried
    assert any(target.host in what for what in retried)
    assert any(isinstance(event, Moved) for event in strict_observer.seen)
