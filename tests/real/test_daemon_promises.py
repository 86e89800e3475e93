"""The daemon as a process on the real containerd: what it promises, a test for each promise."""

import contextlib
import hashlib
import os
import signal
import threading

import pytest

import modelpack
from modelpack.connect import open_repository
from tests.support.command import Command, finish
from tests.support.daemonnode import place_on
from tests.support.daemonprocess import DaemonProcess
from tests.support.faultregistry import BasicAuth, FaultRegistry
from tests.support.importing import (
    MIB,
    assert_mounts,
    build_shards,
    into,
)
from tests.support.models import one_shard, write_files
from tests.support.nodestate import assert_nothing_unfinished, content_digests, snapshot_keys
from tests.support.registries import docker_config
from tests.support.samplemodel import digests_of
from tests.support.servers import wait_until
from tests.support.trust import TrustCommand

GROUP = "daemon"

pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
]


@pytest.fixture
def start(node, tmp_path):
    """A function that starts a daemon with models; it ends with the test."""
    started = []

    def begin(models, **settings):
        daemon = DaemonProcess(tmp_path / f"daemon{len(started)}", node, models=models, **settings)
        started.append(daemon)
        daemon.start()
        return daemon

    yield begin
    for daemon in started:
        daemon.stop()


@pytest.fixture
def model(tmp_path):
    return build_shards(tmp_path / "model", megabytes=3)


def entry(reference, name="m", **others):
    return {"name": name, "ref": reference, **others}


# --- 1. No byte is served or mounted that was not verified --------------------------------------------


def test_promise_1_every_file_is_mounted_as_it_was_pushed(start, node, reference, model):
    pushed = modelpack.push(model, reference)
    daemon = start([entry(reference)])
    status = daemon.wait_for("m", stage="Ready")
    assert status["digest"] == pushed.digest
    assert status["fetched_bytes"] >= status["bytes"] == pushed.bytes
    assert {"Downloading", "Importing"} <= status["timings"].keys()
    assert_mounts(node, reference, model)
    with node.container(image_volumes={"/models": reference}):
        used = daemon.wait_for("m", mounted=True)
        assert used["used_at"] >= used["ready_at"]
    daemon.wait_for("m", mounted=False)


def test_promise_1_wrong_bytes_are_never_visible(start, node, model):
    with FaultRegistry() as registry:
        reference = f"{registry.host}/{GROUP}/model:v1"
        modelpack.push(model, reference)
        with open_repository(reference) as repository:
            layer = str(repository.fetch_manifest("v1").layers[0].digest)
        right = registry.blob(layer)
        wrong = bytearray(right)
        wrong[MIB] ^= 1
        registry.add_blob(bytes(wrong), digest=layer)
        daemon = start([entry(reference)])
        failed = daemon.wait_for("m", stage="Failed")
        assert "arrived with other bytes" in failed["reason"]
        assert node.image_status(reference) is None
        registry.add_blob(right, digest=layer)
        daemon.wait_for("m", stage="Ready")
        assert_mounts(node, reference, model)
        daemon.stop()
        place_on(node).remove(place_on(node).models()[0].digest)


def test_promise_1_a_wrong_signature_is_refused_and_invisible(
    start, node, reference, model, tmp_path, docker_registry
):
    signer = TrustCommand(tmp_path / "signer")
    private, public = signer.key_pair("team")
    other, _ = signer.key_pair("other")
    pushed = signer.json("push", model, reference)
    fine = reference.replace(":v1", "-fine:v1")
    signer.json("push", build_shards(tmp_path / "fine", seed=2, megabytes=1), fine)
    name = f"{reference.rpartition(':')[0]}@{pushed['digest']}"
    signer.json("sign", name, "--key", other)
    policy = signer.policy(
        f"rules:\n"
        f"  - match: {docker_registry.host}/{GROUP}/*-fine\n    unsigned: true\n"
        f"  - match: {docker_registry.host}/{GROUP}/**\n    signers: [{{key: {public}}}]\n"
    )
    daemon = start([entry(reference), entry(fine, "fine")], policy=str(policy))
    refused = daemon.wait_for("m", stage="Refused")
    assert "not by" in refused["reason"]
    daemon.wait_for("fine", stage="Ready")
    assert node.image_status(reference) is None
    assert pushed["digest"] not in content_digests(node)
    signer.json("sign", name, "--key", private)
    daemon.ask("refresh", "m")
    daemon.wait_for("m", stage="Ready")
    assert_mounts(node, reference, model)


