"""Against the real cosign: keys, bundles, attestations and the older signature, both ways."""

import base64
import json

import httpx
import pytest

from modelpack.digest import Digest
from modelpack.signing import dsse, simplesigning, statement
from modelpack.signing.bundle import MEDIA_TYPE, key_bundle, parse_bundle
from modelpack.signing.keys import PrivateKey, PublicKey, write_key_pair
from modelpack.signing.names import signature_tag
from modelpack.signing.statement import Statement
from modelpack.signing.verify import KeySigner, verify_bundle, verify_simple
from tests.support import programs

pytestmark = pytest.mark.real("cosign")

PASSWORD = "correct horse"
MANIFEST = b'{"schemaVersion":2}'
DIGEST = Digest.of(MANIFEST)
KINDS = ("ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa-3072")
OFFLINE = ("--insecure-ignore-tlog=true", "--new-bundle-format=true")


def cosign(*args, check=True, **options):
    env = {"COSIGN_PASSWORD": PASSWORD}
    return programs.run("cosign", *args, check=check, env=env, **options)


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(MANIFEST)
    return path


def key_pair(directory, kind="ecdsa-p256"):
    key = PrivateKey.generate(kind)
    private, public = directory / f"{kind}.key", directory / f"{kind}.pub"
    write_key_pair(key, private, public, PASSWORD.encode())
    return key, private, public


def bundle_file(directory, raw):
    path = directory / "bundle.json"
    path.write_bytes(raw)
    return path


def cosign_accepts(bundle, public, manifest, predicate_type):
    done = cosign(
        *("verify-blob-attestation", "--key", public, "--bundle", bundle),
        *("--type", predicate_type, *OFFLINE, manifest),
        check=False,
    )
    return done.returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_cosign_opens_our_key(tmp_path, kind):
    key, private, _ = key_pair(tmp_path, kind)
    shown = cosign("public-key", "--key", private).stdout
    assert PublicKey.from_pem(shown.encode()) == key.public_key


def test_we_open_cosigns_key(tmp_path):
    cosign("generate-key-pair", cwd=tmp_path)
    key = PrivateKey.from_pem((tmp_path / "cosign.key").read_bytes(), PASSWORD.encode())
    assert key.public_key == PublicKey.from_pem((tmp_path / "cosign.pub").read_bytes())
    assert key.public_key.kind == "ecdsa-p256"


@pytest.mark.parametrize("kind", KINDS)
def test_cosign_verifies_ours_and_nothing_changed(tmp_path, manifest, kind):
    key, _, public = key_pair(tmp_path, kind)
    envelope = dsse.sign(statement.signature_statement(DIGEST), key)
    raw = key_bundle(envelope, key.public_key.cosign_hint)
    assert cosign_accepts(bundle_file(tmp_path, raw), public, manifest, statement.COSIGN_SIGN)

    other = dsse.sign(statement.signature_statement(Digest.of(b"other")), key)
    raw = key_bundle(other, key.public_key.cosign_hint)
    assert not cosign_accepts(bundle_file(tmp_path, raw), public, manifest, statement.COSIGN_SIGN)


def test_one_changed_byte_is_refused_by_both(tmp_path, manifest):
    key, _, public = key_pair(tmp_path)
    envelope = dsse.sign(statement.signature_statement(DIGEST), key)
    raw = key_bundle(envelope, key.public_key.cosign_hint)
    signer = KeySigner(name="team", key=key.public_key)
    payload = raw.index(b'"payload"') + 20
    signature = raw.index(b'"sig"') + 20
    for position in (3, 20, payload, raw.index(b'"payloadType"') + 20, signature, len(raw) - 1):
        changed = bytearray(raw)
        changed[position] ^= 1
        path = bundle_file(tmp_path, bytes(changed))
        assert not cosign_accepts(path, public, manifest, statement.COSIGN_SIGN), position
        assert not verify_bundle(bytes(changed), subject=DIGEST, signers=[signer]).ok, position


