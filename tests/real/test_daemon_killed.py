"""Promise 2: kill -9 of the daemon at any instant needs no manual step.

MODELPACK_TEST_KILLS=50 makes it the full run; MODELPACK_TEST_SEED another one.
"""

import os
import random
import signal
import time

import pytest

import modelpack
from tests.support.daemonnode import place_on
from tests.support.daemonprocess import DaemonProcess
from tests.support.importing import MIB, assert_mounts, build_shards
from tests.support.models import copy_tree, one_shard, write_files
from tests.support.nodestate import assert_nothing_unfinished

GROUP = "killed"
KILLS = int(os.environ.get("MODELPACK_TEST_KILLS", "10"))
SEED = int(os.environ.get("MODELPACK_TEST_SEED", "7"))

pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
    pytest.mark.timeout(120 + 15 * KILLS),
]


@pytest.fixture
def models(docker_registry, tmp_path):
    """Two models, and a second version of the first; directories by reference."""
    first, second, other = (
        f"{docker_registry.host}/{GROUP}/{name}" for name in ("a:v1", "a:v2", "b:v1")
    )
    old = build_shards(tmp_path / "old")
    new = copy_tree(old, tmp_path / "new")
    write_files(new, {"w0.safetensors": one_shard([*range(9), 99], size=MIB)})
    found = {first: old, second: new, other: build_shards(tmp_path / "b", seed=2)}
    for reference, path in found.items():
        modelpack.push(path, reference)
    return found


def test_promise_2_killed_at_random_moments(node, models, tmp_path):
    chance = random.Random(SEED)
    place = place_on(node)
    references = list(models)
    daemon = DaemonProcess(tmp_path / "daemon", node, models=[], budget="90Mi")
    kills = 0
    ready_before_kill = 0
    for _ in range(KILLS):
        # What is wanted changes, so that evictions and upgrades are interrupted as well.
        wanted = chance.sample(references, chance.choice([1, 2]))
        rate = chance.choice([None, "30M"])
        models_wanted = [{"name": ref.rpartition("/")[2], "ref": ref} for ref in wanted]
        daemon.write(models=models_wanted, limitRate=rate)
        daemon.start()
        time.sleep(chance.uniform(0, 2.5))
        ready_before_kill += sum(
            item["stage"] == "Ready" for item in (daemon.status() or {"models": []})["models"]
        )
        daemon.stop(signal.SIGKILL)
        kills += 1
        assert "Traceback" not in daemon.logs()
        # What is visible is whole, whenever it was killed.
        for item in place.models():
            for name in item.names:
                if name in models:
                    assert_mounts(node, name, models[name])
        # To begin anew now and then, so that every moment gets its share.
        if chance.random() < 0.4:
            for item in place.models():
                place.remove(item.digest)
    assert kills == KILLS
    last = references[1:]
    daemon.write(
        models=[{"name": ref.rpartition("/")[2], "ref": ref} for ref in last], limitRate=None
    )
    daemon.start()
    try:
        daemon.wait_until_idle()
        daemon.wait_until_clean(lambda: place.unfinished_bytes() == 0)
    finally:
        daemon.stop()
    assert "Traceback" not in daemon.logs()
    for reference in last:
        assert_mounts(node, reference, models[reference])
    assert_nothing_unfinished(node)
    print(f"{kills} kills, {ready_before_kill} of the models ready before one")
