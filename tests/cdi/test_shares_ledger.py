"""The ledger's file: its form, its lock, its replacement."""

import json
import multiprocessing
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi.inventory import Vendor
from cdi.shares.ledger import (
    InvalidLedgerError,
    Ledger,
    LedgerError,
    locked,
    read_ledger,
    write_ledger,
)
from cdi.shares.model import SHARE_VENDORS, Part, Share

parts = st.builds(
    Part,
    device=st.sampled_from(["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
    keys=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    memory=st.integers(1, 2**50),
    cores=st.integers(0, 100),
    card_memory=st.integers(0, 2**50),
    uuid=st.sampled_from(["", "GPU-1"]),
    number=st.integers(0, 100),
    units=st.lists(st.integers(0, 300), max_size=3).map(tuple),
)
shares = st.builds(
    Share,
    claim=st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True),
    vendor=st.sampled_from(sorted(SHARE_VENDORS)),
    parts=st.lists(parts, min_size=1, max_size=3).map(tuple),
    path=st.just("/var/run/cdi/x.yaml"),
    hook_path=st.just("/usr/local"),
    oversubscribe=st.booleans(),
    leaving=st.booleans(),
)
ONE = Share(
    claim="a",
    vendor=Vendor.NVIDIA,
    parts=(Part(device="nvidia.com/gpu=0", keys=("k",), memory=1, cores=0, card_memory=2),),
    path="/p",
    hook_path="/h",
)


@settings(max_examples=60)
@given(st.lists(shares, max_size=4))
def test_what_is_written_reads_the_same(found):
    ledger = Ledger(tuple(found))
    assert Ledger.parse(ledger.text(), "x") == ledger


def test_finding_and_replacing():
    ledger = Ledger().with_share(ONE)
    assert ledger.find("a") == ONE
    assert ledger.leaving(ONE).find("a").leaving
    assert len(ledger.leaving(ONE).shares) == 1
    assert ledger.without("a") == Ledger()


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("shares"),
        lambda v: v.update(version=2),
        lambda v: v.update(more=1),
        lambda v: v["shares"][0].update(claim="../../etc/passwd"),
        lambda v: v["shares"][0].update(parts=[]),
        lambda v: v["shares"][0].update(vendor=3),
        lambda v: v["shares"][0].update(vendor="acme"),
        lambda v: v["shares"][0].update(vendor="intel"),
        lambda v: v["shares"][0]["parts"][0].update(memory="8Gi"),
        lambda v: v["shares"][0]["parts"][0].update(memory=0),
        lambda v: v["shares"][0]["parts"][0].update(cores=101),
        lambda v: v["shares"][0]["parts"][0].pop("device"),
    ],
    ids=range(12),
)
def test_what_is_no_ledger(change):
    value = json.loads(Ledger((ONE,)).text())
    change(value)
    with pytest.raises(InvalidLedgerError, match="here is not a ledger"):
        Ledger.parse(json.dumps(value), "here")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"version": 1}'], ids=range(6)
)
def test_what_is_no_json_ledger(text):
    with pytest.raises(InvalidLedgerError):
        Ledger.parse(text, "here")


def test_files(tmp_path):
    file = tmp_path / "shares.json"
    assert read_ledger(file) == Ledger()
    write_ledger(Ledger((ONE,)), file)
    assert read_ledger(file) == Ledger((ONE,))
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["shares.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "shares.json"
    write_ledger(Ledger((ONE,)), file)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerError, match="No space left"):
        write_ledger(Ledger(), file)
    monkeypatch.undo()
    assert read_ledger(file) == Ledger((ONE,))
    assert [path.name for path in tmp_path.iterdir()] == ["shares.json"]


def test_unusable_places(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="not usable"), locked(tmp_path / "file/state"):
        pass
    (tmp_path / "shares.json").mkdir()
    with pytest.raises(LedgerError, match="cannot be read"):
        read_ledger(tmp_path / "shares.json")


def _hold(state, held, done):
    with locked(state):
        held.set()
        done.wait(20)


def test_one_process_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, held, done))
    holder.start()
    try:
        assert held.wait(20)
        with pytest.raises(LedgerError, match="locked"), locked(tmp_path, seconds=0.2):
            pass
        done.set()
        with locked(tmp_path, seconds=20):
            pass
    finally:
        done.set()
        holder.join(20)
