"""A directory as the place for models: its layout, what uses it, and repair."""

import mmap
import os
import subprocess
import sys

import pytest

import modelpack
from modelpack.digest import Digest
from modelpack.errors import NotFoundError, PolicyError, UsageError
from modelpack.events import Moved
from modelpack.prefetch.config import Network, RuntimeOptions
from modelpack.prefetch.node import InUseError, used_bytes
from modelpack.prefetch.nodes import open_node
from modelpack.prefetch.nodes.directory import DirectoryNode
from modelpack.ratelimit import RateLimiter
from tests.support.faultregistry import FaultRegistry
from tests.support.models import copy_tree, one_shard, write_files
from tests.support.samplemodel import digests_of

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def registry():
    with FaultRegistry() as running:
        yield running


@pytest.fixture
def place(tmp_path):
    node = DirectoryNode(tmp_path / "store", Network())
    node.check()
    return node


@pytest.fixture
def model(registry, tmp_path):
    """A directory, its reference and digest."""
    path = write_files(
        tmp_path / "model",
        {
            "m.safetensors": one_shard(range(4), size=MIB),
            "config.json": b"{}",
            "sub/vocab.txt": b"x",
        },
    )
    reference = f"{registry.host}/team/model:v1"
    return path, reference, Digest.parse(modelpack.push(path, reference).digest)


def install(place, reference, digest, *, gate=None, observer=lambda _: None):
    return place.install(reference, digest, gate=gate, limiter=RateLimiter(None), observer=observer)


def link_of(place, reference):
    host, _, rest = reference.partition("/")
    return place._path / "models" / host.replace(":", "@") / rest.replace(":", "@")


def scrub(place, digest):
    return place.scrub(digest, limiter=RateLimiter(None), stop=lambda: False)


def test_a_version_lies_where_its_reference_leads(place, model):
    path, reference, digest = model
    found = place.resolve(reference, gate=None)
    assert found.manifest.digest == digest
    result = install(place, reference, digest)
    link = link_of(place, reference)
    assert os.readlink(link).endswith(f"versions/sha256-{digest.hex}")
    assert digests_of(link) == digests_of(path)
    (item,) = place.models()
    assert (item.digest, item.names, item.pinned) == (digest, (reference,), True)
    assert result.bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert used_bytes([item]) <= found.total_bytes + 16 * 4096
    assert install(place, reference, digest).fetched_bytes == 0
    assert place.unfinished_bytes() == 0
    assert place.free_bytes() > 0


def test_an_upgrade_switches_the_link_and_fetches_little(place, model, tmp_path):
    path, reference, digest = model
    install(place, reference, digest)
    new = copy_tree(path, tmp_path / "new")
    write_files(new, {"m.safetensors": one_shard([0, 1, 2, 99], size=MIB)})
    second = Digest.parse(modelpack.push(new, reference).digest)
    with (link_of(place, reference) / "m.safetensors").open("rb") as held:
        before = held.read(1000)
        result = install(place, reference, second)
        held.seek(0)
        assert held.read(1000) == before
    assert result.reused_bytes >= 3 * MIB
    assert digests_of(link_of(place, reference)) == digests_of(new)
    assert {item.digest: item.names for item in place.models()} == {
        digest: (), second: (reference,)
    }  # fmt: skip
    back = install(place, reference, digest)
    assert back.fetched_bytes == 0
    assert digests_of(link_of(place, reference)) == digests_of(path)


def test_references_by_digest_and_deep_names(place, registry, model):
    path, _, digest = model
    deep = f"{registry.host}/team/model/v1:latest"
    modelpack.push(path, deep)
    pinned = f"{registry.host}/team/model@{digest}"
    install(place, pinned, digest)
    install(place, deep, digest)
    assert place.models()[0].names == tuple(sorted([pinned, deep]))


