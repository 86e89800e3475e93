"""What the daemon does with a node's containerd: see, install, pin and remove models."""

import os
import threading

import pytest

import modelpack
from modelpack.digest import Digest
from modelpack.errors import NetworkError, PolicyError, UsageError
from modelpack.events import Finished, Moved
from modelpack.prefetch.config import Network, RuntimeOptions
from modelpack.prefetch.node import GoneError, InUseError, used_bytes
from modelpack.prefetch.nodes import open_node
from modelpack.runtime.client import Containerd
from modelpack.runtime.workplace import Workplace
from tests.support.daemonnode import install, place_on
from tests.support.importing import (
    MIB,
    assert_mounts,
    build_shards,
)
from tests.support.models import copy_tree, one_shard, write_files
from tests.support.nodestate import (
    assert_nothing_unfinished,
    disk_use,
    lease_ids,
    snapshot_directories,
)

GROUP = "daemon-node"

pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
]


@pytest.fixture
def place(node):
    return place_on(node)


@pytest.fixture
def model(tmp_path, reference):
    """A model of three shards of 3 MiB, pushed; ``model.digest`` is its manifest's."""

    class Pushed:
        path = build_shards(tmp_path / "model", megabytes=3)
        digest = Digest.parse(modelpack.push(path, reference).digest)

    return Pushed


@pytest.fixture
def siblings(tmp_path, reference):
    """Two versions, digest and directory each, that differ in the last of three large layers."""
    old = build_shards(tmp_path / "one")
    new = copy_tree(old, tmp_path / "two")
    write_files(new, {"w2.safetensors": one_shard([*range(20, 29), 99], size=MIB)})
    second = reference.replace(":v1", ":v2")
    return second, [
        (Digest.parse(modelpack.push(path, name).digest), path)
        for name, path in [(reference, old), (second, new)]
    ]


@pytest.fixture
def upgrade(tmp_path, model, reference):
    """A second version, in which the first shard has another tensor; its tag and digest."""
    path = copy_tree(model.path, tmp_path / "new")
    write_files(path, {"w0.safetensors": one_shard([0, 1, 99], size=MIB)})
    second = reference.replace(":v1", ":v2")
    return second, Digest.parse(modelpack.push(path, second).digest), path


def mine(place, digest):
    return next((item for item in place.models() if item.digest == digest), None)


# --- seeing -----------------------------------------------------------------------------------------


def test_it_is_there_once_it_is_installed(node, place, model, reference):
    place.check()
    assert mine(place, model.digest) is None
    found = place.resolve(reference, gate=None)
    assert found.manifest.digest == model.digest
    before = disk_use(*snapshot_directories(node))
    result = install(place, reference, model.digest)
    assert result.fetched_bytes >= result.bytes > 9 * MIB
    assert result.digest == model.digest
    item = mine(place, model.digest)
    repository = reference.rpartition(":")[0]
    assert set(item.names) == {reference, f"{repository}@{model.digest}"}
    assert item.pinned
    taken = disk_use(*snapshot_directories(node)) - before
    assert taken <= used_bytes([item]) <= taken + 100_000
    assert used_bytes([item]) <= found.total_bytes + 20_000
    assert place.unfinished_bytes() == 0
    assert_mounts(node, reference, model.path)


def test_a_stock_pull_takes_twice_the_disk(node, place, model, reference):
    node.pull_image(reference)
    item = mine(place, model.digest)
    assert not item.pinned
    assert used_bytes([item]) > 18 * MIB
    place.remove(model.digest)
    assert mine(place, model.digest) is None


def test_versions_share_what_is_the_same(node, place, siblings, reference):
    """The layers below the first that differs are the same snapshots."""
    second, ((digest, _), (other, path)) = siblings
    install(place, reference, digest)
    install(place, second, other)
    both = [mine(place, digest), mine(place, other)]
    keys = [{part.key for part in item.parts} for item in both]
    assert len(keys[0] & keys[1]) == 2
    assert used_bytes(both) + 20 * MIB < used_bytes(both[:1]) + used_bytes(both[1:])
    place.remove(digest)
    assert_mounts(node, second, path)
    assert used_bytes([mine(place, other)]) == used_bytes(both[1:])


