"""What somebody who may push, or the registry itself, can try against a gate (docs/trust.md)."""

import pytest

from modelpack.connect import open_repository
from modelpack.content import BlobContent
from modelpack.descriptor import EMPTY_CONFIG, Descriptor
from modelpack.digest import Digest
from modelpack.errors import FormatError, PolicyError
from modelpack.manifest import Manifest
from modelpack.signing.keys import PrivateKey
from modelpack.signing.names import MAX_BUNDLE_BYTES, MEDIA_TYPE, PREDICATE_ANNOTATION
from modelpack.signing.policy import AttestationRule
from modelpack.signing.statement import (
    COSIGN_SIGN,
    CYCLONEDX,
    OMS_SIGNATURE,
    attestation,
    signature_statement,
)
from modelpack.trust.authors import KeyAuthor
from modelpack.trust.gate import TrustGate
from tests.support.faultregistry import FaultRegistry, Features
from tests.unit.trust.gatework import (
    attach,
    bundle_of,
    manifest_at,
    policy,
    pull,
    push,
    refused,
    sign,
    weight_bytes,
)


def test_a_refused_pull_fetches_no_weight_and_makes_no_directory(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    pushed = push(model, reference)
    sign(reference, KeyAuthor(name="other", key=PrivateKey.generate()))
    message = refused(reference, tmp_path / "out", policy(), "signers", "0 of 1", "not by team.pub")
    assert pushed.digest in message
    assert weight_bytes(registry, pushed) == 0
    assert not (tmp_path / "out").exists()
    sign(reference)
    assert pull(reference, tmp_path / "out", policy()).files == 2


def test_13_an_sbom_replayed_as_a_signature(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    digest = Digest.parse(push(model, reference).digest)
    # The annotation lies about what is inside; it is not believed.
    attach(reference, bundle_of(attestation(digest, CYCLONEDX, {})), COSIGN_SIGN)
    refused(reference, tmp_path / "out", policy(), "a https://cyclonedx.org/bom attestation")


def test_13_a_statement_about_another_manifest(registry, model, tmp_path):
    first, second = (f"{registry.host}/team/model:{tag}" for tag in ("v1", "v2"))
    push(model, first)
    (model / "config.json").write_bytes(b'{"other": 1}')
    push(model, second)
    signed = Digest.parse(str(manifest_at(first).digest))
    attach(second, bundle_of(signature_statement(signed)))
    refused(second, tmp_path / "out", policy(), "signed, but about another manifest")


def test_13_a_signature_of_files_is_none_of_the_manifest(registry, model, tmp_path):
    """Nor is one that is called a signature over the files."""
    reference = f"{registry.host}/team/model:v1"
    digest = Digest.parse(push(model, reference).digest)
    attach(reference, bundle_of(signature_statement(digest)), OMS_SIGNATURE)
    refused(reference, tmp_path / "out", policy(), "signers")
    sign(reference)
    asked = TrustGate(policy())
    decision = asked.look(reference)
    assert decision.ok
    # The files' own signature is told from the impostor.
    assert [one.ok for one in decision.signatures if one.predicate_type == OMS_SIGNATURE] == [
        False,
        True,
    ]


def test_13_an_unknown_predicate_is_no_consent(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    digest = Digest.parse(push(model, reference).digest)
    attach(reference, bundle_of(attestation(digest, "https://example.com/unknown", {"ok": True})))
    refused(reference, tmp_path / "out", policy(), "https://example.com/unknown attestation")


def test_14_stripped_attestations_are_missed(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    sign(reference)
    wanted = policy(attestations=(AttestationRule(predicate_type=CYCLONEDX),))
    refused(reference, tmp_path / "out", wanted, f"attestation {CYCLONEDX}: 0 of 1")
    sign(reference, attest=("sbom",))
    pull(reference, tmp_path / "out", wanted)


def test_15_bundles_that_cannot_be_read_do_not_hide_the_good_one(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    for raw in (b"{}", b"\xff" * 100, b'{"mediaType":"application/vnd.oci.empty.v1+json"}'):
        attach(reference, raw)
    refused(reference, tmp_path / "out", policy())
    sign(reference)
    decision = TrustGate(policy()).look(reference)
    assert decision.ok
    assert sum(not one.ok for one in decision.signatures) == 3


def test_15_a_huge_bundle_is_not_fetched(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    pushed = push(model, reference)
    manifest = manifest_at(reference)
    size = MAX_BUNDLE_BYTES + 1
    digest = registry.add_sparse_blob(size, lambda _, length: bytes(length), repo="team/model")
    config = Descriptor.of(b"{}", media_type=EMPTY_CONFIG)
    carrier = Manifest.build(
        config=config,
        layers=[Descriptor(media_type=MEDIA_TYPE, digest=Digest.parse(str(digest)), size=size)],
        artifact_type=MEDIA_TYPE,
        subject=manifest.descriptor(),
        annotations={PREDICATE_ANNOTATION: COSIGN_SIGN},
    )
    with open_repository(reference) as repository:
        repository.push_blob(config, BlobContent((b"{}",)))
        repository.push_manifest(carrier)
    refused(reference, tmp_path / "out", policy(), "more than a bundle may have")
    assert registry.bytes_sent(str(digest)) == 0
    sign(reference)
    assert pull(reference, tmp_path / "out", policy()).digest == pushed.digest


def listed_at_tag(registry, digest, entries):
    """Put an index at the tag that stands in for the referrers API, past all checks."""
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries,
    }
    registry.put_manifest("team/model", digest.replace(":", "-"), index)


def entries(number, artifact_type):
    return [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": str(Digest.of(b"%d" % one)),
            "size": 500,
            "artifactType": artifact_type,
        }
        for one in range(number)
    ]


@pytest.mark.parametrize(
    ("number", "error"),
    [pytest.param(10_000, PolicyError, id="10,000"), pytest.param(10_001, FormatError, id="more")],
)
def test_15_a_flood_of_bundles_is_refused_unread(tag_registry, model, tmp_path, number, error):
    reference = f"{tag_registry.host}/team/model:v1"
    pushed = push(model, reference)
    listed_at_tag(tag_registry, pushed.digest, entries(number, MEDIA_TYPE))
    tag_registry.clear_records()
    with pytest.raises(error, match=f"{number}|more than"):
        pull(reference, tmp_path / "out", policy())
    assert len(tag_registry.requests) < 10


def test_15_a_flood_of_other_referrers_is_passed_over(tag_registry, model, tmp_path):
    reference = f"{tag_registry.host}/team/model:v1"
    pushed = push(model, reference)
    sign(reference, files=False)
    mine = tag_registry.manifest("team/model", pushed.digest.replace(":", "-")).json()
    listed_at_tag(
        tag_registry, pushed.digest, entries(9_000, "application/spdx+json") + mine["manifests"]
    )
    tag_registry.clear_records()
    assert pull(reference, tmp_path / "out", policy()).files == 2
    assert len(tag_registry.requests) < 30


def test_14_a_list_that_names_another_manifests_bundle(tag_registry, model, tmp_path):
    """The list proves nothing: a bundle is held to its own subject."""
    first, second = (f"{tag_registry.host}/team/model:{tag}" for tag in ("v1", "v2"))
    signed = push(model, first)
    sign(first, files=False)
    (model / "config.json").write_bytes(b'{"other": 1}')
    other = push(model, second)
    mine = tag_registry.manifest("team/model", signed.digest.replace(":", "-")).json()
    listed_at_tag(tag_registry, other.digest, mine["manifests"])
    refused(second, tmp_path / "out", policy(), "its subject is another manifest")


@pytest.mark.parametrize("page_size", [None, 1000], ids=["one answer", "pages"])
def test_15_a_flood_by_the_referrers_api(model, tmp_path, page_size):
    with FaultRegistry(features=Features(page_size=page_size)) as flooded:
        reference = f"{flooded.host}/team/model:v1"
        pushed = push(model, reference)
        manifest = manifest_at(reference)
        carrier = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": MEDIA_TYPE,
            "config": {"mediaType": EMPTY_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2},
            "layers": [],
            "subject": manifest.descriptor().to_json(),
        }
        for number in range(10_000):
            flooded.put_manifest("team/model", None, carrier | {"annotations": {"n": str(number)}})
        flooded.clear_records()
        refused(reference, tmp_path / "out", policy(), pushed.digest, "10000")
        assert len(flooded.requests) < 25
        assert not (tmp_path / "out").exists()
