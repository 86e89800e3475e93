"""Imports into a containerd that others use at the same time, and onto a disk that is full."""

import re
import subprocess
import threading

import pytest

import modelpack
from modelpack.errors import SpaceError
from modelpack.events import Moved
from modelpack.runtime.containerd import import_model
from tests.support.command import result
from tests.support.importing import (
    MIB,
    assert_mounts,
    blob_bytes_sent,
    build_shards,
    into,
    options,
)
from tests.support.models import one_shard
from tests.support.nodestate import assert_nothing_unfinished

GROUP = "shared"


pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
]


# --- crowded ----------------------------------------------------------------------------------------


def test_ten_models_at_once(node, docker_registry, command, tmp_path):
    models = {}
    for number in range(10):
        reference = f"{docker_registry.host}/{GROUP}/model-{number}:v1"
        models[reference] = build_shards(
            tmp_path / f"m{number}", seed=number, shards=2, megabytes=5
        )
        modelpack.push(models[reference], reference)
    running = [command.start("pull", reference, *into(node), "--json") for reference in models]
    for process in running:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, output + errors
    for reference, model in models.items():
        assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


def test_one_model_by_three_processes(node, docker_registry, reference, command, tmp_path):
    model = build_shards(tmp_path / "model", shards=4)
    pushed = modelpack.push(model, reference)
    running = [command.start("pull", reference, *into(node), "--json") for _ in range(3)]
    imported = []
    for process in running:
        output, errors = process.communicate(timeout=120)
        done = result(subprocess.CompletedProcess(process.args, process.returncode, output, errors))
        imported.append(done["imported_bytes"])
    assert sorted(imported) == [0, 0, pushed.bytes]
    assert blob_bytes_sent(docker_registry, reference) < pushed.bytes + 3 * 200_000
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


def test_a_stock_pull_of_the_same_image_meanwhile(node, reference, tmp_path):
    model = build_shards(tmp_path / "model")
    modelpack.push(model, reference)
    pulls = []

    def observe(event):
        if isinstance(event, Moved) and not pulls:
            pulls.append(threading.Thread(target=node.pull_image, args=(reference,)))
            pulls[0].start()

    import_model(reference, options(node), observer=observe)
    pulls[0].join()
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


def test_images_removed_meanwhile(node, docker_registry, command, tmp_path):
    """The kubelet collects an older version just while its chunks are being reused."""
    first, second = (f"{docker_registry.host}/{GROUP}/collected:v{n}" for n in (1, 2))
    old = build_shards(tmp_path / "old", shards=4)
    modelpack.push(old, first)
    new = build_shards(tmp_path / "new", shards=4)
    (new / "w0.safetensors").write_bytes(one_shard([99], size=MIB))
    modelpack.push(new, second)
    import_model(first, options(node))
    removed = []

    def observe(event):
        if isinstance(event, Moved) and not removed:
            removed.append(node.remove_image(first))

    done = import_model(second, options(node), observer=observe)
    assert removed
    assert done.pull.fetched_bytes < 5 * MIB
    assert_mounts(node, second, new)
    assert_nothing_unfinished(node)


# --- short of space ---------------------------------------------------------------------------------


def test_a_model_that_does_not_fit(start_node, small_filesystem, reference, command, tmp_path):
    node = start_node(small_filesystem("24m"))
    modelpack.push(build_shards(tmp_path / "model"), reference)
    said = command.fails(8, "pull", reference, *into(node))
    assert re.search(r"needs [0-9.]+ MiB, [0-9.]+ MiB are free; free some space", said)
    assert_nothing_unfinished(node)


def test_a_disk_that_fills_up_meanwhile(start_node, small_filesystem, reference, tmp_path):
    directory = small_filesystem("64m")
    node = start_node(directory)
    model = build_shards(tmp_path / "model")
    modelpack.push(model, reference)
    filler = directory / "filler"

    def observe(event):
        if isinstance(event, Moved) and not filler.exists():
            with filler.open("wb") as file:
                try:
                    while True:
                        file.write(bytes(MIB))
                        file.flush()
                except OSError:
                    return

    with pytest.raises(SpaceError):
        import_model(reference, options(node), observer=observe)
    assert node.image_status(reference) is None
    filler.unlink()
    again = import_model(reference, options(node))
    assert again.pull.reused_bytes > 0
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)