def test_the_disk_that_is_free(node, place):
    status = os.statvfs(node.root)
    assert abs(place.free_bytes() - status.f_bavail * status.f_frsize) < 500 * MIB


def test_the_gate_is_asked_for_the_configured_reference(place, model, reference):
    asked = []

    def gate(name, manifest):
        asked.append((str(name), manifest.digest))
        if len(asked) == 3:
            raise PolicyError("unsigned")

    place.resolve(reference, gate=gate)
    install(place, reference, model.digest, gate=gate)
    assert asked == [(reference, model.digest)] * 2
    with pytest.raises(PolicyError, match="unsigned"):
        place.resolve(reference, gate=gate)


def test_a_reference_that_means_another_version(place, model, reference):
    other = Digest.of(b"other")
    with pytest.raises(UsageError, match="cannot be installed as"):
        install(place, f"{reference}@{other}", model.digest)


def test_a_socket_where_nobody_listens(tmp_path):
    runtime = RuntimeOptions(kind="containerd", address=tmp_path / "socket")
    with pytest.raises(NetworkError, match="there is no such socket"):
        open_node(runtime, Network()).check()


# --- in use -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["tag", "id"])
def test_what_is_mounted_is_not_removed(by, node, place, model, reference):
    """Promise 3: nothing mounted is ever evicted."""
    install(place, reference, model.digest)
    assert place.mounted() == frozenset()
    name = reference if by == "tag" else node.image_status(reference).id
    with node.container(image_volumes={"/models": name}) as container:
        assert place.mounted() == {model.digest}
        with pytest.raises(InUseError, match="is mounted by a container"):
            place.remove(model.digest)
        assert node.image_status(reference).pinned
        container.exec(["sha256sum", "/models/w0.safetensors"])
        assert place.mounted() == {model.digest}
    assert place.mounted() == frozenset()
    place.remove(model.digest)
    place.remove(model.digest)
    assert node.image_status(reference) is None
    assert_nothing_unfinished(node)


