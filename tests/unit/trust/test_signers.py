"""Several signers: who counts, and that none is lost."""

import json
import threading

from modelpack.connect import open_repository
from modelpack.signing import simplesigning
from modelpack.signing.keys import PrivateKey
from modelpack.signing.verify import KeySigner
from modelpack.trust.attaching import attach_simple
from modelpack.trust.authors import KeyAuthor
from modelpack.trust.gate import TrustGate
from tests.unit.trust.gatework import (
    KEY,
    TEAM,
    policy,
    pull,
    push,
    refused,
    sign,
)


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


def test_15_signers_at_once_lose_nothing_in_a_layout(model, tmp_path):
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


def test_15_older_signatures_at_once_lose_nothing(registry, model):
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


def test_bundles_hold_no_private_part(registry, model):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    result = sign(reference)
    private = KEY.to_pem(None)
    for one in result.attached:
        raw = registry.blob(one.blob)
        assert json.loads(raw)["verificationMaterial"].keys() == {"publicKey"}
        assert private not in raw


def test_an_older_signature_counts_beside_a_newer_one(registry, model):
    """Of two signers one has moved on to bundles, and the other has not."""
    reference = f"{registry.host}/team/model:v1"
    push(model, reference)
    sign(reference)
    late = PrivateKey.generate()
    with open_repository(reference) as repository:
        manifest = repository.fetch_manifest("v1")
        signed = simplesigning.sign(f"{registry.host}/team/model", manifest.digest, late)
        attach_simple(repository, manifest, signed, sleep=lambda _: None)
    two = policy(TEAM, KeySigner(name="late.pub", key=late.public_key), threshold=2)
    assert TrustGate(two).look(reference).ok
    # Where one is enough it is not asked for.
    registry.clear_records()
    assert TrustGate(policy()).look(reference).ok
    assert not [one for one in registry.requests if one.path.endswith(".sig")]