READER = """
import mmap, os, sys
file = open(sys.argv[1], "rb")
if sys.argv[2] == "mapped":
    held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    file.close()
elif sys.argv[2] == "inside":
    os.chdir(os.path.dirname(sys.argv[1]))
    file.close()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["open", "mapped", "inside"])
def test_what_a_process_uses_is_not_removed(how, place, model):
    _, reference, digest = model
    install(place, reference, digest)
    file = link_of(place, reference) / "m.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", READER, str(file), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "ready\n"
        assert place.mounted() == {digest}
        with pytest.raises(InUseError, match="is in use by a process"):
            place.remove(digest)
        process.stdin.close()
        process.wait(30)
    assert place.mounted() == frozenset()
    place.remove(digest)
    place.remove(digest)
    assert place.models() == ()
    assert not os.path.lexists(link_of(place, reference))


def test_a_use_that_begins_while_it_is_removed(place, model, monkeypatch):
    _, reference, digest = model
    install(place, reference, digest)
    looks = []
    refuse = DirectoryNode._refuse_used

    def late(self, wanted, at=None):
        looks.append(at)
        if at is not None:
            raise InUseError("now")
        refuse(self, wanted, at)

    monkeypatch.setattr(DirectoryNode, "_refuse_used", late)
    with pytest.raises(InUseError):
        place.remove(digest)
    assert len(looks) == 2
    assert place.models()[0].names == (reference,)
    assert link_of(place, reference).is_dir()


@pytest.mark.root
def test_a_bind_mount_is_a_mount(place, model, tmp_path):
    _, reference, digest = model
    install(place, reference, digest)
    mount = tmp_path / "mounted"
    mount.mkdir()
    script = f"mount --bind {link_of(place, reference)} {mount} && echo ready && read x"
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "ready\n"
        assert place.mounted() == {digest}
        process.stdin.close()
        process.wait(30)


@pytest.mark.root
def test_a_container_with_all_of_it_uses_any(place, model, tmp_path):
    _, reference, digest = model
    install(place, reference, digest)
    mount = tmp_path / "mounted"
    mount.mkdir()
    script = f"mount --bind {place._path} {mount} && echo ready && read x"
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "ready\n"
        assert place.mounted() == {digest}
        process.stdin.close()
        process.wait(30)
    assert place.mounted() == frozenset()


def test_pinning(place, model):
    _, reference, digest = model
    install(place, reference, digest)
    place.pin(digest, pinned=False)
    assert not place.models()[0].pinned
    place.pin(digest, pinned=False)


class StopHereError(Exception):
    pass


def test_what_is_unfinished_counts_and_can_be_dropped(place, model):
    _, reference, digest = model

    def stop(event):
        if isinstance(event, Moved):
            raise StopHereError

    with pytest.raises(StopHereError):
        install(place, reference, digest, observer=stop)
    assert place.models() == ()
    assert place.unfinished_bytes() > 0
    place.abandon(digest)
    assert place.unfinished_bytes() == 0
    place.abandon(digest)


@pytest.mark.parametrize("how", ["bytes", "length", "missing", "stranger", "link", "index"])
def test_damage_is_found_and_repaired(how, place, model):
    path, reference, digest = model
    install(place, reference, digest)
    assert scrub(place, digest) == ()
    file = link_of(place, reference).resolve() / "m.safetensors"
    wrong = "m.safetensors"
    if how == "bytes":
        status = file.stat()
        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as view:
            view[2 * MIB] ^= 1
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif how == "length":
        os.truncate(file, 10)
    elif how == "missing":
        file.unlink()
    elif how == "stranger":
        wrong = "more.txt"
        (file.parent / wrong).write_text("x")
    elif how == "link":
        file.unlink()
        file.symlink_to("/etc/hostname")
    else:
        wrong = ".modelpack"
        (file.parent / ".modelpack/chunks.bin").write_bytes(b"")
    found = scrub(place, digest)
    assert [item.path for item in found] == [wrong]
    place.quarantine(digest, found)
    assert place.models() == ()
    assert not os.path.lexists(link_of(place, reference))
    install(place, reference, digest)
    assert scrub(place, digest) == ()
    assert digests_of(link_of(place, reference)) == digests_of(path)


def test_a_scrub_that_is_stopped(place, model):
    _, reference, digest = model
    install(place, reference, digest)
    assert place.scrub(digest, limiter=RateLimiter(None), stop=lambda: True) == ()
    with pytest.raises(NotFoundError):
        scrub(place, Digest.of(b"other"))


def test_the_gate_is_asked(place, model):
    _, reference, digest = model
    asked = []

    def gate(name, manifest):
        asked.append((str(name), manifest.digest))
        raise PolicyError("unsigned")

    for call in (
        lambda: place.resolve(reference, gate=gate),
        lambda: install(place, reference, digest, gate=gate),
    ):
        with pytest.raises(PolicyError):
            call()
    assert asked == [(reference, digest)] * 2
    assert place.models() == ()


def test_an_interrupted_removal_is_finished(place, model):
    _, reference, digest = model
    install(place, reference, digest)
    version = place._version(digest)
    os.rename(version, place._path / "trash/left")
    DirectoryNode(place._path, Network()).check()
    assert place.unfinished_bytes() == 0


def test_what_is_no_model(place, registry):
    from tests.support.faultregistry import build_manifest

    layer = registry.add_blob(b"x")
    registry.put_manifest("team/plain", "v1", build_manifest(b"x"))
    assert layer
    with pytest.raises(UsageError, match="is not as modelpack packed it"):
        place.resolve(f"{registry.host}/team/plain:v1", gate=None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (RuntimeOptions(kind="directory"), "needs a path"),
        (RuntimeOptions(kind="docker"), "neither containerd nor directory"),
    ],
    ids=["no-path", "unknown"],
)
def test_a_place_that_is_none(options, said):
    with pytest.raises(UsageError, match=said):
        open_node(options, Network())
