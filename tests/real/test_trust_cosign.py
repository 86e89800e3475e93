"""Signed here and verified by cosign, signed by cosign and verified here, at a real registry.

docker-registry has no referrers API, so the list is at a tag there; a layout has neither.
"""

import hashlib
import json
import threading

import httpx
import pytest

from tests.support.models import one_shard, write_files
from tests.support.trust import OFFLINE, TrustCommand, cosign, cosign_verifies

pytestmark = [pytest.mark.real("cosign", "docker-registry")]

SIGN = (
    *("--tlog-upload=false", "--use-signing-config=false", "--new-bundle-format=true"),
    *("--allow-http-registry", "-y"),
)


@pytest.fixture
def command(tmp_path):
    return TrustCommand(tmp_path)


@pytest.fixture
def model(tmp_path):
    return write_files(
        tmp_path / "model",
        {
            "model.safetensors": one_shard(range(4), size=100_000),
            "config.json": b'{"model_type":"llama","architectures":["LlamaForCausalLM"]}',
            "README.md": b"---\nlicense: mit\nbase_model: example/base\n---\n# A model\n",
        },
    )


@pytest.fixture
def reference(docker_registry, request):
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return f"{docker_registry.host}/trust/{name}:v1"


def pinned(pushed):
    return f"{pushed['reference'].rpartition(':')[0]}@{pushed['digest']}"


