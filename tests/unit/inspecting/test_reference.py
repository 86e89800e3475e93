import dataclasses
import gzip
import json

import pytest

import modelpack
from modelpack.connect import open_repository
from modelpack.descriptor import (
    FORMAT_VERSION,
    OCI_LAYER_TAR_GZIP,
    OCI_MANIFEST,
    Descriptor,
)
from modelpack.digest import chunk_hash
from modelpack.errors import FormatError, IntegrityError, NotFoundError
from modelpack.inspecting import carried, headers, inspect_reference
from modelpack.manifest import Index, Manifest
from modelpack.reference import LayoutReference
from modelpack.stores.layout import LayoutRepository
from tests.support.faultregistry import FaultRegistry, Features
from tests.support.images import write_image
from tests.support.smallmodels import weights, write_small_model

KIB = 1024


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path):
    return write_small_model(tmp_path / "model")


@pytest.fixture
def store(tmp_path, model):
    reference = f"oci:{tmp_path / 'store'}:v1"
    modelpack.push(model, reference, annotations={"org.example.team": "red"})
    return reference


def inspect(reference):
    with open_repository(reference) as repository:
        return inspect_reference(repository)


# --- modelpack's own artifacts -------------------------------------------------------------------


def test_says_what_a_packed_artifact_holds(store, model):
    found = inspect(store)
    value = found.to_json()
    assert json.loads(json.dumps(value)) == value
    assert (value["state"], value["format_version"]) == ("intact", "1")
    assert value["media_type"] == OCI_MANIFEST
    assert value["artifact_type"] is None
    on_disk = {str(path.relative_to(model)): path for path in model.rglob("*") if path.is_file()}
    assert {file["path"] for file in value["files"]} == on_disk.keys()
    for file in value["files"]:
        path = on_disk[file["path"]]
        assert file["size"] == path.stat().st_size
        assert file["mode"] == ("0755" if file["path"] == "run.sh" else "0644")
        assert file["present"]
    files = {file["path"]: file for file in value["files"]}
    assert files["config.json"]["blake3"] == chunk_hash(on_disk["config.json"].read_bytes()).hex()
    assert [files[path]["kind"] for path in ("model.safetensors", "README.md", "run.sh")] == [
        "weight",
        "doc",
        "code",
    ]
    assert files["empty.txt"]["chunks"] == 0
    assert files["model.safetensors"]["chunks"] == 4  # header, big, a pack of two, big
    assert value["bytes"] == sum(path.stat().st_size for path in on_disk.values())
    assert value["model"]["architectures"] == ["TestModel"]
    assert value["model"]["licenses"] == ["mit"]
    assert value["annotations"]["org.example.team"] == "red"
    assert value["companion"]["tag"] == "v1-modelpack"
    assert value["referrers"] == []
    assert value["warnings"] == []


def test_counts_tensors_from_the_headers(store):
    value = inspect(store).to_json()
    files = {file["path"]: file for file in value["files"]}
    assert files["README.md"]["tensors"] is None
    assert files["model.safetensors"]["tensors"] == {
        "format": "safetensors",
        "format_version": None,
        "header_bytes": files["model.safetensors"]["size"] - 300 * 256 * 4 - 256 - 512 * 1024,
        "count": 4,
        "parameters": 76800 + 64 + 64 + 524288,
        "parameters_by_dtype": {"BF16": 64, "F16": 64, "F32": 76800, "I8": 524288},
    }
    assert files["sub/q4.gguf"]["tensors"]["format_version"] == 3
    # The GGUF file is another form of the model: each weight counts once.
    assert value["tensors"]["parameters"] == 76800 + 64 + 64 + 524288
    assert value["tensors"]["formats"] == ["gguf", "safetensors"]


def test_lists_each_tensor_when_asked(store):
    files = {file["path"]: file for file in inspect(store).to_json(tensors=True)["files"]}
    listed = files["sub/q4.gguf"]["tensors"]["list"]
    assert [(each["name"], each["dtype"], each["shape"], each["bytes"]) for each in listed] == [
        ("blk.0.ffn.weight", "F32", [300, 256], 300 * 256 * 4),
        ("blk.0.norm.weight", "F32", [64], 256),
    ]


def test_describes_layers_and_chunks(store, tmp_path):
    (tmp_path / "model/copy.safetensors").write_bytes(weights())
    modelpack.push(tmp_path / "model", store)
    found = inspect(store)
    chunks = found.chunks
    assert chunks.count == sum(file.chunks for file in found.files)
    assert chunks.bytes == found.bytes
    assert chunks.unique == chunks.count - 4
    assert chunks.unique_bytes == chunks.bytes - len(weights())
    assert (chunks.smallest, chunks.largest) == (5, 512 * 1024)
    assert [layer.files for layer in found.layers][-1] == ()
    assert {path for layer in found.layers for path in layer.files} == {
        file.path for file in found.files
    }
    layout = LayoutRepository(LayoutReference(str(tmp_path / "store")))
    for layer in found.layers:
        stored = layout.blob_path(layer.descriptor.digest).stat().st_size
        assert layer.to_json()["size"] == stored


