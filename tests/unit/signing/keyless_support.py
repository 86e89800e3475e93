"""Signing and verifying at a deployment of the tests' own, and changing what was signed.

raw = sign(deployment)
assert check(deployment, raw).ok
assert not check(deployment, changed(raw, ("dsseEnvelope", "payload"), flipped)).ok
"""

import base64
import json

from modelpack.digest import Digest
from modelpack.signing import statement
from modelpack.signing.keyless import SigstoreSigner, SigstoreVerifier
from modelpack.signing.verify import IdentitySigner, verify_bundle
from tests.unit.signing.sigstore_services import IDENTITY

DIGEST = Digest.of(b"manifest")
STATEMENT = statement.signature_statement(DIGEST, name="")
ENTRY = ("verificationMaterial", "tlogEntries", 0)


def signer_of(deployment):
    return IdentitySigner(identity=IDENTITY, issuer=deployment.url)


def sign(deployment, payload=STATEMENT, token=None, **changes):
    trust = deployment.trust_config(**changes)
    return SigstoreSigner(token or deployment.token(), trust_config=trust).sign(payload)


def sign_unchecked(deployment):
    """Sign with sigstore's client alone, which returns what nobody can verify, too."""
    from sigstore.dsse import Statement
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken
    from sigstore.sign import SigningContext

    config = ClientTrustConfig.from_json(deployment.trust_config().decode())
    context = SigningContext.from_trust_config(config)
    with context.signer(IdentityToken(deployment.token())) as signer:
        return signer.sign_dsse(Statement(STATEMENT)).to_json().encode()


def check(deployment, raw, signers=None, **changes):
    verifier = SigstoreVerifier(deployment.trust_config(**changes))
    signers = [signer_of(deployment)] if signers is None else signers
    return verify_bundle(raw, subject=DIGEST, signers=signers, certificates=verifier)


def changed(raw, path, change):
    value = json.loads(raw)
    target = value
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = change(target[path[-1]])
    return json.dumps(value).encode()


def flipped(text):
    data = bytearray(base64.b64decode(text))
    data[len(data) // 2] ^= 1
    return base64.b64encode(data).decode()
