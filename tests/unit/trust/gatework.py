"""What the tests of the gate share: a policy of one rule, and pushing, signing and pulling.

sign(reference)
refused(reference, destination, policy(), "what the message must say")
"""

from datetime import UTC, datetime

import pytest

import modelpack
from modelpack.connect import open_repository
from modelpack.errors import PolicyError
from modelpack.signing.bundle import key_bundle
from modelpack.signing.dsse import sign as sign_payload
from modelpack.signing.keys import PrivateKey
from modelpack.signing.policy import Policy, Rule
from modelpack.signing.statement import (
    COSIGN_SIGN,
)
from modelpack.signing.verify import KeySigner
from modelpack.trust.attaching import attach_bundle
from modelpack.trust.authors import KeyAuthor
from modelpack.trust.gate import TrustGate
from modelpack.trust.making import SigningOptions, sign_model
from modelpack.trust.policies import LoadedPolicy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = PrivateKey.generate()
TEAM = KeySigner(name="team.pub", key=KEY.public_key)
AUTHOR = KeyAuthor(name="team.key", key=KEY)


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