@pytest.mark.parametrize(
    ("name", "predicate_type", "predicate"),
    [
        ("cyclonedx", statement.CYCLONEDX, {"bomFormat": "CycloneDX", "specVersion": "1.6"}),
        ("spdxjson", statement.SPDX, {"spdxVersion": "SPDX-2.3"}),
        ("slsaprovenance1", statement.SLSA_PROVENANCE, {"buildDefinition": {}, "runDetails": {}}),
    ],
)
def test_attestations_both_ways(tmp_path, manifest, name, predicate_type, predicate):
    key, private, public = key_pair(tmp_path)
    signer = KeySigner(name="team", key=key.public_key)
    # Ours, there.
    ours = dsse.sign(statement.attestation(DIGEST, predicate_type, predicate, name="m"), key)
    path = bundle_file(tmp_path, key_bundle(ours, key.public_key.cosign_hint))
    assert cosign_accepts(path, public, manifest, name)
    # Theirs, here.
    body = tmp_path / "predicate.json"
    body.write_text(json.dumps(predicate))
    theirs = tmp_path / "theirs.json"
    cosign(
        *("attest-blob", "--key", private, "--type", name, "--predicate", body),
        *("--bundle", theirs, "--new-bundle-format=true", "--use-signing-config=false"),
        *("--tlog-upload=false", "-y", manifest),
    )
    verdict = verify_bundle(theirs.read_bytes(), subject=DIGEST, signers=[signer])
    assert verdict.ok, verdict.detail
    assert (verdict.kind, verdict.predicate_type) == ("attestation", predicate_type)
    assert verdict.predicate.items() >= predicate.items()


class Registry:
    """The few requests that put an image and what belongs to it into a registry."""

    def __init__(self, host, http):
        self.host = host
        self.http = http

    def blob(self, repository, data):
        digest = str(Digest.of(data))
        location = self.http.post(f"/v2/{repository}/blobs/uploads/").headers["location"]
        url = httpx.URL(location).copy_merge_params({"digest": digest})
        self.http.put(url, content=data).raise_for_status()
        return digest

    def manifest(self, repository, value, reference=None):
        raw = json.dumps(value).encode()
        self.http.put(
            f"/v2/{repository}/manifests/{reference or Digest.of(raw)}",
            content=raw,
            headers={"content-type": value["mediaType"]},
        ).raise_for_status()
        return {"mediaType": value["mediaType"], "digest": str(Digest.of(raw)), "size": len(raw)}

    def get(self, repository, kind, reference):
        accept = (
            "application/vnd.oci.image.manifest.v1+json,application/vnd.oci.image.index.v1+json"
        )
        return self.http.get(
            f"/v2/{repository}/{kind}/{reference}", headers={"accept": accept}
        ).raise_for_status()

    def image(self, repository, layers=(), config=b"{}", **members):
        value = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.blob(repository, config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": media_type,
                    "digest": self.blob(repository, data),
                    "size": len(data),
                    "annotations": annotations,
                }
                for media_type, data, annotations in layers
            ],
        }
        return value | members

    def referrer(self, repository, subject, raw, predicate_type):
        """Attach a bundle as cosign does, with the tag that stands in for the referrers API."""
        value = self.image(
            repository,
            [(MEDIA_TYPE, raw, {})],
            artifactType=MEDIA_TYPE,
            subject=subject,
            annotations={
                "dev.sigstore.bundle.content": "dsse-envelope",
                "dev.sigstore.bundle.predicateType": predicate_type,
                "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
            },
        )
        value["config"]["mediaType"] = "application/vnd.oci.empty.v1+json"
        entry = self.manifest(repository, value) | {"artifactType": MEDIA_TYPE}
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry | {"annotations": value["annotations"]}],
        }
        self.manifest(repository, index, subject["digest"].replace(":", "-"))

    def bundles(self, repository, digest):
        index = self.get(repository, "manifests", str(digest).replace(":", "-")).json()
        for entry in index["manifests"]:
            layers = self.get(repository, "manifests", entry["digest"]).json()["layers"]
            yield self.get(repository, "blobs", layers[0]["digest"]).content


