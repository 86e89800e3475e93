"""A copy brings what belongs to the artifact, and nothing that a registry only says belongs to it."""

import json

import pytest

import modelpack
from modelpack import copying
from modelpack.content import BlobContent
from modelpack.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from modelpack.errors import FormatError, UsageError
from modelpack.manifest import Index, Manifest
from modelpack.reference import LayoutReference
from modelpack.stores.layout import LayoutRepository
from tests.support.faultregistry import Fault, FaultRegistry
from tests.support.models import write_files


@pytest.fixture
def layout(tmp_path):
    """A layout with a small model at ``v1``, and its reference without a tag."""
    model = write_files(tmp_path / "model", {"config.json": b"{}"})
    modelpack.push(model, f"oci:{tmp_path / 'store'}:v1")
    return LayoutRepository(LayoutReference(str(tmp_path / "store"), "v1"))


def add_manifest(layout, payload: bytes, *, subject=None, tag=None) -> Manifest:
    manifest = Manifest.build(
        config=Descriptor.of(b"{}", media_type="application/vnd.oci.empty.v1+json"),
        layers=[Descriptor.of(payload, media_type="application/octet-stream")],
        artifact_type="application/vnd.test",
        subject=subject,
    )
    for blob, data in ((manifest.config, b"{}"), (manifest.layers[0], payload)):
        layout.push_blob(blob, BlobContent((data,)))
    layout.push_manifest(manifest, tag)
    return manifest


def test_the_older_signature_comes_along(layout, tmp_path):
    digest = layout.fetch_manifest("v1").digest
    signature = f"sha256-{digest.hex}.sig"
    add_manifest(layout, b"signature", tag=signature)
    modelpack.copy(f"oci:{layout.root}:v1", f"oci:{tmp_path / 'copy'}:v2")
    assert modelpack.tags(f"oci:{tmp_path / 'copy'}") == [signature, "v2", "v2-modelpack"]
    modelpack.copy(f"oci:{layout.root}:v1", f"oci:{tmp_path / 'bare'}:v2", with_referrers=False)
    assert modelpack.tags(f"oci:{tmp_path / 'bare'}") == ["v2", "v2-modelpack"]


def test_what_only_the_registry_calls_a_referrer_is_left(published, tmp_path):
    """The referrers API proves nothing: a manifest's own subject does."""
    registry = published.registry
    config, layer = registry.add_blob(b"{}"), registry.add_blob(b"stranger" * 1000)
    stranger = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "text/plain", "digest": layer, "size": 8000}],
    }
    digest = registry.put_manifest("team/model", "stranger", stranger)
    size = len(json.dumps(stranger).encode())
    with FaultRegistry() as target:
        listed = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{"mediaType": OCI_MANIFEST, "digest": str(digest), "size": size}],
        }
        body = json.dumps(listed).encode()
        registry.faults.add(Fault.replace_body(body, kind="referrers", times=1))
        result = modelpack.copy(published.reference, f"{target.host}/team/model:v1")
        assert result.referrers == 0
        assert target.manifest("team/model", str(digest)) is None


def nested(layout, depth: int) -> Index:
    inner: Manifest | Index = layout.fetch_manifest("v1")
    for _ in range(depth):
        entry = Descriptor.of(inner.raw, media_type=inner.media_type)
        inner = Index.build([entry])
        layout.push_manifest(inner)
    layout.push_manifest(inner, "nested")
    return inner


def test_an_index_of_images_comes_whole(layout, tmp_path):
    nested(layout, 2)
    result = modelpack.copy(f"oci:{layout.root}:nested", f"oci:{tmp_path / 'copy'}:v1")
    assert result.manifests == 3


def test_indexes_nested_beyond_any_use_are_refused(layout, tmp_path):
    nested(layout, 30)
    with pytest.raises(FormatError, match="nested"):
        modelpack.copy(f"oci:{layout.root}:nested", f"oci:{tmp_path / 'copy'}:v1")


def test_a_flood_of_referrers_is_refused(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "MAX_MANIFESTS", 5)
    manifest = layout.fetch_manifest("v1")
    subject = Descriptor.of(manifest.raw, media_type=manifest.media_type)
    for number in range(5):
        add_manifest(layout, b"%d" % number, subject=subject)
    with pytest.raises(FormatError, match="more than 5"):
        modelpack.copy(f"oci:{layout.root}:v1", f"oci:{tmp_path / 'copy'}:v1")
    assert not (tmp_path / "copy").exists()


LONG = "t" * 125


def test_a_tag_without_room_for_the_companions(layout, tmp_path):
    """It is known before anything is sent, and the way out is said."""
    with pytest.raises(UsageError, match="--no-modelpack"):
        modelpack.push(tmp_path / "model", f"oci:{tmp_path / 'new'}:{LONG}")
    assert not (tmp_path / "new").exists()
    modelpack.push(tmp_path / "model", f"oci:{layout.root}:{LONG}", companion=False)
    modelpack.copy(f"oci:{layout.root}:{LONG}", f"oci:{tmp_path / 'copy'}:v1")
    with pytest.raises(UsageError, match="shorter"):
        modelpack.copy(f"oci:{layout.root}:v1", f"oci:{tmp_path / 'other'}:{LONG}")
    assert not (tmp_path / "other").exists()


def test_a_manifest_is_sent_once(layout):
    digest = layout.fetch_manifest("v1").digest
    with FaultRegistry() as target:
        modelpack.copy(
            f"oci:{layout.root}@{digest}", f"{target.host}/team/model", with_referrers=False
        )
        puts = [r for r in target.select(kind="manifest") if r.method == "PUT"]
        assert len(puts) == 1