@pytest.mark.parametrize("kind", ["ec", "ed25519", "rsa"])
def test_cosign_verifies_what_push_signed(command, model, reference, kind):
    private, public = command.key_pair("team", kind)
    _, other = command.key_pair("other", kind)
    pushed = command.json(
        "push", model, reference, "--sign", "--key", private, "--attest", "sbom,provenance"
    )
    assert len(pushed["signed"]["attached"]) == 4
    target = pinned(pushed)
    assert cosign_verifies(target, public)
    assert not cosign_verifies(target, other)
    assert command.json("verify", reference, "--key", public)["ok"]
    command.fails(6, "verify", reference, "--key", other)
    for name in ("cyclonedx", "slsaprovenance1"):
        done = cosign(
            *("verify-attestation", "--key", public, "--type", name, *OFFLINE),
            *("--new-bundle-format=true", target),
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_an_spdx_document_of_ones_own(command, model, reference, tmp_path):
    private, public = command.key_pair("team")
    target = pinned(command.json("push", model, reference, "--sign", "--key", private))
    document = tmp_path / "sbom.spdx.json"
    document.write_text('{"spdxVersion":"SPDX-2.3"}')
    command.json(
        *("attest", target, "--key", private, "--type", "spdxjson", "--predicate", document)
    )
    cosign(
        *("verify-attestation", "--key", public, "--type", "spdxjson", *OFFLINE),
        *("--new-bundle-format=true", target),
    )
    found = command.json("verify", reference, "--key", public, "--require-attestation", "spdx")
    assert "https://spdx.dev/Document" in [one["predicateType"] for one in found["attestations"]]


def test_we_verify_what_cosign_signed_and_attested(command, model, reference, tmp_path):
    private, public = command.key_pair("team")
    _, other = command.key_pair("other")
    target = pinned(command.json("push", model, reference))
    command.fails(6, "verify", reference, "--key", public)
    cosign("sign", "--key", private, *SIGN, target)
    assert command.json("verify", reference, "--key", public)["ok"]
    message = command.fails(6, "pull", reference, tmp_path / "out", "--key", other)
    assert "other.pub" in message
    assert not (tmp_path / "out").exists()
    predicate = tmp_path / "bom.json"
    predicate.write_text(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6"}))
    cosign(
        *(
            "attest",
            "--key",
            private,
            "--type",
            "cyclonedx",
            "--predicate",
            predicate,
            *SIGN,
            target,
        )
    )
    found = command.json("verify", reference, "--key", public, "--require-attestation", "sbom")
    assert found["ok"]


def test_cosigns_own_key_signs_here(command, model, reference, tmp_path):
    from tests.support import programs

    programs.run(
        "cosign", "generate-key-pair", cwd=tmp_path, env={"COSIGN_PASSWORD": "correct horse"}
    )
    pushed = command.json("push", model, reference, "--sign", "--key", tmp_path / "cosign.key")
    assert cosign_verifies(pinned(pushed), tmp_path / "cosign.pub")


def test_the_older_signature(command, model, reference):
    private, public = command.key_pair("team")
    second, second_public = command.key_pair("second")
    pushed = command.json(
        "push", model, reference, "--sign", "--key", private, "--legacy-sig", "--no-files"
    )
    target = pinned(pushed)
    assert cosign_verifies(target, public, "--new-bundle-format=false")
    command.json("sign", target, "--key", second, "--legacy-sig", "--no-files")
    for key in (public, second_public):
        assert cosign_verifies(target, key, "--new-bundle-format=false")


def test_we_verify_cosigns_older_signature(command, model, reference):
    private, public = command.key_pair("team")
    target = pinned(command.json("push", model, reference))
    older = [option.replace("format=true", "format=false") for option in SIGN]
    cosign("sign", "--key", private, *older, target)
    found = command.json("verify", reference, "--key", public)
    assert [one["ok"] for one in found["signatures"]] == [True]


def test_an_sbom_is_no_signature_here(command, model, reference, tmp_path):
    """Replayed as one it passes with cosign, which does not look at what was signed."""
    private, public = command.key_pair("team")
    target = pinned(command.json("push", model, reference))
    bom = tmp_path / "bom.json"
    bom.write_text("{}")
    command.json("attest", target, "--key", private, "--type", "cyclonedx", "--predicate", bom)
    assert cosign_verifies(target, public)
    message = command.fails(6, "verify", reference, "--key", public)
    assert "attestation" in message


def test_two_signers_at_once_lose_nothing(command, model, reference):
    """On the tag that stands in for the referrers API, which nothing locks."""
    keys = [command.key_pair(f"team{number}") for number in range(3)]
    target = pinned(command.json("push", model, reference))
    failed = []

    def sign(private):
        done = command.run("sign", target, "--key", private, "--attest", "provenance")
        if done.returncode:
            failed.append(done.stderr)

    threads = [threading.Thread(target=sign, args=(private,)) for private, _ in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    options = [option for _, public in keys for option in ("--key", public)]
    found = command.json("verify", reference, *options, "--threshold", "3")
    assert len(found["attestations"]) == 6
    assert all(cosign_verifies(target, public) for _, public in keys)


def test_a_copy_keeps_its_signatures(command, model, reference, docker_registry, tmp_path):
    private, public = command.key_pair("team")
    pushed = command.json("push", model, f"oci:{tmp_path / 'store'}:v1", "--sign", "--key", private)
    assert command.json("verify", f"oci:{tmp_path / 'store'}:v1", "--key", public)["ok"]
    command.json("copy", f"oci:{tmp_path / 'store'}:v1", reference, "--key", public)
    assert cosign_verifies(f"{reference.rpartition(':')[0]}@{pushed['digest']}", public)


def test_a_layout_both_ways(command, model, reference, tmp_path):
    private, public = command.key_pair("team")
    _, other = command.key_pair("other")
    # What cosign signed verifies in a layout.
    target = pinned(command.json("push", model, reference))
    cosign("sign", "--key", private, *SIGN, target)
    theirs = f"oci:{tmp_path / 'theirs'}:v1"
    command.json("copy", reference, theirs)
    assert command.json("verify", theirs, "--key", public)["ok"]
    # What was signed in a layout verifies with cosign, once its index says which image is meant:
    # cosign reads layouts of one image, whose entry it marks.
    layout = tmp_path / "ours"
    pushed = command.json("push", model, f"oci:{layout}:v1", "--sign", "--key", private)
    index = json.loads((layout / "index.json").read_text())
    [entry] = [one for one in index["manifests"] if one["digest"] == pushed["digest"]]
    entry["annotations"] = {"kind": "dev.cosignproject.cosign/image"}
    (layout / "index.json").write_text(json.dumps({**index, "manifests": [entry]}))
    verify = ("--insecure-ignore-tlog=true", "--new-bundle-format=true", "--local-image", layout)
    assert cosign("verify", "--key", public, *verify, check=False).returncode == 0
    assert cosign("verify", "--key", other, *verify, check=False).returncode != 0


@pytest.mark.parametrize("position", [0.01, 0.2, 0.5, 0.8, 0.99])
def test_one_changed_byte_is_refused_by_both(command, model, reference, docker_registry, position):
    private, public = command.key_pair("team")
    pushed = command.json("push", model, reference, "--sign", "--key", private, "--no-files")
    [attached] = pushed["signed"]["attached"]
    target = pinned(pushed)
    assert cosign_verifies(target, public)
    stored = docker_registry.blob_path(attached["bundle"])
    data = bytearray(stored.read_bytes())
    data[int(len(data) * position)] ^= 1
    stored.write_bytes(bytes(data))
    assert not cosign_verifies(target, public)
    command.fails(6, "verify", reference, "--key", public)


def test_stripped_signatures_are_missed(command, model, reference, docker_registry):
    private, public = command.key_pair("team")
    pushed = command.json("push", model, reference, "--sign", "--key", private)
    name = reference.partition("/")[2].rpartition(":")[0]
    listed = pushed["digest"].replace(":", "-")
    empty = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
    }
    httpx.put(
        f"{docker_registry.url}/v2/{name}/manifests/{listed}",
        json=empty,
        headers={"Content-Type": empty["mediaType"]},
    ).raise_for_status()
    assert "nothing is signed" in command.fails(6, "verify", reference, "--key", public)
