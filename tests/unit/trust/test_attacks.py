"""What somebody who may push, or the registry itself, can try against a gate (docs/trust.md)."""

import json
import pickle
import threading
from datetime import UTC, datetime, timedelta

import pytest

import modelpack
from modelpack.connect import open_repository
from modelpack.content import BlobContent
from modelpack.descriptor import EMPTY_CONFIG, Descriptor
from modelpack.digest import Digest
from modelpack.errors import FormatError, IntegrityError, PolicyError
from modelpack.manifest import Manifest
from modelpack.selection import Selection
from modelpack.signing import simplesigning
from modelpack.signing.bundle import key_bundle
from modelpack.signing.dsse import sign as sign_payload
from modelpack.signing.keys import PrivateKey
from modelpack.signing.names import MAX_BUNDLE_BYTES, MEDIA_TYPE, PREDICATE_ANNOTATION
from modelpack.signing.policy import AttestationRule, FormatRule, Freshness, Policy, Rule
from modelpack.signing.statement import (
    COSIGN_SIGN,
    CYCLONEDX,
    OMS_SIGNATURE,
    attestation,
    signature_statement,
)
from modelpack.signing.verify import KeySigner
from modelpack.trust.attaching import attach_bundle, attach_simple
from modelpack.trust.authors import KeyAuthor
from modelpack.trust.gate import TrustGate
from modelpack.trust.making import SigningOptions, sign_model
from modelpack.trust.policies import LoadedPolicy
from tests.support.faultregistry import FaultRegistry, Features
from tests.support.models import one_shard, write_files

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = PrivateKey.generate()
TEAM = KeySigner(name="team.pub", key=KEY.public_key)
AUTHOR = KeyAuthor(name="team.key", key=KEY)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.fixture(params=["api", "tag"])
def registry(request):
    """With the referrers API, and with the tag that stands in for it."""
    with FaultRegistry(features=Features(referrers=request.param == "api")) as running:
        yield running
        assert running.violations == []


@pytest.fixture
def model(tmp_path):
    return write_files(
        tmp_path / "model",
        {"model.safetensors": one_shard(range(4), size=300_000), "config.json": b"{}"},
    )


def policy(*signers, **members):
    rule = Rule(match="**", signers=signers or (TEAM,), **members)
    return LoadedPolicy(policy=Policy(rules=(rule,)), source="test")


def push(model, reference, **options):
    return modelpack.push(model, reference, **options)


def manifest_at(reference):
    with open_repository(reference) as repository:
        return repository.fetch_manifest(repository.reference.digest or repository.reference.tag)


def sign(reference, author=AUTHOR, **options):
    with open_repository(reference) as repository:
        manifest = repository.fetch_manifest(repository.reference.tag)
        return sign_model(repository, manifest, author, SigningOptions(**options), now=NOW)


def attach(reference, raw, predicate_type=COSIGN_SIGN):
    with open_repository(reference) as repository:
        manifest = repository.fetch_manifest(repository.reference.tag)
        attach_bundle(repository, manifest, raw, predicate_type=predicate_type, created=NOW)


def bundle_of(statement, key=KEY):
    return key_bundle(sign_payload(statement, key), key.public_key.cosign_hint)


def pull(reference, destination, loaded):
    gate = TrustGate(loaded)
    result = modelpack.pull(reference, destination, gate=gate, judge=gate.judge)
    gate.taken()
    return result


def refused(reference, destination, loaded, *words):
    with pytest.raises(PolicyError) as caught:
        pull(reference, destination, loaded)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def weight_bytes(registry, pushed):
    """Return how many bytes of the weights' layer the registry has sent."""
    name = pushed.reference.partition("/")[2].rpartition(":")[0]
    layers = registry.manifest(name, pushed.digest).json()["layers"]
    return registry.bytes_sent(layers[0]["digest"])


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


