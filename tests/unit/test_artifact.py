"""The documents of an artifact, by docs/format.md, section 7, and what is refused of one."""

import json
from dataclasses import replace

import pytest

from modelpack.artifact import (
    build_config,
    build_manifest,
    is_intact,
    is_packed,
    load_artifact,
)
from modelpack.chunkindex import encode_index
from modelpack.companion import build_companion
from modelpack.descriptor import DOCKER_LAYER_TAR, OCI_LAYER_TAR, OCI_LAYER_TAR_GZIP, Descriptor
from modelpack.digest import Digest
from modelpack.errors import FormatError, IntegrityError, UsageError
from modelpack.facts import ModelFacts
from modelpack.filekinds import file_kind
from modelpack.manifest import Manifest
from modelpack.metadata import build_metadata_layer
from tests.support.indexes import CHUNK, fake_digest, make_index

INDEX = make_index([("model.safetensors", [CHUNK]), ("README.md", [5]), ("config.json", [7])])
LAYERS = [
    Descriptor(media_type=OCI_LAYER_TAR, digest=layer.digest, size=layer.size)
    for layer in INDEX.layers
]
METADATA = build_metadata_layer({"chunks.bin": encode_index(INDEX), "model.json": b"{}"})


class Blobs:
    """As much of a repository as loading needs."""

    def __init__(self, *blobs):
        self.blobs = {Digest.of(blob): blob for blob in blobs}

    def fetch_blob(self, descriptor, *, max_bytes):
        assert descriptor.size <= max_bytes
        data = self.blobs[descriptor.digest]
        descriptor.digest.check(data, "blob")
        return data


def packed(metadata=METADATA, layers=LAYERS, **annotations):
    return build_manifest(
        config=build_config([(layer, "title") for layer in layers]),
        data_layers=layers,
        metadata_layer=metadata,
        annotations=annotations,
    )


