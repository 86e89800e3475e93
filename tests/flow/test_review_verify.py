"""Verify believes the index and nothing else, and says of every byte what it is."""

import json
import threading

import pytest

import modelpack
from modelpack import metadata, pulling
from modelpack.chunkindex import ChunkIndex, decode_index, encode_index
from modelpack.connect import open_repository
from modelpack.descriptor import FORMAT_VERSION, METADATA_LAYER, OCI_LAYER_TAR, Descriptor
from modelpack.digest import Digest
from modelpack.errors import FormatError, NotFoundError
from modelpack.manifest import Manifest
from tests.support.models import one_shard, random_bytes, write_files

MIB = 1024 * 1024


@pytest.fixture
def model(tmp_path):
    return write_files(
        tmp_path / "model",
        {
            "big.bin": random_bytes(5 * MIB),
            "w.safetensors": one_shard(range(8)),
            "a.json": b"{}",
            "sub/b.json": b"[]",
        },
    )


@pytest.fixture
def reference(model, tmp_path):
    name = f"oci:{tmp_path / 'store'}:v1"
    modelpack.push(model, name)
    return name


def edit_receipt(out, **members):
    path = out / ".modelpack" / "receipt.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def test_a_receipt_cannot_hide_a_changed_file(reference, tmp_path):
    """It is nobody's signature: it may excuse what is not there, and nothing else."""
    out = tmp_path / "out"
    modelpack.pull(reference, out)
    (out / "a.json").write_bytes(b"[]")
    (out / "sub/b.json").unlink()
    edit_receipt(out, selected=True, files={})
    report = modelpack.verify(out)
    assert (report.changed, report.missing, report.unselected) == (("a.json",), (), 1)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "null", '{"version":1}', "\ud800"])
def test_a_receipt_that_is_none_is_not_believed(text, reference, tmp_path):
    out = tmp_path / "out"
    modelpack.pull(reference, out)
    (out / ".modelpack" / "receipt.json").write_text(text, "utf-8", "surrogatepass")
    report = modelpack.verify(out)
    assert (report.ok, report.reference) == (True, None)


def test_a_signature_and_lost_and_found_are_no_part_of_the_model(reference, tmp_path):
    out = tmp_path / "out"
    modelpack.pull(reference, out)
    write_files(out, {"model.sig": b"{}", "lost+found/#17": b"x"})
    assert modelpack.verify(out).extra == ()


def test_what_has_no_index_says_so(tmp_path):
    (tmp_path / "out" / ".modelpack").mkdir(parents=True)
    with pytest.raises(NotFoundError, match="not pulled by modelpack"):
        modelpack.verify(tmp_path / "out")
    (tmp_path / "out" / ".modelpack" / "staging").mkdir()
    with pytest.raises(NotFoundError, match="not finished"):
        modelpack.verify(tmp_path / "out")


def test_an_index_of_images_in_place_of_a_manifest(reference, tmp_path):
    out = tmp_path / "out"
    modelpack.pull(reference, out)
    raw = (
        b'{"schemaVersion":2,"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json"}'
    )
    (out / ".modelpack" / "manifest.json").write_bytes(raw)
    with pytest.raises(FormatError, match="index"):
        modelpack.verify(out)


def test_observers_hear_one_event_at_a_time(reference, tmp_path):
    out = tmp_path / "out"
    busy = threading.Lock()

    def observer(_event):
        assert busy.acquire(blocking=False)
        threading.Event().wait(0.002)
        busy.release()

    modelpack.pull(reference, out, observer=observer)
    modelpack.verify(out, observer=observer)
    modelpack.verify_reference(reference, full=True, observer=observer)


def republish(reference: str, tmp_path, change) -> str:
    """Put another index, or other layers, under ``:bad``: consistent, but not with each other."""
    with open_repository(reference) as repository:
        manifest = pulling.resolve_model(repository, lambda _: None)
        files = metadata.read_metadata_layer(
            repository.fetch_blob(manifest.layers[-1], max_bytes=MIB)
        )
        layers = [
            repository.fetch_blob(layer, max_bytes=16 * MIB) for layer in manifest.layers[:-1]
        ]
        index, layers = change(decode_index(files[metadata.CHUNKS]), layers)
        files[metadata.CHUNKS] = encode_index(index)
        last = metadata.build_metadata_layer(files)
        described = [Descriptor.of(raw, media_type=OCI_LAYER_TAR) for raw in (*layers, last)]
        config = json.dumps({"rootfs": {"diff_ids": [str(item.digest) for item in described]}})
        bad = Manifest.build(
            config=Descriptor.of(
                config.encode(), media_type="application/vnd.oci.image.config.v1+json"
            ),
            layers=described,
            annotations={FORMAT_VERSION: "1", METADATA_LAYER: str(described[-1].digest)},
        )
        for raw, item in zip(
            [*layers, last, config.encode()], [*described, bad.config], strict=True
        ):
            from modelpack.content import BlobContent

            repository.push_blob(item, BlobContent((raw,)))
        repository.push_manifest(bad, "bad")
    return reference.removesuffix("v1") + "bad"


def with_layers(index: ChunkIndex, layers: list[bytes]) -> tuple[ChunkIndex, list[bytes]]:
    """Name the layers in the index as they are."""
    from modelpack.chunkindex import IndexedLayer

    named = tuple(IndexedLayer(digest=Digest.of(raw), size=len(raw)) for raw in layers)
    changed = ChunkIndex(
        layers=named, files=index.files, lengths=index.lengths, hashes=index.hashes
    )
    return changed, layers


def other_bytes(index, layers):
    place = index.by_path()["big.bin"]
    raw = bytearray(layers[place.layer])
    raw[place.offset + 4 * MIB + 5] ^= 1
    layers[place.layer] = bytes(raw)
    return with_layers(index, layers)


def other_name(index, layers):
    """A runtime would unpack another path than the one that the index lists."""
    place = index.by_path()["big.bin"]
    layers[place.layer] = layers[place.layer].replace(b"big.bin", b"big.exe", 1)
    return with_layers(index, layers)


@pytest.mark.parametrize(
    ("change", "named"), [(other_bytes, "big.bin"), (other_name, "sha256:")], ids=["bytes", "name"]
)
def test_full_verification_holds_layers_against_the_index(change, named, reference, tmp_path):
    bad = republish(reference, tmp_path, change)
    assert modelpack.verify_reference(bad).ok
    report = modelpack.verify_reference(bad, full=True)
    assert len(report.changed) == 1
    assert report.changed[0].startswith(named)
    assert modelpack.verify_reference(reference, full=True).ok
