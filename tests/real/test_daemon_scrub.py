"""What goes bad on a node's disk: found, taken out of use and repaired."""

import os

import pytest

import modelpack
from modelpack.descriptor import OUR_PREFIX
from modelpack.digest import Digest
from modelpack.errors import NotFoundError
from modelpack.prefetch.node import InUseError
from modelpack.ratelimit import RateLimiter
from tests.support.daemonnode import install, place_on, scrub
from tests.support.importing import (
    MIB,
    assert_mounts,
    build_shards,
    options,
)
from tests.support.models import copy_tree, one_shard, write_files
from tests.support.nodestate import (
    assert_nothing_unfinished,
    collect_garbage,
    lease_ids,
    snapshot_directories,
)

GROUP = "daemon-scrub"

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


def mine(place, digest):
    return next((item for item in place.models() if item.digest == digest), None)


class StopHereError(Exception):
    pass


def find_file(node, name):
    return next(path / name for path in snapshot_directories(node) if (path / name).exists())


def damage(node, how):
    """Damage the model's snapshots in one way; return the path that is wrong then."""
    path = find_file(node, "w1.safetensors")
    status = path.stat()
    if how == "bytes":
        with path.open("r+b") as file:
            file.seek(2 * MIB)
            file.write(b"rotten")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif how == "length":
        os.truncate(path, 100)
    elif how == "missing":
        path.unlink()
    elif how == "link":
        path.unlink()
        path.symlink_to("/etc/shadow")
    elif how == "mode":
        path.chmod(0o777)
    elif how == "stranger":
        (path.parent / "more.txt").write_text("x")
        return "more.txt"
    else:
        find_file(node, ".modelpack/model.json").write_bytes(b"{}")
        return ".modelpack"
    return "w1.safetensors"


@pytest.mark.parametrize(
    ("how", "refetched"),
    [
        ("bytes", 1.2 * MIB),
        ("length", 3.2 * MIB),
        ("missing", 3.2 * MIB),
        ("link", 3.2 * MIB),
        ("mode", 0.1 * MIB),
        ("stranger", 0.1 * MIB),
        ("metadata", 0.1 * MIB),
    ],
)
def test_damage_is_found_and_repaired(how, refetched, node, place, model, reference):
    """Promise 1, later: what went bad on the disk is not served to new containers."""
    install(place, reference, model.digest)
    assert scrub(place, model.digest) == ()
    path = damage(node, how)
    found = scrub(place, model.digest)
    assert [item.path for item in found] == [path]
    assert found[0].digest == model.digest
    place.quarantine(model.digest, found)
    assert mine(place, model.digest) is None
    assert node.image_status(reference) is None
    done = install(place, reference, model.digest)
    assert done.fetched_bytes < refetched
    assert scrub(place, model.digest) == ()
    assert_mounts(node, reference, model.path)
    assert_nothing_unfinished(node)


def test_damage_while_it_is_mounted_waits(node, place, model, reference):
    install(place, reference, model.digest)
    with node.container(image_volumes={"/models": reference}) as container:
        damage(node, "bytes")
        found = scrub(place, model.digest)
        place.quarantine(model.digest, found)
        assert node.image_status(reference) is None
        container.exec(["ls", "/models/w1.safetensors"])
        with pytest.raises(InUseError, match="delete the pods that mount"):
            install(place, reference, model.digest)
        assert mine(place, model.digest) is None
    install(place, reference, model.digest)
    assert scrub(place, model.digest) == ()
    assert_mounts(node, reference, model.path)


def test_all_that_share_a_damaged_snapshot_are_taken_out(node, place, siblings, reference):
    second, ((digest, old), (other, new)) = siblings
    install(place, reference, digest)
    install(place, second, other)
    find_file(node, "w1.safetensors").write_bytes(bytes(10 * MIB))
    place.quarantine(digest, scrub(place, digest))
    assert place.models() == ()
    collect_garbage(node)
    install(place, second, other)
    install(place, reference, digest)
    assert scrub(place, digest) == scrub(place, other) == ()
    assert_mounts(node, reference, old)
    assert_mounts(node, second, new)


def test_a_quarantine_that_was_cut_off(node, place, model, reference, monkeypatch):
    """The marks are made first, and whoever imports next heeds them."""
    install(place, reference, model.digest)
    damage(node, "bytes")
    found = scrub(place, model.digest)

    def stop(*_):
        raise StopHereError

    with monkeypatch.context() as patched:
        patched.setattr("modelpack.runtime.scrubbing.Workplace", stop)
        with pytest.raises(StopHereError):
            place.quarantine(model.digest, found)
    assert mine(place, model.digest) is None
    modelpack.runtime.containerd.import_model(reference, options(node))
    assert scrub(place, model.digest) == ()
    assert_mounts(node, reference, model.path)


def test_a_scrub_says_nothing_of_what_is_removed_meanwhile(node, place, model, reference):
    install(place, reference, model.digest)
    removed = []

    def remove():
        if not removed:
            removed.append(True)
            for lease in lease_ids(node):
                node.ctr("leases", "rm", "--sync", lease)
            place.remove(model.digest)
        return False

    assert place.scrub(model.digest, limiter=RateLimiter(None), stop=remove) == ()
    with pytest.raises(NotFoundError):
        scrub(place, model.digest)


def test_what_a_killed_daemon_held_is_dropped_by_the_next(node, place, model, reference):
    install(place, reference, model.digest)
    node.ctr("leases", "create", "--id", "left", f"{OUR_PREFIX}hold=1")
    place.check()
    assert lease_ids(node) == set()


def test_a_rate_is_kept(place, model, reference):
    waited = []
    limiter = RateLimiter(10 * MIB, sleep=waited.append)
    install(place, reference, model.digest)
    place.scrub(model.digest, limiter=limiter, stop=lambda: False)
    assert waited
