"""What a model's files hold is judged before they are fetched (docs/trust.md)."""

import pickle
from dataclasses import replace

import pytest

import modelpack
from modelpack.artifact import build_config, build_manifest, load_artifact
from modelpack.chunkindex import encode_index
from modelpack.connect import open_repository
from modelpack.content import BlobContent
from modelpack.descriptor import EMPTY_CONFIG, OCI_CONFIG, Descriptor
from modelpack.errors import IntegrityError
from modelpack.manifest import Manifest
from modelpack.metadata import CHUNKS, build_metadata_layer
from modelpack.selection import Selection
from modelpack.signing.policy import FormatRule
from modelpack.trust.gate import TrustGate
from tests.unit.trust.gatework import policy, pull, push, refused, sign, weight_bytes


class Evil:
    def __reduce__(self):
        return print, ("run while loading",)


def test_9_a_pickle_that_runs_code_is_refused_before_any_weight(registry, model, tmp_path):
    (model / "notes.txt").write_bytes(pickle.dumps(Evil()))
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    sign(reference)
    message = refused(reference, tmp_path / "out", policy(), "formats.pickle", "notes.txt")
    assert "print" in message
    assert not (tmp_path / "out").exists()
    allowing = policy(formats=FormatRule(pickle="allow"))
    assert pull(reference, tmp_path / "out", allowing).files == 3
    # Files that are not asked for are not judged.
    gate = TrustGate(policy(), selection=Selection(exclude=("notes.txt",)))
    done = modelpack.pull(reference, tmp_path / "some", exclude=["notes.txt"], gate=gate)
    assert done.files == 2


def test_findings_are_kept_for_the_next_time(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    pushed = push(model, reference)
    sign(reference)
    assert TrustGate(policy()).look(reference).fetched_bytes > 0
    registry.clear_records()
    decision = TrustGate(policy()).look(reference)
    assert decision.ok
    assert decision.fetched_bytes == 0
    assert weight_bytes(registry, pushed) == 0


def test_weights_that_lie_about_themselves_are_found_out_while_judging(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    pushed = push(model, reference)
    sign(reference)
    layer = registry.manifest("team/model", pushed.digest).json()["layers"][0]
    data = bytearray(registry.blob(layer["digest"]))
    data[3000] ^= 1
    registry.add_blob(bytes(data), digest=layer["digest"], repo="team/model")
    with pytest.raises(IntegrityError):
        pull(reference, tmp_path / "out", policy())


def test_files_of_others_artifacts_are_judged_before_they_get_their_names(registry, tmp_path):
    """An artifact as oras pushes it has no index, so its files are judged once unpacked."""
    data = pickle.dumps(Evil())
    config = Descriptor.of(b"{}", media_type=EMPTY_CONFIG)
    layer = Descriptor.of(
        data,
        media_type="application/octet-stream",
        annotations={"org.opencontainers.image.title": "weights.pkl"},
    )
    reference = f"{registry.host}/team/model:v1"
    with open_repository(reference) as repository:
        repository.push_blob(config, BlobContent((b"{}",)))
        repository.push_blob(layer, BlobContent((data,)))
        manifest = Manifest.build(config=config, layers=[layer], artifact_type="example/model")
        repository.push_manifest(manifest, "v1")
    sign(reference)
    refused(reference, tmp_path / "out", policy(), "formats.pickle", "weights.pkl")
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [path.name for path in left if path.parent.name != ".modelpack"] == []
    allowing = policy(formats=FormatRule(pickle="allow"))
    assert pull(reference, tmp_path / "out", allowing).files == 1


def repacked(reference, *, change_layer=None, extra=None):
    """Replace what is at a tag by what a hostile packer would have made of it."""
    with open_repository(reference) as repository:
        manifest = repository.fetch_manifest("v1")
        artifact = load_artifact(repository, manifest)
        layer = artifact.data_layers[0]
        data = repository.fetch_blob(layer, max_bytes=layer.size)
        if change_layer is not None:
            data = change_layer(data)
        described = Descriptor.of(data, media_type=layer.media_type)
        layers = (replace(artifact.index.layers[0], digest=described.digest),)
        index = replace(artifact.index, layers=(*layers, *artifact.index.layers[1:]))
        files = {**artifact.metadata, **(extra or {}), CHUNKS: encode_index(index)}
        metadata_layer = build_metadata_layer(files)
        others = list(artifact.data_layers[1:])
        meta = Descriptor.of(metadata_layer, media_type=layer.media_type)
        config = build_config([(one, "x") for one in (described, *others, meta)])
        changed = build_manifest(
            config=config,
            data_layers=[described, *others],
            metadata_layer=metadata_layer,
            annotations={},
        )
        config_described = Descriptor.of(config, media_type=OCI_CONFIG)
        for descriptor, raw in (
            (described, data),
            (meta, metadata_layer),
            (config_described, config),
        ):
            repository.push_blob(descriptor, BlobContent((raw,)))
        repository.push_manifest(changed, "v1")


def other_name(data):
    """Call the first file of a tar something else: what a mount shows, and the index does not."""
    block = bytearray(data[:512])
    block[: len(b"weights.pkl\0")] = b"weights.pkl\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[512:]


@pytest.mark.parametrize(
    "change",
    [other_name, lambda data: data[:-1] + b"x", lambda data: b"\x80\x04" + data[2:]],
    ids=["header", "end", "pickle in a header"],
)
def test_9_a_tar_that_shows_other_files_than_the_index(registry, model, tmp_path, change):
    """A runtime that mounts the layer reads the tar; a pull into a directory reads the index."""
    reference = f"{registry.host}/team/model:v1"
    push(model, reference, companion=False)
    repacked(reference)
    sign(reference)
    pull(reference, tmp_path / "honest", policy())
    repacked(reference, change_layer=change)
    sign(reference)
    refused(reference, tmp_path / "out", policy(), "formats.pickle", "shows other files")
    assert not (tmp_path / "out").exists()


def test_9_a_pickle_among_the_metadata(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference, companion=False)
    repacked(reference, extra={"notes.bin": pickle.dumps(Evil())})
    sign(reference)
    refused(reference, tmp_path / "out", policy(), "formats.pickle", ".modelpack/notes.bin")