def test_an_sbom_replayed_as_a_signature(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    digest = Digest.parse(push(model, reference).digest)
    # The annotation lies about what is inside; it is not believed.
    attach(reference, bundle_of(attestation(digest, CYCLONEDX, {})), COSIGN_SIGN)
    refused(reference, tmp_path / "out", policy(), "a https://cyclonedx.org/bom attestation")


def test_a_statement_about_another_manifest(registry, model, tmp_path):
    first, second = (f"{registry.host}/team/model:{tag}" for tag in ("v1", "v2"))
    push(model, first)
    (model / "config.json").write_bytes(b'{"other": 1}')
    push(model, second)
    signed = Digest.parse(str(manifest_at(first).digest))
    attach(second, bundle_of(signature_statement(signed)))
    refused(second, tmp_path / "out", policy(), "signed, but about another manifest")


def test_a_signature_of_files_is_none_of_the_manifest(registry, model, tmp_path):
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


def test_an_unknown_predicate_is_no_consent(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    digest = Digest.parse(push(model, reference).digest)
    attach(reference, bundle_of(attestation(digest, "https://example.com/unknown", {"ok": True})))
    refused(reference, tmp_path / "out", policy(), "https://example.com/unknown attestation")


def test_stripped_attestations_are_missed(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    sign(reference)
    wanted = policy(attestations=(AttestationRule(predicate_type=CYCLONEDX),))
    refused(reference, tmp_path / "out", wanted, f"attestation {CYCLONEDX}: 0 of 1")
    sign(reference, attest=("sbom",))
    pull(reference, tmp_path / "out", wanted)


def test_bundles_that_cannot_be_read_do_not_hide_the_good_one(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    for raw in (b"{}", b"\xff" * 100, b'{"mediaType":"application/vnd.oci.empty.v1+json"}'):
        attach(reference, raw)
    refused(reference, tmp_path / "out", policy())
    sign(reference)
    decision = TrustGate(policy()).look(reference)
    assert decision.ok
    assert sum(not one.ok for one in decision.signatures) == 3


def test_a_huge_bundle_is_not_fetched(registry, model, tmp_path):
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


@pytest.fixture
def tag_registry():
    with FaultRegistry(features=Features(referrers=False)) as running:
        yield running


@pytest.mark.parametrize(
    ("number", "error"),
    [pytest.param(10_000, PolicyError, id="10,000"), pytest.param(10_001, FormatError, id="more")],
)
def test_a_flood_of_bundles_is_refused_unread(tag_registry, model, tmp_path, number, error):
    reference = f"{tag_registry.host}/team/model:v1"
    pushed = push(model, reference)
    listed_at_tag(tag_registry, pushed.digest, entries(number, MEDIA_TYPE))
    tag_registry.clear_records()
    with pytest.raises(error, match=f"{number}|more than"):
        pull(reference, tmp_path / "out", policy())
    assert len(tag_registry.requests) < 10


def test_a_flood_of_other_referrers_is_passed_over(tag_registry, model, tmp_path):
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


def test_a_list_that_names_another_manifests_bundle(tag_registry, model, tmp_path):
    """The list proves nothing: a bundle is held to its own subject."""
    first, second = (f"{tag_registry.host}/team/model:{tag}" for tag in ("v1", "v2"))
    signed = push(model, first)
    sign(first, files=False)
    (model / "config.json").write_bytes(b'{"other": 1}')
    other = push(model, second)
    mine = tag_registry.manifest("team/model", signed.digest.replace(":", "-")).json()
    listed_at_tag(tag_registry, other.digest, mine["manifests"])
    refused(second, tmp_path / "out", policy(), "its subject is another manifest")


def test_a_tag_turned_back_to_an_older_version(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:latest"
    old = push(model, reference)
    sign(reference)
    pull(reference, tmp_path / "out", policy())
    (model / "config.json").write_bytes(b'{"newer": 1}')
    push(model, reference)
    sign(reference)
    pull(reference, tmp_path / "out", policy())
    # Everything about the old one is genuine. Only that it is old has changed.
    name = reference.rpartition(":")[0]
    modelpack.copy(f"{name}@{old.digest}", reference)
    refused(reference, tmp_path / "out", policy(), "freshness.rollback", "has replaced it")
    # Who names the digest has chosen the version, and who allows it has, too.
    assert pull(f"{reference}@{old.digest}", tmp_path / "old", policy()).files == 2
    allowing = policy(freshness=Freshness(rollback="allow"))
    assert pull(reference, tmp_path / "out", allowing).digest == old.digest


def test_a_damaged_record_is_no_empty_one(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:latest"
    push(model, reference)
    sign(reference)
    pull(reference, tmp_path / "out", policy())
    [record] = (tmp_path / "XDG_STATE_HOME").rglob("*.json")
    record.write_text("{}")
    with pytest.raises(FormatError, match=str(record)):
        pull(reference, tmp_path / "out", policy())


def test_an_older_model_is_too_old(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference, annotations={"org.opencontainers.image.created": "2020-01-01T00:00:00Z"})
    sign(reference)
    young = policy(freshness=Freshness(max_age=timedelta(days=30)))
    refused(reference, tmp_path / "out", young, "freshness.max_age")


class Evil:
    def __reduce__(self):
        return print, ("run while loading",)


def test_a_pickle_that_runs_code_is_refused_before_any_weight(registry, model, tmp_path):
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


def test_the_same_signer_under_two_names_counts_once(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    sign(reference)
    sign(reference)
    second = PrivateKey.generate("ed25519")
    other = KeySigner(name="second.pub", key=second.public_key)
    two = policy(TEAM, other, threshold=2)
    refused(reference, tmp_path / "out", two, "1 of 2 needed, by team.pub")
    sign(reference, KeyAuthor(name="second", key=second))
    pull(reference, tmp_path / "out", two)


def test_signing_again_changes_nothing(registry, model):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    first = sign(reference, attest=("sbom", "provenance"))
    assert len(first.attached) == 4
    again = sign(reference, attest=("sbom", "provenance"))
    assert again.attached == ()
    assert len(again.unchanged) == 4


def test_signers_at_once_lose_nothing_in_a_layout(model, tmp_path):
    reference = f"oci:{tmp_path / 'store'}:v1"
    push(model, reference)
    keys = [PrivateKey.generate() for _ in range(4)]
    errors = []

    def work(key):
        try:
            sign(reference, KeyAuthor(name="one", key=key))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    signers = [KeySigner(name=str(one), key=key.public_key) for one, key in enumerate(keys)]
    assert TrustGate(policy(*signers, threshold=4)).look(reference).ok


def test_older_signatures_at_once_lose_nothing(registry, model):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    keys = [PrivateKey.generate() for _ in range(3)]
    errors = []

    def work(key):
        with open_repository(reference) as repository:
            manifest = repository.fetch_manifest("v1")
            signed = simplesigning.sign(f"{registry.host}/team/model", manifest.digest, key)
            try:
                attach_simple(repository, manifest, signed)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    signers = [KeySigner(name=str(one), key=key.public_key) for one, key in enumerate(keys)]
    assert TrustGate(policy(*signers, threshold=3)).look(reference).ok


def test_an_older_signature_copied_from_another_repository(registry, model, tmp_path):
    """Unlike a bundle it names its repository, and holds for that one only."""
    first, second = (f"{registry.host}/{name}:v1" for name in ("team/model", "team/copy"))
    digest = push(model, first).digest
    with open_repository(first) as repository:
        manifest = repository.fetch_manifest("v1")
        signed = simplesigning.sign(f"{registry.host}/team/model", manifest.digest, KEY)
        attach_simple(repository, manifest, signed, sleep=lambda _: None)
    assert TrustGate(policy()).look(first).ok
    modelpack.copy(first, second)
    tag = digest.replace(":", "-") + ".sig"
    modelpack.copy(first.rpartition(":")[0] + ":" + tag, second.rpartition(":")[0] + ":" + tag)
    refused(second, tmp_path / "out", policy(), "signed, but for the repository")


def test_a_signed_model_cannot_stand_in_for_another(registry, model, tmp_path):
    """A bundle says nothing of the name; annotations, which the manifest holds, do."""
    reference = f"{registry.host}/team/other:v1"
    push(model, reference, annotations={"org.opencontainers.image.title": "model"})
    sign(reference)
    wanted = policy(annotations={"org.opencontainers.image.title": "other"})
    refused(reference, tmp_path / "out", wanted, "annotation", "is 'model', not 'other'")


def test_bundles_hold_no_private_part(registry, model):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    result = sign(reference)
    private = KEY.to_pem(None)
    for one in result.attached:
        raw = registry.blob(one.blob)
        assert json.loads(raw)["verificationMaterial"].keys() == {"publicKey"}
        assert private not in raw
