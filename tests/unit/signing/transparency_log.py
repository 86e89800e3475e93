"""What a transparency log holds: a Merkle tree, and the entries of the second Rekor's interface.

Owns proofs over the tree (RFC 6962) and turning a request into the entry that is logged, its
signature verified as Rekor does. Leaves out checkpoints and HTTP (``sigstore_services.py``).

    tree = Tree()
    tree.entries.append(b"entry")
    tree.root(), tree.path(0)
"""

import base64
import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key


def b64(data):
    return base64.b64encode(data).decode()


def spki(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ecdsa(key, data):
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


class Tree:
    """A Merkle tree over entries (RFC 6962, section 2.1)."""

    def __init__(self):
        self.entries = []

    def root(self, start=0, end=None):
        end = len(self.entries) if end is None else end
        if end - start == 1:
            return hashlib.sha256(b"\0" + self.entries[start]).digest()
        middle = start + self._split(end - start)
        return hashlib.sha256(b"\1" + self.root(start, middle) + self.root(middle, end)).digest()

    def path(self, index, start=0, end=None):
        end = len(self.entries) if end is None else end
        if end - start == 1:
            return []
        middle = start + self._split(end - start)
        if index < middle:
            return [*self.path(index, start, middle), self.root(middle, end)]
        return [*self.path(index, middle, end), self.root(start, middle)]

    @staticmethod
    def _split(size):
        return 1 << (size - 1).bit_length() - 1


def entry_v2(request):
    """Return what the second Rekor logs of a request; None if the signature does not hold."""
    if "hashedRekordRequestV002" in request:
        asked = request["hashedRekordRequestV002"]
        digest, signature = asked["digest"], asked["signature"]
        if not _signs(signature, base64.b64decode(digest)):
            return None
        spec = {"hashedRekordV002": {"data": _v2_hash(digest), "signature": signature}}
        return {"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": spec}
    asked = request["dsseRequestV002"]
    envelope, [verifier] = asked["envelope"], asked["verifiers"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    signatures = [{"content": one["sig"], "verifier": verifier} for one in envelope["signatures"]]
    if not all(_signs(one, hashlib.sha256(signed).digest()) for one in signatures):
        return None
    spec = {"payloadHash": _v2_hash(b64(hashlib.sha256(payload).digest()))}
    spec = {"dsseV002": spec | {"signatures": signatures}}
    return {"apiVersion": "0.0.2", "kind": "dsse", "spec": spec}


def _v2_hash(digest):
    return {"algorithm": "SHA2_256", "digest": digest}


def _signs(signature, digest):
    verifier = signature["verifier"]
    if "x509Certificate" in verifier:
        raw = base64.b64decode(verifier["x509Certificate"]["rawBytes"])
        key = x509.load_der_x509_certificate(raw).public_key()
    else:
        key = load_der_public_key(base64.b64decode(verifier["publicKey"]["rawBytes"]))
    try:
        made = base64.b64decode(signature["content"])
        key.verify(made, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True
