"""Imports into containerd that are killed, stopped or cut off: the next run finishes them.

Afterwards there is no lease, no snapshot but the image's, and no staging file.
"""

import os
import random
import signal
import subprocess
import threading
import time
from datetime import timedelta

import pytest

import modelpack
from modelpack.connect import open_repository
from modelpack.errors import NetworkError
from modelpack.events import Finished, Moved
from modelpack.runtime.client import Containerd
from modelpack.runtime.containerd import import_model
from modelpack.runtime.grpcapi import MissingError
from modelpack.runtime.records import chain_ids
from tests.support.extents import written_bytes
from tests.support.importing import (
    MIB,
    assert_mounts,
    blob_bytes_sent,
    build_shards,
    into,
    options,
)
from tests.support.nodestate import (
    assert_nothing_unfinished,
    collect_garbage,
    lease_ids,
    snapshot_directories,
    snapshot_keys,
)
from tests.support.samplemodel import digests_of
from tests.support.servers import wait_until

GROUP = "interrupted"
KILLS = 20
# Per kill: one chunk in progress on each connection, and what the sockets still held.
LOST_PER_KILL = 4 * (4 * MIB + 3 * MIB)


pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
]


def test_killed_twenty_times(node, docker_registry, reference, command, tmp_path):
    model = build_shards(tmp_path / "model")
    pushed = modelpack.push(model, reference)
    chance = random.Random(int(os.environ.get("MODELPACK_TEST_SEED", "3")))
    kills = 0
    for attempt in range(KILLS):
        # Slow at first, so that some are killed while they fetch, then as they place and commit.
        slow = ("--limit-rate", "20M") if attempt % 2 else ()
        process = command.start("pull", reference, *into(node), *slow, "--quiet")
        try:
            process.wait(chance.uniform(0.2, 1.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        errors = process.communicate()[1]
        assert "Traceback" not in errors
        if process.returncode == 0:  # start over, so that every moment gets its share
            assert_nothing_unfinished(node)
            assert_mounts(node, reference, model)
            node.remove_image(reference)
        elif (status := node.image_status(reference)) is not None:
            assert status.id  # what is visible is whole
            assert_mounts(node, reference, model)
    assert kills >= KILLS / 3
    done = command.json("pull", reference, *into(node), "--verify", "full")
    assert done["bytes"] == pushed.bytes
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


def staged_bytes(node) -> int:
    """Return how much has been written to staging directories by now."""
    return sum(written_bytes(path.glob("staging/*")) for path in snapshot_directories(node))


def test_what_was_verified_is_not_fetched_again(
    node, docker_registry, reference, command, tmp_path
):
    model = build_shards(tmp_path / "model", shards=4)
    pushed = modelpack.push(model, reference)
    slow = ("--limit-rate", "15M", "--max-connections", "4")
    for kill in range(1, 4):
        process = command.start("pull", reference, *into(node), *slow, "--quiet")
        wait_until(lambda kill=kill: staged_bytes(node) > kill * 8 * MIB, seconds=30)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert lease_ids(node) != set()
    done = command.json("pull", reference, *into(node))
    assert done["imported_bytes"] == pushed.bytes
    assert done["fetched_bytes"] < pushed.bytes - 10 * MIB
    assert blob_bytes_sent(docker_registry, reference) < pushed.bytes + 3 * LOST_PER_KILL
    assert_mounts(node, reference, model)


class StopHereError(Exception):
    pass


@pytest.mark.parametrize(
    "when",
    [
        pytest.param(lambda event: isinstance(event, Moved), id="fetching"),
        pytest.param(lambda event: isinstance(event, Finished), id="committing"),
    ],
)
def test_an_observer_may_stop_it(when, node, reference, tmp_path):
    model = build_shards(tmp_path / "model")
    modelpack.push(model, reference)
    seen = []

    def observe(event):
        if when(event):
            seen.append(event)
            if len(seen) == 2:
                raise StopHereError

    with pytest.raises(StopHereError):
        import_model(reference, options(node), observer=observe)
    assert node.image_status(reference) is None
    again = import_model(reference, options(node))
    assert again.pull.reused_bytes > 0
    assert_mounts(node, reference, model)


def test_stopped_between_the_last_step_and_tidying_up(node, reference, tmp_path, monkeypatch):
    model = build_shards(tmp_path / "model")
    modelpack.push(model, reference)

    def stop(_):
        raise StopHereError

    with monkeypatch.context() as patched:
        patched.setattr("modelpack.runtime.workplace.Workplace._clear", stop)
        with pytest.raises(StopHereError):
            import_model(reference, options(node))
    assert_mounts(node, reference, model)
    assert lease_ids(node) != set()
    import_model(reference, options(node))
    assert_nothing_unfinished(node)


def test_an_abandoned_import_is_collected_when_its_lease_ends(
    node, reference, tmp_path, monkeypatch
):
    modelpack.push(build_shards(tmp_path / "model"), reference)
    lifetime = timedelta(seconds=2) - timedelta(seconds=31 * MIB // 1_000_000)
    monkeypatch.setattr("modelpack.runtime.workplace._LEASE_TIME", lifetime)
    finished = []

    def observe(event):
        finished.extend([event] if isinstance(event, Finished) else [])
        if len(finished) == 2:
            raise StopHereError

    with pytest.raises(StopHereError):
        import_model(reference, options(node), observer=observe)
    assert staged_bytes(node) > 8 * MIB
    keys = len(snapshot_keys(node))
    time.sleep(2)
    collect_garbage(node)
    assert lease_ids(node) == set()
    assert staged_bytes(node) == 0
    assert len(snapshot_keys(node)) <= keys - 3  # staging, and two layers


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
@pytest.mark.parametrize("when", ["fetching", "committing"])
def test_containerd_restarts_meanwhile(how, when, start_node, reference, tmp_path):
    node = start_node()
    model = build_shards(tmp_path / "model")
    modelpack.push(model, reference)
    restarts = []
    kind = Moved if when == "fetching" else Finished

    def observe(event):
        if isinstance(event, kind) and not restarts:
            restarts.append(threading.Thread(target=node.restart, args=(how,)))
            restarts[0].start()

    done = import_model(reference, options(node), observer=observe)
    restarts[0].join()
    assert done.imported_bytes == done.pull.bytes
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


def test_a_directory_that_a_killed_containerd_left_in_the_way(node, reference, tmp_path):
    """It makes a snapshot's directory, is killed, and gives the number away once more."""
    model = build_shards(tmp_path / "model")
    modelpack.push(model, reference)
    left = []

    def observe(event):
        if isinstance(event, Finished) and len(left) < 2:
            parent = snapshot_directories(node)[0].parents[1]
            following = max(int(path.name) for path in parent.iterdir()) + 1
            (parent / str(following) / "fs").mkdir(parents=True)
            left.append(following)

    import_model(reference, options(node), observer=observe)
    assert len(left) == 2
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


@pytest.mark.parametrize("layer", [0, -1], ids=["data", "metadata"])
@pytest.mark.parametrize("killed_too", [False, True], ids=["alone", "and-the-import"])
def test_a_commit_that_containerd_knows_half_of(
    layer, killed_too, node, reference, tmp_path, monkeypatch
):
    """Killed between its two databases, it has the snapshot under no name."""
    model = build_shards(tmp_path / "model")
    modelpack.push(model, reference)
    with open_repository(reference) as repository:
        chain = chain_ids(item.digest for item in repository.fetch_manifest("v1").layers)
    commit, mounts = Containerd.commit, Containerd.mounts
    lost = []

    def lose(self, key, name, labels):
        if name != chain[layer] or lost:
            return commit(self, key, name, labels)
        lost.append(key)
        if killed_too:
            raise StopHereError
        raise MissingError(key)

    def without(self, key):
        """Answer as containerd does for a record whose snapshot is gone."""
        if killed_too and lost == [key]:
            lost.append("found out")
            raise MissingError(key)
        return mounts(self, key)

    with monkeypatch.context() as patched:
        patched.setattr(Containerd, "commit", lose)
        if killed_too:
            with pytest.raises(StopHereError):
                import_model(reference, options(node))
            patched.setattr(Containerd, "mounts", without)
            patched.setattr("modelpack.runtime.workplace.Workplace.unfinished", lambda _: [])
        import_model(reference, options(node))
    assert lost
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


def test_containerd_that_stays_away(start_node, reference, tmp_path, monkeypatch):
    node = start_node()
    model = build_shards(tmp_path / "model")
    modelpack.push(model, reference)
    monkeypatch.setattr(
        "modelpack.runtime.grpcapi.Connection.__init__.__kwdefaults__", {"patience": 1.0}
    )
    stopped = []

    def observe(event):
        if isinstance(event, Finished) and not stopped:
            stopped.append(node._end_containerd(signal.SIGKILL))

    with pytest.raises(NetworkError, match=r"does not answer.*run again to continue"):
        import_model(reference, options(node), observer=observe)
    node.start()
    again = import_model(reference, options(node))
    assert again.pull.fetched_bytes < 100_000
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


def test_a_registry_that_containerd_cannot_ask(node, start_registry, tmp_path):
    registry = start_registry()
    reference = f"{registry.host}/{GROUP}/model:v1"
    model = build_shards(tmp_path / "model")
    modelpack.push(model, reference)
    finished = []

    def observe(event):
        finished.extend([event] if isinstance(event, Finished) else [])
        if len(finished) == len(digests_of(model)) and registry.alive:
            registry.stop()

    with pytest.raises(NetworkError, match="containerd itself must reach the registry"):
        import_model(reference, options(node), observer=observe)
    registry.start()
    again = import_model(reference, options(node))
    assert (again.imported_bytes, again.pull.fetched_bytes < 100_000) == (0, True)
    assert_mounts(node, reference, model)