@pytest.fixture
def registry(docker_registry):
    with httpx.Client(base_url=docker_registry.url) as http:
        yield Registry(docker_registry.host, http)


def pushed(registry, repository):
    layer = ("application/vnd.oci.image.layer.v1.tar", repository.encode(), {})
    subject = registry.manifest(repository, registry.image(repository, [layer]), "v1")
    digest = Digest.parse(subject["digest"])
    return subject, digest, f"{registry.host}/{repository}@{digest}"


VERIFY = ("--insecure-ignore-tlog=true", "--allow-http-registry")


@pytest.mark.real("docker-registry")
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_in_a_registry_both_ways(tmp_path, registry, kind):
    key, private, public = key_pair(tmp_path, kind)
    repository = f"cosign/{kind}"
    subject, digest, reference = pushed(registry, repository)
    # Ours, there.
    envelope = dsse.sign(statement.signature_statement(digest), key)
    raw = key_bundle(envelope, key.public_key.cosign_hint)
    registry.referrer(repository, subject, raw, statement.COSIGN_SIGN)
    verify = ("verify", "--key", public, *VERIFY, "--new-bundle-format=true", reference)
    assert cosign(*verify, check=False).returncode == 0
    stranger = tmp_path / "stranger.pub"
    stranger.write_bytes(PrivateKey.generate(kind).public_key.pem)
    assert cosign(*verify[:2], stranger, *verify[3:], check=False).returncode != 0
    # Theirs, here.
    repository += "/theirs"
    _, digest, reference = pushed(registry, repository)
    cosign(
        *("sign", "--key", private, "--tlog-upload=false", "--use-signing-config=false"),
        *("--new-bundle-format=true", "--allow-http-registry", "-y", reference),
    )
    [theirs] = registry.bundles(repository, digest)
    signer = KeySigner(name="team", key=key.public_key)
    verdict = verify_bundle(theirs, subject=digest, signers=[signer])
    assert (verdict.ok, verdict.kind) == (True, "signature"), verdict.detail
    # The statement is the one that we write, and names the key as we do.
    mine = Statement.parse(statement.signature_statement(digest))
    assert Statement.parse(parse_bundle(theirs).envelope.payload) == mine
    assert parse_bundle(theirs).hint == key.public_key.cosign_hint


@pytest.mark.real("docker-registry")
@pytest.mark.parametrize(
    ("name", "predicate_type"),
    [
        ("cyclonedx", statement.CYCLONEDX),
        ("spdxjson", statement.SPDX),
        ("slsaprovenance1", statement.SLSA_PROVENANCE),
    ],
)
def test_cosign_verifies_our_attestations_of_an_image(tmp_path, registry, name, predicate_type):
    key, _, public = key_pair(tmp_path)
    repository = f"cosign/attested-{name}"
    subject, digest, reference = pushed(registry, repository)
    statement_bytes = statement.attestation(digest, predicate_type, {"a": 1}, name=repository)
    raw = key_bundle(dsse.sign(statement_bytes, key), key.public_key.cosign_hint)
    registry.referrer(repository, subject, raw, predicate_type)
    for wanted, accepted in ((name, True), ("vuln", False)):
        done = cosign(
            *("verify-attestation", "--key", public, "--type", wanted, *VERIFY),
            *("--new-bundle-format=true", reference),
            check=False,
        )
        assert (done.returncode == 0) is accepted, done.stderr


@pytest.mark.real("docker-registry")
def test_an_sbom_passes_for_a_signature_there_and_not_here(tmp_path, registry):
    key, _, public = key_pair(tmp_path)
    subject, digest, reference = pushed(registry, "cosign/replay")
    envelope = dsse.sign(statement.attestation(digest, statement.CYCLONEDX, {}), key)
    raw = key_bundle(envelope, key.public_key.cosign_hint)
    registry.referrer("cosign/replay", subject, raw, statement.CYCLONEDX)
    verify = ("verify", "--key", public, *VERIFY, "--new-bundle-format=true", reference)
    assert cosign(*verify, check=False).returncode == 0
    signer = KeySigner(name="team", key=key.public_key)
    assert verify_bundle(raw, subject=digest, signers=[signer]).kind == "attestation"