def test_a_mount_between_the_question_and_the_removal(node, place, model, reference, monkeypatch):
    """Promise 3, in the worst moment: it gets its names back."""
    install(place, reference, model.digest)
    status = node.image_status(reference)
    delete = Containerd.delete_image
    containers = []

    def mount_first(self, name):
        if not containers:
            lent = node.container(image_volumes={"/models": reference})
            containers.append((lent, lent.__enter__()))
        delete(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(Containerd, "delete_image", mount_first)
        with pytest.raises(InUseError):
            place.remove(model.digest)
    lent, container = containers[0]
    try:
        container.exec(["sha256sum", "/models/w0.safetensors"])
        assert mine(place, model.digest) is not None
    finally:
        lent.__exit__(None, None, None)
    assert sorted(node.image_status(reference).repo_digests) == sorted(status.repo_digests)
    assert_mounts(node, reference, model.path)


def test_two_manifests_of_one_config(node, place, model, reference):
    """Their images have one id, and removing one leaves the other."""
    second = reference.replace(":v1", ":v2")
    digest = Digest.parse(
        modelpack.push(model.path, second, annotations={"com.example.build": "2"}).digest
    )
    assert digest != model.digest
    install(place, reference, model.digest)
    install(place, second, digest)
    image = node.image_status(second).id
    assert node.image_status(reference).id == image
    place.remove(digest)
    assert mine(place, digest) is None
    assert_mounts(node, reference, model.path)
    assert_mounts(node, image, model.path)


def test_pinning(node, place, model, reference):
    install(place, reference, model.digest)
    place.pin(model.digest, pinned=False)
    assert not mine(place, model.digest).pinned
    place.pin(model.digest, pinned=True)
    assert mine(place, model.digest).pinned


def test_a_tag_that_goes_on_and_back(node, place, model, upgrade, reference):
    """The version before keeps its pin and its name by digest; a rollback moves the tag."""
    _, digest, new = upgrade
    install(place, reference, model.digest)
    modelpack.copy(f"{reference.rpartition(':')[0]}@{digest}", reference)
    install(place, reference, digest)
    assert mine(place, model.digest).pinned
    assert mine(place, model.digest).names == (f"{reference.rpartition(':')[0]}@{model.digest}",)
    assert_mounts(node, reference, new)
    back = install(place, reference, model.digest)
    assert back.fetched_bytes < 100_000
    assert_mounts(node, reference, model.path)


# --- interrupted ------------------------------------------------------------------------------------


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("when", [Moved, Finished], ids=["fetching", "committing"])
def test_what_is_unfinished_counts_and_can_be_dropped(when, node, place, model, reference):
    seen = []

    def observe(event):
        if isinstance(event, when):
            seen.append(event)
            if len(seen) == 3:
                raise StopHereError

    with pytest.raises(StopHereError):
        install(place, reference, model.digest, observer=observe)
    assert mine(place, model.digest) is None
    least = 0 if when is Moved else 9 * MIB
    assert least < place.unfinished_bytes() < 10 * MIB
    place.abandon(model.digest)
    assert place.unfinished_bytes() == 0
    place.abandon(model.digest)
    assert_nothing_unfinished(node)


def test_an_import_that_runs_is_not_abandoned(node, place, model, reference):
    tried = []

    def observe(event):
        if isinstance(event, Moved) and not tried:
            tried.append(place.abandon(model.digest))

    install(place, reference, model.digest, observer=observe)
    assert tried
    assert_mounts(node, reference, model.path)


@pytest.fixture
def killed_at_the_end(place, model, reference, monkeypatch):
    """The model is complete and has its names; its import was killed before it let go of it."""
    with monkeypatch.context() as patch:
        patch.setattr(Workplace, "_clear", lambda _: (_ for _ in ()).throw(StopHereError))
        with pytest.raises(StopHereError):
            install(place, reference, model.digest)


def test_what_a_kill_after_the_last_step_left_goes_with_the_model(
    killed_at_the_end, node, place, model
):
    assert lease_ids(node)
    place.remove(model.digest)
    assert place.unfinished_bytes() == 0
    assert_nothing_unfinished(node)


def test_the_next_daemon_drops_what_a_kill_after_the_last_step_left(
    killed_at_the_end, node, place, model, reference
):
    place_on(node).check()
    assert not lease_ids(node)
    assert_mounts(node, reference, model.path)


def test_a_second_name_takes_no_disk_and_leaves_nothing_when_stopped(node, place, model, reference):
    install(place, reference, model.digest)
    second = reference.replace(":v1", ":v2")
    modelpack.copy(reference, second)

    def stop(event):
        raise StopHereError

    with pytest.raises(StopHereError):
        install(place, second, model.digest, fetches=False, observer=stop)
    assert not lease_ids(node)
    done = install(place, second, model.digest, fetches=False)
    assert done.reused_bytes == done.bytes
    assert_mounts(node, second, model.path)


def test_what_is_gone_is_not_fetched_for_a_second_name(node, place, model, reference):
    with pytest.raises(GoneError, match="is not in containerd any more"):
        install(place, reference, model.digest, fetches=False)
    assert place.models() == ()
    assert_nothing_unfinished(node)


def test_several_threads(node, place, model, upgrade, reference):
    second, digest, new = upgrade
    workers = [
        threading.Thread(target=install, args=(place, name, wanted))
        for name, wanted in [(reference, model.digest), (second, digest)]
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        place.models(), place.mounted(), place.unfinished_bytes()
    for worker in workers:
        worker.join()
    assert_mounts(node, reference, model.path)
    assert_mounts(node, second, new)