class TestConfig:
    def test_by_the_letter(self):
        raw = build_config([(LAYERS[0], "model.safetensors"), (LAYERS[1], "2 files")])
        assert raw.decode() == (
            '{"architecture":"amd64","os":"linux","config":{},'
            f'"rootfs":{{"type":"layers","diff_ids":["{LAYERS[0].digest}","{LAYERS[1].digest}"]}},'
            '"history":[{"created_by":"modelpack: model.safetensors"},'
            '{"created_by":"modelpack: 2 files"}]}'
        )

    @pytest.mark.parametrize(
        ("platform", "expected"),
        [
            ("linux/arm64", {"os": "linux", "architecture": "arm64"}),
            ("linux/arm/v7", {"os": "linux", "architecture": "arm", "variant": "v7"}),
        ],
    )
    def test_other_platforms(self, platform, expected):
        value = json.loads(build_config([], platform=platform))
        assert {key: value[key] for key in value if key in {"os", "architecture", "variant"}} == (
            expected
        )

    @pytest.mark.parametrize("platform", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/a b"])
    def test_what_is_no_platform(self, platform):
        with pytest.raises(UsageError, match="is not OS/ARCHITECTURE"):
            build_config([], platform=platform)


class TestManifest:
    def test_by_the_letter(self):
        manifest = packed(**{"org.example.b": "2", "a": "1"})
        value = json.loads(manifest.raw)
        assert list(value) == ["schemaVersion", "mediaType", "config", "layers", "annotations"]
        assert value["schemaVersion"] == 2
        assert value["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
        assert {layer["mediaType"] for layer in value["layers"]} == {OCI_LAYER_TAR}
        assert {tuple(layer) for layer in value["layers"]} == {("mediaType", "digest", "size")}
        last = str(Digest.of(METADATA))
        assert value["layers"][-1]["digest"] == last
        assert list(value["annotations"].items()) == [
            ("a", "1"),
            ("dev.modelpack.format", "1"),
            ("dev.modelpack.metadata", last),
            ("org.example.b", "2"),
        ]
        assert manifest.artifact_type is None

    def test_ours_have_the_last_word(self):
        manifest = packed(**{"dev.modelpack.format": "7", "dev.modelpack.metadata": "x"})
        assert manifest.annotations["dev.modelpack.format"] == "1"
        assert is_intact(manifest)


def without(manifest, **changes):
    return replace(manifest, **changes)


class TestIntact:
    def test_what_was_packed(self):
        assert is_packed(packed())
        assert is_intact(packed())

    @pytest.mark.parametrize(
        "changed",
        [
            lambda m: without(m, layers=m.layers[:-1]),
            lambda m: without(m, layers=()),
            lambda m: without(m, layers=(m.layers[-1], *m.layers[:-1])),
            lambda m: without(
                m, layers=(replace(m.layers[0], media_type=OCI_LAYER_TAR_GZIP), *m.layers[1:])
            ),
            lambda m: without(
                m, layers=(*m.layers[:-1], replace(m.layers[-1], media_type=DOCKER_LAYER_TAR))
            ),
            lambda m: without(
                m, layers=(*m.layers[:-1], replace(m.layers[-1], digest=fake_digest("other")))
            ),
            lambda m: without(m, annotations={"dev.modelpack.format": "1"}),
        ],
        ids=["one-less", "none", "other-order", "gzip", "docker", "other-digest", "unannotated"],
    )
    def test_what_a_copier_changed(self, changed):
        manifest = changed(packed())
        assert is_packed(manifest)
        assert not is_intact(manifest)

    def test_other_images(self):
        assert not is_packed(Manifest.build(config=LAYERS[0], layers=LAYERS))


class TestLoading:
    def test_what_was_packed(self):
        manifest = packed()
        artifact = load_artifact(Blobs(METADATA), manifest)
        assert artifact.index == INDEX
        assert artifact.metadata["model.json"] == b"{}"
        assert list(artifact.data_layers) == LAYERS
        assert artifact.fetched_bytes == len(manifest.raw) + len(METADATA)

    def test_files_that_are_not_known_are_kept(self):
        raw = build_metadata_layer({"chunks.bin": encode_index(INDEX), "from.the.future": b"x"})
        artifact = load_artifact(Blobs(raw), packed(raw))
        assert artifact.metadata["from.the.future"] == b"x"

    @pytest.mark.parametrize("version", ["2", "0", "1.0", "", "v1", "1" * 100, None])
    def test_another_version(self, version):
        manifest = packed()
        kept = {k: v for k, v in manifest.annotations.items() if k != "dev.modelpack.format"}
        if version is not None:
            kept["dev.modelpack.format"] = version
        with pytest.raises(
            FormatError, match=r"has format version .* reads 1: update it"
        ) as caught:
            load_artifact(Blobs(METADATA), without(manifest, annotations=kept))
        assert len(str(caught.value)) < 250

    def test_an_index_of_other_layers(self):
        for layers in (LAYERS[:1], LAYERS[::-1], [*LAYERS, LAYERS[0]]):
            with pytest.raises(FormatError, match="its chunk index describes other layers"):
                load_artifact(Blobs(METADATA), packed(layers=layers))
        longer = replace(LAYERS[0], size=LAYERS[0].size + 512)
        with pytest.raises(FormatError, match="describes other layers"):
            load_artifact(Blobs(METADATA), packed(layers=[longer, *LAYERS[1:]]))

    @pytest.mark.parametrize(
        ("raw", "said"),
        [
            (build_metadata_layer({"model.json": b"{}"}), "has no chunk index"),
            (build_metadata_layer({"chunks.bin": b"nonsense"}), "shorter than its fixed part"),
            (b"no tar", "not in its one canonical form"),
            (METADATA + bytes(512), "goes on after its end"),
        ],
        ids=["no-index", "bad-index", "no-tar", "longer"],
    )
    def test_a_bad_metadata_layer(self, raw, said):
        with pytest.raises(FormatError, match=said):
            load_artifact(Blobs(raw), packed(raw))

    def test_bytes_of_another_digest(self):
        manifest = packed()
        blobs = Blobs(METADATA)
        blobs.blobs[manifest.layers[-1].digest] = METADATA[:-1] + b"x"
        with pytest.raises(IntegrityError, match="expected sha256"):
            load_artifact(blobs, manifest)


class TestCompanion:
    def test_over_the_same_blobs(self):
        manifest, config = build_companion(INDEX, ModelFacts())
        assert manifest.artifact_type == "application/vnd.cncf.model.manifest.v1+json"
        assert manifest.config.digest == Digest.of(config)
        assert manifest.subject is None
        assert [(layer.digest, layer.size) for layer in manifest.layers] == [
            (layer.digest, layer.size) for layer in INDEX.layers
        ]
        assert [layer.media_type for layer in manifest.layers] == [
            "application/vnd.cncf.model.weight.v1.tar",
            "application/vnd.cncf.model.weight.config.v1.tar",
        ]
        assert [layer.annotations for layer in manifest.layers] == [
            {"org.cncf.model.filepath": "model.safetensors"},
            {"org.cncf.model.filepath": "."},
        ]
        assert json.loads(config) == {
            "descriptor": {"name": "model"},
            "config": {},
            "modelfs": {
                "type": "layers",
                "diffIds": [str(layer.digest) for layer in INDEX.layers],
            },
        }

    def test_what_is_known(self):
        facts = ModelFacts(
            name="Some-8B",
            model_type="llama",
            licenses=("apache-2.0",),
            datasets=("https://example.com/d", "org/name"),
            attention_heads=32,
            formats=("safetensors",),
            parameters=8_030_261_248,
            precision="bfloat16",
            quantization="gptq-4bit",
            languages=("en", "de", "eng", "EN"),
        )
        assert json.loads(build_companion(INDEX, facts)[1]) | {"modelfs": None} == {
            "descriptor": {
                "name": "Some-8B",
                "family": "llama",
                "licenses": ["apache-2.0"],
                "datasetsURL": ["https://example.com/d"],
            },
            "config": {
                "architecture": "transformer",
                "format": "safetensors",
                "paramSize": "8b",
                "precision": "bfloat16",
                "quantization": "gptq-4bit",
                "capabilities": {"languages": ["en", "de"]},
            },
            "modelfs": None,
        }

    @pytest.mark.parametrize(
        ("parameters", "expected"),
        [
            (None, None),
            (0, None),
            (999, None),
            (1000, "1k"),
            (22_713_216, "22.7m"),
            (494_032_768, "494m"),
            (8_030_261_248, "8b"),
            (70_553_706_496, "70.6b"),
            (1_026_000_000_000, "1t"),
        ],
    )
    def test_the_size(self, parameters, expected):
        config = json.loads(build_companion(INDEX, ModelFacts(parameters=parameters))[1])
        assert config["config"].get("paramSize") == expected

    @pytest.mark.parametrize(
        ("paths", "kind"),
        [
            (["a.json"], "weight.config"),
            (["a.json", "b.json"], "weight.config"),
            (["a.md", "LICENSE"], "doc"),
            (["a.py", "b/c.sh"], "code"),
            (["a.parquet"], "dataset"),
            (["a.md", "a.json"], "weight.config"),
            (["a.md", "a.py"], "weight.config"),
            (["a.md", "a.gguf"], "weight"),
        ],
    )
    def test_what_a_layer_is(self, paths, kind):
        index = make_index([(path, [1]) for path in paths])
        (layer,) = build_companion(index, ModelFacts())[0].layers
        assert layer.media_type == f"application/vnd.cncf.model.{kind}.v1.tar"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("model-00001-of-00002.safetensors", "weight"),
        ("sub/MODEL.GGUF", "weight"),
        ("pytorch_model.bin", "weight"),
        ("model.onnx", "weight"),
        ("README.md", "doc"),
        ("LICENSE", "doc"),
        ("license.txt", "doc"),
        ("docs/picture.png", "doc"),
        ("modeling.py", "code"),
        ("readme.py", "code"),
        ("data/train.parquet", "dataset"),
        ("config.json", "weight.config"),
        ("merges.txt", "weight.config"),
        ("tokenizer.model", "weight.config"),
        ("noextension", "weight.config"),
        ("safetensors", "weight.config"),
    ],
)
def test_what_a_file_is(path, kind):
    assert file_kind(path) == kind
