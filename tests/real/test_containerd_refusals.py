"""What an import into containerd refuses, and what containerd and the registry insist on."""

import json
import os
import struct

import pytest

import modelpack
from modelpack import tarformat
from modelpack.artifact import build_config, build_manifest
from modelpack.chunkindex import MAGIC
from modelpack.connect import open_repository
from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.digest import Digest, chunk_hash
from modelpack.errors import FormatError, IntegrityError, PolicyError, UsageError
from modelpack.metadata import CHUNKS, build_metadata_layer
from modelpack.runtime.containerd import import_model
from tests.support import images, programs, registries
from tests.support.command import Command
from tests.support.faultregistry import FaultRegistry
from tests.support.importing import (
    MIB,
    assert_mounts,
    blob_requests,
    build_shards,
    options,
)
from tests.support.nodestate import assert_nothing_unfinished, snapshot_directories, snapshot_keys
from tests.support.samplemodel import build_sample

GROUP = "refusals"


pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
]


@pytest.fixture
def model(tmp_path):
    return build_sample(tmp_path / "model")


# --- what containerd and the registry insist on -----------------------------------------------------


def test_credentials_reach_containerd_too(node, model, basic_auth_registry, tmp_path):
    config = registries.docker_config(tmp_path, basic_auth_registry.host)
    command = Command(tmp_path / "home", {"DOCKER_CONFIG": str(config.parent)})
    reference = f"{basic_auth_registry.host}/private/model:v1"
    assert command.run("push", model, reference).returncode == 0
    command.json("pull", reference, "--into", "containerd", "--address", node.socket)
    assert_mounts(node, reference, model)
    node.remove_image(reference)


def test_containerds_own_verifier_is_heeded(node, model, reference):
    modelpack.push(model, reference)
    verifier = node.verifiers / "refuse"
    verifier.write_text("#!/bin/sh\necho not this one; exit 1\n")
    verifier.chmod(0o755)
    try:
        with pytest.raises(PolicyError, match="not this one"):
            import_model(reference, options(node))
        assert node.image_status(reference) is None
    finally:
        verifier.unlink()
    import_model(reference, options(node))


def test_the_gate_is_asked_before_anything_is_fetched(node, model, reference, docker_registry):
    modelpack.push(model, reference)
    before = len(blob_requests(docker_registry))

    def refuse(*_):
        raise PolicyError("unsigned")

    with pytest.raises(PolicyError, match="unsigned"):
        import_model(reference, options(node), gate=refuse)
    assert blob_requests(docker_registry)[before:] == []
    assert_nothing_unfinished(node)


@pytest.mark.parametrize("make", ["foreign", "recompressed", "platform", "layout"])
def test_images_that_cannot_be_imported(make, node, model, reference, tmp_path):
    name = reference
    if make == "foreign":
        images.push_image(images.write_image(tmp_path / "l", [{"a": b"b"}]), reference)
        said = "was not packed by modelpack; let the container runtime pull it itself"
    elif make == "recompressed":
        modelpack.push(model, f"{reference}-plain")
        programs.run(
            "skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false",
            "--dest-compress-format=gzip", "--dest-force-compress-format",
            f"docker://{reference}-plain", f"docker://{reference}",
        )  # fmt: skip
        said = "recompressed"
    elif make == "platform":
        modelpack.push(model, reference, platform="linux/s390x")
        said = "is for linux/s390x and this node is linux/.*push it with --platform linux/"
    else:
        name = f"oci:{tmp_path / 'store'}:v1"
        modelpack.push(model, name)
        said = "has no registry"
    with pytest.raises(UsageError, match=said):
        import_model(name, options(node))
    assert_nothing_unfinished(node)


# --- attacked ---------------------------------------------------------------------------------------


def publish_index_of(registry, path: str) -> str:
    """Put an image at the registry that is right in everything but a path of its index."""
    data = b"evil"
    layer = tarformat.file_header("x", size=len(data), mode=0o644) + data
    layer += bytes(tarformat.padding(len(data))) + tarformat.END_OF_ARCHIVE
    file = {
        "path": path, "size": len(data), "mode": "0644", "blake3": chunk_hash(data).hex(),
        "layer": 0, "offset": 512, "chunks": 1,
    }  # fmt: skip
    head = json.dumps(
        {"layers": [{"digest": str(Digest.of(layer)), "size": len(layer)}], "files": [file]}
    ).encode()
    index = MAGIC + struct.pack("<II", len(head), 1) + head
    index += struct.pack("<I", len(data)) + chunk_hash(data)
    layers = [layer, build_metadata_layer({CHUNKS: index})]
    descriptors = [Descriptor.of(blob, media_type=OCI_LAYER_TAR) for blob in layers]
    config = build_config([(descriptor, "x") for descriptor in descriptors])
    manifest = build_manifest(
        config=config, data_layers=descriptors[:1], metadata_layer=layers[1], annotations={}
    )
    for blob in (config, *layers):
        registry.add_blob(blob)
    registry.put_manifest("team/model", "v1", json.loads(manifest.raw))
    return f"{registry.host}/team/model:v1"


def everything_below(*roots) -> set[str]:
    return {str(path) for root in roots for path in root.rglob("*")}


@pytest.mark.parametrize(
    "path", ["../evil", "/tmp/evil-modelpack", "a/../../evil", ".wh.x", ".modelpack/evil", "x/."]
)
def test_an_index_that_leads_elsewhere_writes_nothing(path, node):
    snapshots = snapshot_directories(node)[0].parents[1]
    with FaultRegistry() as registry:
        reference = publish_index_of(registry, path)
        before = everything_below(snapshots)
        with pytest.raises(FormatError, match="path"):
            import_model(reference, options(node))
    assert everything_below(snapshots) == before
    assert not os.path.lexists("/tmp/evil-modelpack")
    assert_nothing_unfinished(node)


def test_the_same_index_with_a_good_path_is_imported(node):
    with FaultRegistry() as registry:
        reference = publish_index_of(registry, "x")
        import_model(reference, options(node))
        node.remove_image(reference)


def test_wrong_bytes_never_become_a_snapshot(node, tmp_path):
    with FaultRegistry() as registry:
        reference = f"{registry.host}/{GROUP}/model:v1"
        model = build_shards(tmp_path / "model")
        modelpack.push(model, reference)
        with open_repository(reference) as repository:
            layer = str(repository.fetch_manifest("v1").layers[0].digest)
        right = registry.blob(layer)
        wrong = bytearray(right)
        wrong[3 * MIB] ^= 1
        registry.add_blob(bytes(wrong), digest=layer)
        before = len(snapshot_keys(node))
        with pytest.raises(IntegrityError, match="arrived with other bytes"):
            import_model(reference, options(node))
        assert node.image_status(reference) is None
        # What was right is kept for another try, in the one snapshot that is for that.
        assert len(snapshot_keys(node)) == before + 1
        registry.add_blob(right, digest=layer)
        again = import_model(reference, options(node))
        assert again.pull.reused_bytes > 0
        assert_mounts(node, reference, model)
