"""ModelPack both ways: the companion keeps the specification's rules, and other tools' artifacts pull.

The rules are those of the CNCF model-spec (manifest, configuration, layer media types, annotation
keys), written down here once more; what its tools do with a layer was read in their source.
"""

import io
import json
import re
import tarfile

import httpx
import jsonschema
import pytest

import modelpack
from modelpack.errors import FormatError
from tests.support import programs
from tests.support.command import Command
from tests.support.models import CHUNK, one_shard, random_bytes, read_tree, write_files
from tests.support.samplemodel import build_sample, digests_of

pytestmark = [pytest.mark.real("docker-registry")]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MODEL_MANIFEST = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
FILEPATH = "org.cncf.model.filepath"
FILE_METADATA = "org.cncf.model.file.metadata+json"
LAYER_TYPE = re.compile(
    r"application/vnd\.cncf\.model\.(weight|weight\.config|doc|code|dataset)\.v1\.(raw|tar(\+gzip|\+zstd)?)"
)

BOOLEAN = {"type": "boolean"}
TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
MODALITIES = {
    "type": "array",
    "items": {"enum": ["text", "image", "audio", "video", "embedding", "other"]},
}
DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}


def closed(properties: dict, required: tuple[str, ...] = ()) -> dict:
    """Return the schema of an object without other members than these."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


# The JSON Schema leaves descriptor.name to the writer; model-spec's own validator asks for it.
DESCRIPTOR = closed(
    {
        **dict.fromkeys(("family", "docURL", "sourceURL", "version", "revision"), TEXT),
        **dict.fromkeys(("vendor", "title", "description"), TEXT),
        **dict.fromkeys(("authors", "licenses", "datasetsURL"), TEXTS),
        "name": {"type": "string", "minLength": 1},
        "createdAt": {"type": "string", "format": "date-time"},
    },
    required=("name",),
)
CAPABILITIES = closed(
    {
        **dict.fromkeys(("inputTypes", "outputTypes"), MODALITIES),
        **dict.fromkeys(("reasoning", "toolUsage", "reward"), BOOLEAN),
        "knowledgeCutoff": {"type": "string", "format": "date-time"},
        "languages": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2}$"}},
    }
)
CONFIG = closed(
    {
        "descriptor": DESCRIPTOR,
        "config": closed(
            {
                **dict.fromkeys(("architecture", "format", "precision", "quantization"), TEXT),
                "paramSize": {"type": "string", "pattern": r"^[0-9]+(\.[0-9])?[KkMmBbTtQq]$"},
                "capabilities": CAPABILITIES,
            }
        ),
        "modelfs": closed(
            {
                "type": {"const": "layers"},
                "diffIds": {"type": "array", "items": DIGEST, "minItems": 1},
            },
            required=("type", "diffIds"),
        ),
    },
    required=("descriptor", "config", "modelfs"),
)

SHARD = one_shard([0], size=CHUNK)
# One model without any facts, one with a model card, one that needs layers of several files.
MODELS = {
    "bare": lambda root: write_files(
        root, {"weights.bin": random_bytes(CHUNK), "a/b/c.json": b"{}"}
    ),
    "card": build_sample,
    "shards": lambda root: write_files(
        root,
        {f"w/{number:03}.safetensors": SHARD for number in range(110)},
    ),
}


def get(registry, repository: str, what: str) -> bytes:
    """Return a manifest or blob as the registry has it."""
    url = f"{registry.url}/v2/{repository}/{what}"
    return httpx.get(url, headers={"Accept": OCI_MANIFEST}).raise_for_status().content


@pytest.mark.parametrize("kind", MODELS)
def test_the_companion_keeps_the_rules(docker_registry, tmp_path, kind):
    repository = f"modelpack/{kind}"
    model = MODELS[kind](tmp_path / "model")
    modelpack.push(model, f"{docker_registry.host}/{repository}:v1")
    image = json.loads(get(docker_registry, repository, "manifests/v1"))
    manifest = json.loads(get(docker_registry, repository, "manifests/v1-modelpack"))
    assert manifest["mediaType"] == OCI_MANIFEST
    assert manifest["artifactType"] == MODEL_MANIFEST
    assert manifest["config"]["mediaType"] == MODEL_CONFIG
    assert "subject" not in manifest
    layers = manifest["layers"]
    assert [layer["digest"] for layer in layers] == [x["digest"] for x in image["layers"][:-1]]
    assert all(LAYER_TYPE.fullmatch(layer["mediaType"]) for layer in layers)

    config = json.loads(get(docker_registry, repository, f"blobs/{manifest['config']['digest']}"))
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(CONFIG, format_checker=checker).validate(config)
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in layers]

    for layer in layers:
        with tar_of(docker_registry, layer["digest"]) as archive:
            names = [entry.name for entry in archive if entry.isfile()]
        path = layer["annotations"][FILEPATH]
        assert path == (names[0] if len(names) == 1 else ".")


def tar_of(registry, digest: str) -> tarfile.TarFile:
    """Open a layer as a tar, where the registry keeps it."""
    return tarfile.open(registry.blob_path(digest))


def test_the_companion_says_what_the_model_card_says(docker_registry, tmp_path):
    repository = "modelpack/said"
    modelpack.push(build_sample(tmp_path / "model"), f"{docker_registry.host}/{repository}:v1")
    manifest = json.loads(get(docker_registry, repository, "manifests/v1-modelpack"))
    config = json.loads(get(docker_registry, repository, f"blobs/{manifest['config']['digest']}"))
    assert config["descriptor"]["family"] == "llama"
    # SPDX identifiers are the same in any case.
    assert [text.lower() for text in config["descriptor"]["licenses"]] == ["apache-2.0"]
    assert config["config"]["architecture"] == "transformer"
    assert config["config"]["precision"] == "bfloat16"
    assert config["config"]["capabilities"] == {"languages": ["en", "de"]}


def test_files_land_where_they_belong_when_modctl_unpacks(docker_registry, tmp_path):
    """As modctl does it: each entry goes below the output by its own name, no matter what else."""
    repository = "modelpack/unpacked"
    model = build_sample(tmp_path / "model")
    modelpack.push(model, f"{docker_registry.host}/{repository}:v1")
    manifest = json.loads(get(docker_registry, repository, "manifests/v1-modelpack"))
    out = tmp_path / "out"
    out.mkdir()
    for layer in manifest["layers"]:
        with tar_of(docker_registry, layer["digest"]) as archive:
            for entry in archive:
                assert ".." not in entry.name
                target = out / entry.name
                if entry.isdir():
                    target.mkdir(exist_ok=True)
                else:
                    # Its first versions make no directory that has no entry before its files.
                    target.write_bytes(archive.extractfile(entry).read())
                    target.chmod(entry.mode)
    assert digests_of(out) == digests_of(model)


def test_our_own_companion_pulls_too(docker_registry, tmp_path):
    model = build_sample(tmp_path / "model")
    pushed = modelpack.push(model, f"{docker_registry.host}/modelpack/own:v1")
    pulled = modelpack.pull(pushed.companion, tmp_path / "out")
    assert pulled.verified == "layers"
    assert digests_of(tmp_path / "out") == digests_of(model)


def write_tar(path, files: dict[str, bytes]):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


@pytest.mark.root
@pytest.mark.real("oras")
def test_an_artifact_as_modctl_makes_them_is_pulled(docker_registry, tmp_path):
    work = write_files(
        tmp_path / "work",
        {
            "0": one_shard(range(4)),
            "1": b"#!/bin/sh\n",
            "config": json.dumps(
                {
                    "descriptor": {"name": "other"},
                    "config": {},
                    "modelfs": {"type": "layers", "diffIds": [f"sha256:{'0' * 64}"]},
                }
            ).encode(),
        },
    )
    write_tar(work / "2", {"tokenizer/vocab.txt": b"a\n"})
    annotations = {
        "0": {FILEPATH: "weights/model.safetensors"},
        "1": {FILEPATH: "run.sh", FILE_METADATA: '{"name":"run.sh","mode":493,"typeflag":0}'},
        "2": {FILEPATH: "tokenizer/vocab.txt"},
    }
    (work / "annotations.json").write_text(json.dumps(annotations))
    prefix = "application/vnd.cncf.model"
    reference = f"{docker_registry.host}/modelpack/modctl:v1"
    programs.run(
        "oras", "push", "--plain-http", f"--artifact-type={MODEL_MANIFEST}",
        f"--config=config:{MODEL_CONFIG}", "--annotation-file=annotations.json", reference,
        f"0:{prefix}.weight.v1.raw", f"1:{prefix}.code.v1.raw",
        f"2:{prefix}.weight.config.v1.tar", cwd=work,
    )  # fmt: skip
    pulled = Command(tmp_path / "home").json("pull", reference, tmp_path / "out")
    assert (pulled["verified"], pulled["files"], pulled["warnings"]) == ("layers", 3, [])
    assert read_tree(tmp_path / "out") == {
        "weights/model.safetensors": (0o644, (work / "0").read_bytes()),
        "run.sh": (0o755, b"#!/bin/sh\n"),
        "tokenizer/vocab.txt": (0o644, b"a\n"),
    }
    again = modelpack.pull(reference, tmp_path / "out")
    assert again.digest == pulled["digest"]


@pytest.mark.root
@pytest.mark.real("oras")
@pytest.mark.parametrize("options", [(), ("--image-spec=v1.0",)], ids=["artifact", "older"])
def test_files_and_directories_that_oras_pushed_are_pulled(docker_registry, tmp_path, options):
    work = write_files(
        tmp_path / "work",
        {
            "model.gguf": random_bytes(CHUNK + 1),
            "config.json": b"{}",
            "tokenizer/vocab.txt": b"a\n",
            "tokenizer/build.sh": b"#!/bin/sh\n",
        },
    )
    (work / "tokenizer/build.sh").chmod(0o755)
    reference = f"{docker_registry.host}/modelpack/oras{len(options)}:v1"
    programs.run(
        "oras", "push", "--plain-http", *options, reference,
        "model.gguf", "config.json:application/json", "tokenizer", cwd=work,
    )  # fmt: skip
    pulled = modelpack.pull(reference, tmp_path / "out")
    assert (pulled.verified, pulled.files) == ("layers", 4)
    assert digests_of(tmp_path / "out") == digests_of(work)


@pytest.mark.root
@pytest.mark.real("oras")
def test_what_is_no_model_is_refused_by_name(docker_registry, tmp_path):
    work = write_files(tmp_path / "work", {"blob": b"x", "annotations.json": b'{"blob":{}}'})
    reference = f"{docker_registry.host}/modelpack/unknown:v1"
    programs.run(
        "oras", "push", "--plain-http", "--disable-path-validation", reference,
        f"{work / 'blob'}:application/x-something",
    )  # fmt: skip
    with pytest.raises(FormatError, match="absolute"):
        modelpack.pull(reference, tmp_path / "out")
    assert not (tmp_path / "out").exists() or read_tree(tmp_path / "out") == {}