def test_promise_1_hostile_artifacts_write_nothing(start, node):
    """Nothing is ever written outside the snapshot that was prepared for it."""
    from tests.real.test_containerd_refusals import everything_below, publish_index_of

    paths = ["../evil", "/tmp/evil-modelpack", "a/../../evil", ".wh.x", ".modelpack/evil", "x/."]
    snapshots = node.root / "io.containerd.snapshotter.v1.overlayfs/snapshots"
    before = everything_below(snapshots)
    with contextlib.ExitStack() as running:
        registries = [running.enter_context(FaultRegistry()) for _ in paths]
        daemon = start(
            [
                entry(publish_index_of(registry, path), f"m{number}")
                for number, (registry, path) in enumerate(zip(registries, paths, strict=True))
            ]
        )
        for number in range(len(paths)):
            assert "path" in daemon.wait_for(f"m{number}", stage="Failed")["reason"]
        daemon.stop()
    assert everything_below(snapshots) == before
    assert not os.path.lexists("/tmp/evil-modelpack")
    assert_nothing_unfinished(node)


# --- 2. No manual step after a crash: test_daemon_kills.py ------------------------------------------
# --- 3. The budget holds, and nothing mounted is evicted --------------------------------------------


def test_promise_3_the_budget_is_never_exceeded(start, node, docker_registry, tmp_path):
    """Three models of 6 MiB in a budget of 16: the third does not fit until one may go."""
    references = []
    for number in range(3):
        reference = f"{docker_registry.host}/{GROUP}/budget-{number}:v1"
        modelpack.push(build_shards(tmp_path / str(number), seed=number, megabytes=2), reference)
        references.append(reference)
    models = [entry(ref, f"m{n}", priority=10 - n) for n, ref in enumerate(references)]
    daemon = start(models, budget="16Mi")
    seen = []
    stop = threading.Event()

    def watch():
        place = place_on(node)
        from modelpack.prefetch.node import used_bytes

        while not stop.wait(0.2):
            seen.append(used_bytes(place.models()) + place.unfinished_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        daemon.wait_for("m0", stage="Ready")
        daemon.wait_for("m1", stage="Ready")
        short = daemon.wait_for("m2", stage="InsufficientSpace")
        assert "budget" in short["reason"]
        with node.container(image_volumes={"/models": references[0]}) as container:
            daemon.wait_for("m0", mounted=True)
            daemon.reload(models=models[1:])
            wait_until(lambda: daemon.status()["configuration"]["generation"] == 2, seconds=30)
            # What is mounted stays, so there is still no room.
            daemon.wait_for("m2", stage="InsufficientSpace")
            container.exec(["sha256sum", "/models/w0.safetensors"])
        daemon.wait_for("m2", stage="Ready")
        assert node.image_status(references[0]) is None
    finally:
        stop.set()
        watcher.join()
    assert max(seen) <= 16 * MIB
    assert max(seen) > 11 * MIB


# --- 4. What goes wrong is reported with a next step, is tried again, and stops nothing else ----------


def test_promise_4_a_registry_that_vanishes(
    start, node, start_registry, reference, model, tmp_path
):
    modelpack.push(model, reference)
    registry = start_registry()
    away = f"{registry.host}/{GROUP}/away:v1"
    other = build_shards(tmp_path / "other", seed=5, megabytes=10)
    modelpack.push(other, away)
    daemon = start([entry(away, "away", priority=5), entry(reference)], limitRate="8M")
    wait_until(lambda: daemon.model("away").get("fetched_bytes", 0) > 2 * MIB, seconds=60)
    registry.stop()
    daemon.wait_for("m", stage="Ready")
    assert daemon.model("away")["stage"] != "Ready"
    registry.start()
    ready = daemon.wait_for("away", stage="Ready", seconds=120)
    assert_mounts(node, away, other)
    assert ready["digest"]


def test_promise_4_a_full_disk(start_node, small_filesystem, docker_registry, tmp_path):
    node = start_node(small_filesystem("48m"))
    large, small = (f"{docker_registry.host}/{GROUP}/disk-{name}:v1" for name in ("large", "small"))
    modelpack.push(build_shards(tmp_path / "large", megabytes=25), large)
    modelpack.push(build_shards(tmp_path / "small", seed=2, megabytes=1), small)
    models = [entry(large, "large", priority=5), entry(small, "small")]
    with DaemonProcess(tmp_path / "daemon", node, models=models) as daemon:
        daemon.wait_for("small", stage="Ready")
        short = daemon.wait_for("large", stage="InsufficientSpace")
        assert short["reason"]
        assert_mounts(node, small, tmp_path / "small")
    assert_nothing_unfinished(node)


def test_promise_4_containerd_restarts_in_between(start_node, reference, tmp_path):
    node = start_node()
    model = build_shards(tmp_path / "model")
    modelpack.push(model, reference)
    with DaemonProcess(
        tmp_path / "daemon", node, models=[entry(reference)], limitRate="20M"
    ) as daemon:
        wait_until(lambda: daemon.model("m").get("fetched_bytes", 0) > 4 * MIB, seconds=60)
        node.restart(signal.SIGKILL)
        daemon.wait_for("m", stage="Ready", seconds=120)
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


# --- 5. Uninstalling restores the host byte for byte -------------------------------------------------


def configuration_of(node) -> dict[str, str]:
    """Return the digests of everything that configures a node."""
    places = [
        node.etc_cdi,
        node.run_cdi,
        node.certs_d,
        node.verifiers,
        node.directory / "config.toml",
    ]
    files = [path for place in places for path in [place, *place.rglob("*")] if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_promise_5_nothing_of_the_host_is_configured(start, node, reference, model, tmp_path):
    before = configuration_of(node), snapshot_keys(node), content_digests(node)
    modelpack.push(model, reference)
    daemon = start([entry(reference)])
    daemon.wait_for("m", stage="Ready")
    assert configuration_of(node) == before[0]
    daemon.reload(models=[], watermarks={"high": "0%", "low": "0%"})
    wait_until(lambda: node.image_status(reference) is None, seconds=60)
    daemon.stop()
    assert (configuration_of(node), snapshot_keys(node), content_digests(node)) == before


# --- 6. Secrets appear nowhere -----------------------------------------------------------------------


def test_promise_6_secrets_appear_nowhere(start, node, model, tmp_path):
    password, proxy_password = "hunter2-registry", "hunter2-proxy"
    with FaultRegistry(auth=BasicAuth({"ada": password})) as registry:
        reference = f"{registry.host}/{GROUP}/model:v1"
        config = docker_config(tmp_path, registry.host, "ada", password)
        command = Command(tmp_path / "home", {"DOCKER_CONFIG": str(config.parent)})
        command.json("push", model, reference)
        wrong = f"127.0.0.1:9/{GROUP}/other:v1"
        daemon = start(
            [entry(reference), entry(wrong, "wrong"), entry("registry.test/team/far:v1", "far")],
            env={
                "DOCKER_CONFIG": str(config.parent),
                "https_proxy": f"http://ada:{proxy_password}@127.0.0.1:9",
            },
        )
        daemon.wait_for("m", stage="Ready")
        # Promise 4 on the way: what failed says why and when it is tried again, and stops nothing.
        failed = daemon.wait_for("wrong", stage="Failed", seconds=90)
        assert "connection refused" in failed["reason"]
        assert failed["next_attempt"] is not None
        daemon.wait_for("far", stage="Failed", seconds=90)
        shown = [daemon.get(path) for path in ("/", "/v1/status", "/metrics", "/readyz", "/healthz")
                 if path != "/readyz"]  # fmt: skip
        node.remove_image(reference)
        daemon.stop()
        shown.append(daemon.logs())
        kept = [
            path.read_text(errors="replace")
            for path in (daemon.directory / "store").rglob("*")
            if path.is_file()
        ]
    for text in [*shown, *kept]:
        assert password not in text
        assert proxy_password not in text


# --- what else it must stand up to -----------------------------------------------------------------


def test_ten_models_at_once(start, node, docker_registry, tmp_path):
    models = {}
    for number in range(10):
        reference = f"{docker_registry.host}/{GROUP}/ten-{number}:v1"
        models[reference] = build_shards(
            tmp_path / f"m{number}", seed=number, shards=2, megabytes=2
        )
        modelpack.push(models[reference], reference)
    daemon = start([entry(ref, ref.rpartition("/")[2]) for ref in models], concurrency=10)
    daemon.wait_until_idle()
    daemon.stop()
    volumes = {f"/models/{number}": reference for number, reference in enumerate(models)}
    with node.container(image_volumes=volumes) as container:
        for mount, model in zip(volumes, models.values(), strict=True):
            seen = container.exec(["sh", "-c", f"cd {mount}; sha256sum *.safetensors"]).stdout
            assert dict(line.split()[::-1] for line in seen.splitlines()) == {
                path: digest
                for path, (_, digest) in digests_of(model).items()
                if path.endswith(".safetensors")
            }
    assert_nothing_unfinished(node)


def test_one_model_by_the_daemon_and_by_hand(start, node, reference, tmp_path):
    model = build_shards(tmp_path / "model")
    pushed = modelpack.push(model, reference)
    command = Command(tmp_path / "home")
    daemon = start([entry(reference)], limitRate="30M")
    by_hand = [command.start("pull", reference, *into(node), "--json") for _ in range(2)]
    results = [finish(process) for process in by_hand]
    daemon.wait_for("m", stage="Ready")
    assert sum(item["imported_bytes"] for item in results) in {0, pushed.bytes}
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


def test_an_image_removed_by_hand_comes_back(start, node, reference, model):
    modelpack.push(model, reference)
    daemon = start([entry(reference)])
    daemon.wait_for("m", stage="Ready")
    node.remove_image(reference)
    wait_until(lambda: node.image_status(reference) is not None, seconds=60, poll=0.1)
    daemon.wait_for("m", stage="Ready")
    assert_mounts(node, reference, model)


def test_a_tag_that_moves_while_it_is_pulled(start, node, reference, tmp_path):
    """What is mounted stays as it is; the tag ends at the newer version."""
    old, new = (
        write_files(tmp_path / name, {"m.safetensors": one_shard(range(number, number + 20), size=MIB),
                                      "config.json": b"{}"})
        for name, number in (("old", 0), ("new", 100))
    )  # fmt: skip
    first = modelpack.push(old, reference)
    second = modelpack.push(new, reference.replace(":v1", ":v2"))
    daemon = start([entry(reference)], limitRate="10M")
    wait_until(lambda: daemon.model("m").get("fetched_bytes", 0) > 4 * MIB, seconds=60)
    modelpack.copy(reference.replace(":v1", ":v2"), reference)
    daemon.wait_for("m", stage="Ready", digest=first.digest)
    daemon.ask("refresh", "m")
    daemon.wait_for("m", stage="Ready", digest=second.digest)
    assert_mounts(node, reference, new)
    modelpack.copy(f"{reference.rpartition(':')[0]}@{first.digest}", reference)
    with node.container(image_volumes={"/models": reference}) as container:
        before = container.exec(["sha256sum", "/models/m.safetensors"]).stdout
        daemon.ask("refresh", "m")
        daemon.wait_for("m", stage="Ready", digest=first.digest)
        assert container.exec(["sha256sum", "/models/m.safetensors"]).stdout == before
    assert_mounts(node, reference, old)


def test_damage_is_found_and_repaired_by_itself(start, node, reference, model):
    pushed = modelpack.push(model, reference)
    daemon = start([entry(reference)])
    daemon.wait_for("m", stage="Ready")
    snapshots = node.root / "io.containerd.snapshotter.v1.overlayfs/snapshots"
    file = next(path for path in snapshots.glob("*/fs/w1.safetensors"))
    os.truncate(file, 1000)
    daemon.ask("scrub", "m")
    wait_until(lambda: daemon.status()["totals"]["repaired"] >= 1, seconds=60, poll=0.1)
    daemon.wait_for("m", stage="Ready", digest=pushed.digest)
    assert daemon.status()["totals"]["damaged"] >= 1
    daemon.stop()
    assert_mounts(node, reference, model)


def test_bytes_come_from_a_mirror(start, node, model):
    """And only the registry's own word for the manifest, which containerd asks for itself."""
    with (
        FaultRegistry() as registry,
        FaultRegistry(address="127.0.0.2", store=registry.store) as mirror,
    ):
        reference = f"{registry.host}/{GROUP}/mirrored:v1"
        modelpack.push(model, reference)
        daemon = start([entry(reference)], mirrors={registry.host: [mirror.url]})
        daemon.wait_for("m", stage="Ready")
        assert_mounts(node, reference, model)
        node.remove_image(reference)
        daemon.stop()
        assert sum(record.bytes_sent for record in mirror.select(kind="blob")) > 9 * MIB
        fetched = [item for item in registry.select(kind="blob") if item.method == "GET"]
        assert sum(record.bytes_sent for record in fetched) < MIB