def test_headers_that_are_too_large_together_are_left_out(store, monkeypatch):
    monkeypatch.setattr(headers, "MAX_HEADERS_BYTES", 0)
    monkeypatch.setattr(headers, "_THREADS", 1)
    found = inspect(store)
    assert [file.path for file in found.files if file.tensors] == ["model.safetensors"]
    assert found.warnings == (
        "'sub/q4.gguf' is left out: the headers before it are too large together",
    )


def test_a_digest_names_it_too_but_has_no_companion(store, tmp_path):
    digest = inspect(store).digest
    found = inspect(f"oci:{tmp_path / 'store'}@{digest}")
    assert found.digest == digest
    assert found.companion is None
    assert len(found.files) == 6


def test_a_tag_that_only_looks_like_a_companion_is_named(store, tmp_path):
    layout = LayoutRepository(LayoutReference(str(tmp_path / "store"), tag="v1"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("other")
    modelpack.push(tmp_path / "other", f"oci:{tmp_path / 'store'}:v1-modelpack", companion=False)
    found = inspect_reference(layout)
    assert found.companion is None
    assert "holds other layers" in found.warnings[0]


def test_names_what_is_not_there(store, tmp_path):
    with pytest.raises(NotFoundError, match="v2 does not exist"):
        inspect(f"oci:{tmp_path / 'store'}:v2")


def test_a_newer_format_asks_for_an_update(store, tmp_path):
    layout = LayoutRepository(LayoutReference(str(tmp_path / "store"), tag="v1"))
    manifest = layout.fetch_manifest("v1")
    layout.push_manifest(
        Manifest.build(
            config=manifest.config,
            layers=manifest.layers,
            annotations={**manifest.annotations, FORMAT_VERSION: "2"},
        ),
        "v1",
    )
    with pytest.raises(FormatError, match="update it"):
        inspect_reference(layout)


# --- over a registry -----------------------------------------------------------------------------


@pytest.fixture
def registry():
    with FaultRegistry() as registry:
        yield registry
        assert registry.violations == []


def test_fetches_headers_and_no_weights(registry, model):
    reference = f"{registry.host}/team/model:v1"
    modelpack.push(model, reference)
    before = len(registry.requests)
    found = inspect(reference)
    weight_bytes = sum(file.size for file in found.files if file.tensors)
    blobs = [request for request in registry.requests[before:] if request.kind == "blob"]
    sent = sum(request.bytes_sent for request in blobs)
    headers = sum(file.tensors.header_length for file in found.files if file.tensors)
    assert sent == found.layers[-1].descriptor.size + headers
    assert sent * 20 < weight_bytes
    manifest_bytes = len(registry.manifest("team/model", "v1").data)
    assert found.fetched_bytes == sent + manifest_bytes


def layer_digest(registry, number):
    manifest = json.loads(registry.manifest("team/model", "v1").data)
    return manifest["layers"][number]["digest"]


@pytest.mark.parametrize(("offset", "is_read"), [(20, True), (100 * KIB, False)])
def test_believes_no_header_that_was_tampered_with(registry, tmp_path, offset, is_read):
    model = tmp_path / "one"
    model.mkdir()
    (model / "model.safetensors").write_bytes(weights())
    reference = f"{registry.host}/team/model:v1"
    modelpack.push(model, reference)
    digest = layer_digest(registry, 0)
    data = bytearray(registry.blob(digest))
    start = data.index(weights()[:16])
    data[start + offset] ^= 1
    registry.add_blob(bytes(data), digest=digest)
    if is_read:
        with pytest.raises(IntegrityError, match=r"model\.safetensors.*other bytes at offset 0"):
            inspect(reference)
    else:
        assert inspect(reference).files[0].tensors.parameters > 0


@pytest.mark.parametrize("offered", [True, False], ids=["referrers-api", "tag-schema"])
def test_lists_referrers(model, offered):
    with FaultRegistry(features=Features(referrers=offered)) as registry:
        reference = f"{registry.host}/team/model:v1"
        pushed = modelpack.push(model, reference)
        with open_repository(reference) as repository:
            subject = repository.resolve("v1")
            config = Descriptor.of(b"{}", media_type="application/vnd.oci.empty.v1+json")
            from modelpack.content import BlobContent

            repository.push_blob(config, BlobContent((b"{}",)))
            signature = Manifest.build(
                config=config,
                layers=[config],
                subject=subject,
                artifact_type="application/vnd.example.signature",
                annotations={"signed-by": "ada"},
            )
            repository.push_manifest(signature)
        found = inspect(reference)
        assert found.digest == pushed.digest
        assert found.to_json()["referrers"] == [
            {
                "artifact_type": "application/vnd.example.signature",
                "media_type": OCI_MANIFEST,
                "digest": str(signature.digest),
                "size": len(signature.raw),
                "annotations": {"signed-by": "ada"},
            }
        ]


# --- copies and other tools' artifacts -----------------------------------------------------------


def recompress(layout, *, last=None):
    """What a copier that recompresses layers leaves: the same annotations, other layers."""
    manifest = layout.fetch_manifest("v1")
    layers = []
    for number, layer in enumerate(manifest.layers):
        raw = layout.blob_path(layer.digest).read_bytes()
        if last is not None and number == len(manifest.layers) - 1:
            raw = last
        packed = gzip.compress(raw, mtime=0)
        descriptor = Descriptor.of(packed, media_type=OCI_LAYER_TAR_GZIP)
        layout.blob_path(descriptor.digest).write_bytes(packed)
        layers.append(descriptor)
    layout.push_manifest(
        Manifest.build(config=manifest.config, layers=layers, annotations=manifest.annotations),
        "v1",
    )


def test_a_recompressed_copy_still_says_what_it_holds(store, tmp_path):
    packed = inspect(store)
    layout = LayoutRepository(LayoutReference(str(tmp_path / "store"), tag="v1"))
    recompress(layout)
    found = inspect_reference(layout)
    assert found.state == "recompressed"
    assert [dataclasses.replace(file, tensors=None) for file in packed.files] == list(found.files)
    assert found.model == packed.model
    assert [layer.files for layer in found.layers] == [layer.files for layer in packed.layers]
    assert found.layers[0].descriptor.media_type == OCI_LAYER_TAR_GZIP
    assert len(found.warnings) == 2  # and the companion, which has the old layers
    assert "a copier recompressed them?" in found.warnings[0]


def test_a_recompressed_layer_that_unpacks_without_end_is_given_up(store, tmp_path, monkeypatch):
    monkeypatch.setattr(carried, "MAX_METADATA_BYTES", 64 * KIB)
    layout = LayoutRepository(LayoutReference(str(tmp_path / "store"), tag="v1"))
    metadata = layout.fetch_manifest("v1").layers[-1]
    recompress(layout, last=layout.blob_path(metadata.digest).read_bytes() + bytes(1 << 20))
    found = inspect_reference(layout)
    assert found.files == ()
    assert any("unpacks to more than" in warning for warning in found.warnings)


def test_a_plain_image_is_shown_by_its_manifest(tmp_path):
    layout = write_image(tmp_path / "image", [{"weights.bin": b"x" * 100}, {"b": b"y"}])
    found = inspect(f"oci:{layout}:latest")
    value = found.to_json()
    assert value["state"] == "foreign"
    assert value["files"] == []
    assert value["chunks"] is None
    assert value["model"] is None
    assert [layer["media_type"] for layer in value["layers"]] == [
        "application/vnd.oci.image.layer.v1.tar"
    ] * 2
    assert value["config"]["media_type"] == "application/vnd.oci.image.config.v1+json"
    assert value["fetched_bytes"] == layer_free_bytes(layout)


def layer_free_bytes(layout):
    return json.loads((layout / "index.json").read_bytes())["manifests"][0]["size"]


def test_the_companion_is_a_foreign_artifact_with_named_layers(store, tmp_path):
    found = inspect(f"oci:{tmp_path / 'store'}:v1-modelpack")
    assert found.state == "foreign"
    assert found.artifact_type == "application/vnd.cncf.model.manifest.v1+json"
    assert all(layer.descriptor.annotations["org.cncf.model.filepath"] for layer in found.layers)


def test_an_index_lists_its_manifests(store, tmp_path):
    layout = LayoutRepository(LayoutReference(str(tmp_path / "store"), tag="multi"))
    entry = Descriptor.from_json(
        {
            **layout.resolve("v1").to_json(),
            "annotations": {},
            "platform": {"os": "linux", "architecture": "arm64"},
        }
    )
    layout.push_manifest(Index.build([entry], annotations={"a": "b"}), "multi")
    value = inspect_reference(layout).to_json()
    assert value["state"] == "index"
    assert value["annotations"] == {"a": "b"}
    assert value["manifests"][0]["platform"] == {"os": "linux", "architecture": "arm64"}
    assert value["layers"] == value["files"] == []
