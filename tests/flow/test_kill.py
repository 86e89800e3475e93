"""``kill -9`` at fifty random moments of a pull and of a push, then completion.

The registry runs in this process and counts bytes; the command runs in another and is killed. What
was verified before a kill is not fetched again, but for bytes that were on their way.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import modelpack
from tests.support.faultregistry import Fault, FaultRegistry
from tests.support.models import one_shard, read_tree, write_files

KILLS = 50
MIB = 1024 * 1024
# Per kill: one chunk in progress on each connection, and what the sockets still held.
LOST_PER_KILL = 4 * (4 * MIB + 3 * MIB)

pytestmark = pytest.mark.timeout(280)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from modelpack.cli import main; main()", *arguments]


def kill_at_random(arguments: list[str], seconds: float, chance: random.Random) -> int | None:
    """Run a command and kill it after a random part of ``seconds``; its status if it was faster."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        process.wait(chance.uniform(0.1, seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert "Traceback" not in errors
    return process.returncode if process.returncode != -signal.SIGKILL else None


@pytest.fixture
def model(tmp_path) -> Path:
    return write_files(
        tmp_path / "model",
        {
            "a/model-1.safetensors": one_shard(range(30), size=1_000_000),
            "a/model-2.safetensors": one_shard(range(30, 60), size=1_000_000),
            "config.json": b"{}",
        }
        | {f"small/{number}": b"x" * number for number in range(100)},
    )


def assert_only_verified_files(out: Path, model: Path) -> None:
    """What has its final name is complete; the rest is not there."""
    expected = read_tree(model)
    for path, (_, data) in read_tree(out).items() if out.exists() else ():
        assert data == expected[path][1], path


@pytest.mark.parametrize(
    ("options", "times"), [((), KILLS), (("--no-page-cache",), KILLS // 2)], ids=["", "uncached"]
)
def test_pull_killed_fifty_times(model, tmp_path, options, times):
    chance = random.Random(int(os.environ.get("MODELPACK_TEST_SEED", "7")))
    with FaultRegistry() as registry:
        reference = f"{registry.host}/team/model:v1"
        modelpack.push(model, reference)
        weights = sum(path.stat().st_size for path in model.rglob("*.safetensors"))
        registry.clear_records()
        registry.faults.add(Fault.slow(6 * MIB, kind="blob"))
        out = tmp_path / "out"
        kills = 0
        for _ in range(times):
            status = kill_at_random(["pull", reference, str(out), "-q", *options], 1.6, chance)
            kills += status is None
            assert_only_verified_files(out, model)
            if status == 0:
                # finished early: start over, so that every moment of a pull gets its share
                subprocess.run(["rm", "-rf", out], check=True)
                registry.clear_records()
                kills = 0
        registry.faults.clear()
        done = subprocess.run(
            command("pull", reference, str(out), "--json"),
            capture_output=True,
            text=True,
            check=True,
        )
        assert read_tree(out) == read_tree(model)
        assert modelpack.verify(out).ok
        assert json.loads(done.stdout)["verified"] == "chunks"
        sent = sum(
            registry.bytes_sent(digest)
            for digest in {record.digest for record in registry.select(kind="blob")}
            if digest
        )
        assert sent < weights + kills * LOST_PER_KILL
        state = sorted(path.name for path in (out / ".modelpack").iterdir())
        assert state == [
            "chunks.bin",
            "lock",
            "manifest.json",
            "model.json",
            "receipt.json",
            "sbom.cdx.json",
        ]


def test_upgrade_killed_while_files_get_their_names(model, tmp_path):
    """The moments between the first rename and the receipt are short: aim at them."""
    chance = random.Random(11)
    store = f"oci:{tmp_path / 'store'}"
    modelpack.push(model, f"{store}:v1")
    newer = write_files(
        tmp_path / "newer", {path: data for path, (_, data) in read_tree(model).items()}
    )
    for number in range(100):
        (newer / f"small/{number}").write_bytes(b"y" * (number + 1))
    (newer / "config.json").unlink()
    modelpack.push(newer, f"{store}:v2")
    out = tmp_path / "out"
    versions = [read_tree(model), read_tree(newer)]
    for turn in range(12):
        wanted = turn % 2
        arguments = ["pull", f"{store}:v{wanted + 1}", str(out), "-q"]
        for _ in range(2):
            kill_at_random(arguments, 0.9, chance)
            for path, entry in read_tree(out).items() if out.exists() else ():
                assert entry[1] in {version[path][1] for version in versions if path in version}
        subprocess.run(command(*arguments), check=True, capture_output=True)
        found = {path: data for path, (_, data) in read_tree(out).items()}
        missing = {path: data for path, (_, data) in versions[wanted].items()}
        assert {path: found.get(path) for path in missing} == missing
        assert modelpack.verify(out).changed == ()


def test_push_killed_again_and_again(model, tmp_path):
    chance = random.Random(13)
    with FaultRegistry() as registry:
        reference = f"{registry.host}/team/model:v1"
        slow = Fault.slow_upload(20 * MIB)
        registry.faults.add(slow)
        finished = None
        for _ in range(KILLS):
            finished = kill_at_random(["push", str(model), reference, "-q"], 1.5, chance)
            assert finished in {None, 0}
            # a tag never points at something that is not there
            tag = registry.manifest("team/model", "v1")
            if tag is not None:
                break
        registry.faults.clear()
        pushed = modelpack.push(model, reference)
        modelpack.pull(reference, tmp_path / "out")
        assert read_tree(tmp_path / "out") == read_tree(model)
        assert modelpack.push(model, reference).uploaded_bytes == 0
        assert pushed.digest == modelpack.verify(tmp_path / "out").digest


def test_two_pulls_into_one_destination_wait_for_each_other(model, tmp_path):
    with FaultRegistry() as registry:
        reference = f"{registry.host}/team/model:v1"
        modelpack.push(model, reference)
        registry.faults.add(Fault.slow(30 * MIB, kind="blob"))
        out = tmp_path / "out"
        both = [
            subprocess.Popen(
                command("pull", reference, str(out), "--json"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        results = [process.communicate(timeout=120) for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert read_tree(out) == read_tree(model)
        fetched = sorted(json.loads(text)["fetched_bytes"] for text, _ in results)
        assert fetched[0] < MIB < fetched[1]


def test_interrupt_says_so_and_exits_130(model, tmp_path):
    with FaultRegistry() as registry:
        reference = f"{registry.host}/team/model:v1"
        modelpack.push(model, reference)
        registry.faults.add(Fault.slow(2 * MIB, kind="blob"))
        process = subprocess.Popen(
            command("pull", reference, str(tmp_path / "out")), stderr=subprocess.PIPE, text=True
        )
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
        assert errors.splitlines()[-1].startswith("modelpack: interrupted")
        assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("how", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_stopped_push_leaves_no_litter_in_a_layout(how, status, model, tmp_path):
    store = tmp_path / "store"
    arguments = ["push", str(model), f"oci:{store}:v1", "-q", "--limit-rate", "15M"]
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not list(store.glob("blobs/sha256/.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    if how is not signal.SIGKILL:
        assert errors.splitlines()[-1].startswith("modelpack: ")
        assert not list(store.glob("blobs/sha256/.*"))
    modelpack.push(model, f"oci:{store}:v1")
    assert not list(store.glob("blobs/sha256/.*"))
    modelpack.pull(f"oci:{store}:v1", tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(model)