def attach_simple(registry, repository, digest, key):
    """Put our older signature where cosign and Podman look for it."""
    signed = simplesigning.sign(f"{registry.host}/{repository}", digest, key)
    layer = (
        simplesigning.LAYER_TYPE,
        signed.payload,
        {simplesigning.SIGNATURE_ANNOTATION: signed.annotation},
    )
    config = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(signed.payload))]},
    }
    value = registry.image(repository, [layer], json.dumps(config).encode())
    registry.manifest(repository, value, signature_tag(digest))


@pytest.mark.real("docker-registry")
@pytest.mark.parametrize("kind", ["ecdsa-p256", "ed25519", "rsa-3072"])
def test_the_older_signature_both_ways(tmp_path, registry, kind):
    key, private, public = key_pair(tmp_path, kind)
    repository = f"cosign/legacy-{kind}"
    _, digest, reference = pushed(registry, repository)
    # Ours, there.
    attach_simple(registry, repository, digest, key)
    verify = ("verify", "--key", public, *VERIFY, "--new-bundle-format=false", reference)
    done = cosign(*verify, check=False)
    assert done.returncode == 0, done.stderr
    # Theirs, here.
    repository += "/theirs"
    _, digest, reference = pushed(registry, repository)
    cosign(
        *("sign", "--key", private, "--tlog-upload=false", "--use-signing-config=false"),
        *("--new-bundle-format=false", "--allow-http-registry", "-y", reference),
    )
    tag = signature_tag(digest)
    layer = registry.get(repository, "manifests", tag).json()["layers"][0]
    theirs = simplesigning.SimpleSignature(
        payload=registry.get(repository, "blobs", layer["digest"]).content,
        signature=simplesigning.parse_annotation(
            layer["annotations"][simplesigning.SIGNATURE_ANNOTATION]
        ),
    )
    verdict = verify_simple(
        theirs,
        subject=digest,
        repository=f"{registry.host}/{repository}",
        signers=[KeySigner(name="team", key=key.public_key)],
    )
    assert verdict.ok, verdict.detail
    assert layer["mediaType"] == simplesigning.LAYER_TYPE
    assert base64.b64decode(theirs.annotation) == theirs.signature


@pytest.mark.real("docker-registry", "skopeo")
def test_a_containers_policy_takes_the_older_signature(tmp_path, registry):
    """What Podman, skopeo and CRI-O verify by ``policy.json``."""
    key, _, public = key_pair(tmp_path)
    repository = "cosign/policy-json"
    _, digest, reference = pushed(registry, repository)
    settings = tmp_path / "registries.d"
    settings.mkdir()
    (settings / "all.yaml").write_text("default-docker: {use-sigstore-attachments: true}")
    policy = tmp_path / "policy.json"

    def copies(public_key):
        wanted = {
            "type": "sigstoreSigned",
            "keyPath": str(public_key),
            "signedIdentity": {"type": "matchRepository"},
        }
        policy.write_text(json.dumps({"default": [wanted]}))
        return programs.run(
            *("skopeo", "--policy", policy, "--registries.d", settings, "copy"),
            *("--src-tls-verify=false", f"docker://{reference}", f"dir:{tmp_path / 'copy'}"),
            check=False,
        )

    assert "no signature exists" in copies(public).stderr
    attach_simple(registry, repository, digest, key)
    done = copies(public)
    assert done.returncode == 0, done.stderr
    stranger = tmp_path / "stranger.pub"
    stranger.write_bytes(PrivateKey.generate().public_key.pem)
    assert copies(stranger).returncode != 0
