"""A small sigstore deployment on loopback: certificate authority, issuance log, transparency log.

Owns real X.509 with embedded SCTs (RFC 6962), a real Merkle tree with inclusion proofs and signed
checkpoints, and real identity tokens, behind the HTTP interfaces of Fulcio and of both generations
of Rekor. The client under test is unpatched and is told of the deployment by its trust configuration
alone. Time comes from the first Rekor's signed integration time, or, with the second, from a
timestamp authority (``timestamp_service.py``).

    with Deployment() as sigstore:
        SigstoreSigner(sigstore.token(), trust_config=sigstore.trust_config())
    with Deployment(rekor=2) as sigstore: ...
"""

import base64
import datetime as dt
import hashlib
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.unit.signing.timestamp_service import TimestampAuthority, der_length, without_poison
from tests.unit.signing.transparency_log import Tree, b64, ecdsa, entry_v2, spki

IDENTITY = "https://ci.example/team/models/release.yml@refs/heads/main"
SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
ISSUER_V1 = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_V2 = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
LIFETIME = dt.timedelta(minutes=10)
ORIGIN = "log.example"
TIMESTAMPS = "/api/v1/timestamp"


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


class Deployment:
    """The services, and knobs for what they do wrong."""

    def __init__(self, *, rekor=1):
        self.rekor = rekor
        self.timestamps = TimestampAuthority()
        self.root_key, self.ca_key, self.ct_key, self.log_key = (new_key() for _ in range(4))
        self.token_key = new_key()
        self.tree = Tree()
        self.clock = lambda: dt.datetime.now(dt.UTC)
        self.entry_for = lambda entry: entry
        self.fail = {}
        self.chain = self._authority()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # The second Rekor's checkpoints are called after its host.
        self.origin = ORIGIN if rekor == 1 else "127.0.0.1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(self, *, audience="sigstore", expires=300, key=None, identity=IDENTITY, **more):
        now = int(dt.datetime.now(dt.UTC).timestamp())
        claims = {"iss": self.url, "sub": identity, "aud": audience, "iat": now - 600, **more}
        return jwt.encode(claims | {"exp": now + expires}, key or self.token_key, "ES256")

    def trust_config(self, **changes):
        """Return the client trust configuration; ``changes`` replace members of the root."""
        value = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self.trusted_root() | changes,
            "signingConfig": self.signing_config(),
        }
        return json.dumps(value).encode()

    def trusted_root(self):
        """Return what verifies, as JSON."""
        authorities = []
        if self.rekor == 2:
            authorities = [self._authority_instance(self.timestamps.chain)]
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self.log_instance(self.log_key)],
            "certificateAuthorities": [self._authority_instance(self.chain)],
            "ctlogs": [self.log_instance(self.ct_key)],
            "timestampAuthorities": authorities,
        }

    def signing_config(self):
        """Return which services sign, as JSON."""
        service = {
            "url": self.url,
            "majorApiVersion": 1,
            "validFor": {"start": "2020-01-01T00:00:00Z"},
            "operator": "tests",
        }
        stamps = [service | {"url": self.url + TIMESTAMPS}] if self.rekor == 2 else []
        return {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service],
            "oidcUrls": [],
            "rekorTlogUrls": [service | {"majorApiVersion": self.rekor}],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": stamps,
            "tsaConfig": {"selector": "ANY"},
        }

    def _authority_instance(self, chain):
        return {
            "subject": {"organization": "tests", "commonName": "tests"},
            "uri": self.url,
            "certChain": {
                "certificates": [
                    {"rawBytes": b64(certificate.public_bytes(Encoding.DER))}
                    for certificate in chain
                ]
            },
            "validFor": {"start": "2020-01-01T00:00:00Z"},
        }

    def log_instance(self, key):
        return {
            "baseUrl": self.url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": b64(spki(key)),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": {"start": "2020-01-01T00:00:00Z"},
            },
            "logId": {"keyId": b64(hashlib.sha256(spki(key)).digest())},
        }

    def _authority(self):
        root = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests root")])
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests authority")])
        self.name = name
        return [
            self._ca(name, self.ca_key, root, self.root_key, 0),
            self._ca(root, self.root_key, root, self.root_key, 1),
        ]

    def _ca(self, subject, key, issuer, issuer_key, length):
        now = dt.datetime.now(dt.UTC)
        public = key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=365))
            .not_valid_after(now + dt.timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
                critical=False,
            )
        )
        if length == 0:
            only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
            builder = builder.add_extension(only, critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def certificate(self, public_key, identity):
        """Issue a certificate as Fulcio does, logged in the issuance log."""
        now = self.clock()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(seconds=5))
            .not_valid_after(now + LIFETIME)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]),
                critical=True,
            )
            .add_extension(x509.UnrecognizedExtension(ISSUER_V1, self.url.encode()), critical=False)
            .add_extension(x509.UnrecognizedExtension(ISSUER_V2, _utf8(self.url)), critical=False)
        )
        unlogged = builder.sign(self.ca_key, hashes.SHA256())
        scts = self._scts(unlogged.tbs_certificate_bytes)
        logged = builder.add_extension(x509.UnrecognizedExtension(SCT_LIST, scts), critical=False)
        return logged.sign(self.ca_key, hashes.SHA256())

    def _issued(self, tbs):
        """Return when, and the issuance log's signature over a certificate to be."""
        milliseconds = int(self.clock().timestamp() * 1000)
        issuer = hashlib.sha256(spki(self.ca_key)).digest()
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1) + issuer
        signed += len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        return milliseconds, ecdsa(self.ct_key, signed)

    def add_pre_chain(self, request):
        """POST /ct/v1/add-pre-chain, with which a certificate authority asks the issuance log."""
        raw = base64.b64decode(request["chain"][0])
        milliseconds, signature = self._issued(without_poison(raw))
        return 200, {
            "sct_version": 0,
            "id": b64(hashlib.sha256(spki(self.ct_key)).digest()),
            "timestamp": milliseconds,
            "extensions": "",
            "signature": b64(struct.pack("!BBH", 4, 3, len(signature)) + signature),
        }

    def discovery(self, path):
        """GET what says which keys sign tokens (OpenID Connect Discovery)."""
        if path == "/keys":
            numbers = self.token_key.public_key().public_numbers()
            x, y = (
                base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()
                for number in (numbers.x, numbers.y)
            )
            key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": x, "y": y}
            return {"keys": [key]}
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def _scts(self, tbs):
        milliseconds, signature = self._issued(tbs)
        sct = b"\0" + hashlib.sha256(spki(self.ct_key)).digest()
        sct += struct.pack("!QHBBH", milliseconds, 0, 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        return b"\x04" + der_length(len(listed)) + listed

    def signing_certificate(self, request, authorization):
        """POST /api/v2/signingCert"""
        try:
            claims = jwt.decode(
                authorization.removeprefix("Bearer "),
                self.token_key.public_key(),
                algorithms=["ES256"],
                audience="sigstore",
                issuer=self.url,
            )
        except jwt.InvalidTokenError as error:
            return 401, {"message": str(error)}
        leaf = self.certificate(_requested_key(request, claims["sub"]), claims["sub"])
        chain = [
            certificate.public_bytes(Encoding.PEM).decode() for certificate in (leaf, *self.chain)
        ]
        return 200, {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def log_entry(self, proposed):
        """POST /api/v1/log/entries"""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        payload = base64.b64decode(envelope["payload"])
        entry = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": _sha256(content["envelope"].encode()),
                "payloadHash": _sha256(payload),
                "signatures": [
                    {"signature": signature["sig"], "verifier": content["verifiers"][0]}
                    for signature in envelope["signatures"]
                ],
            },
        }
        return 201, {"0" * 80: self.integrate(self.entry_for(entry))}

    def integrate(self, entry):
        body, index, proof = self._logged(entry)
        promised = {
            "body": b64(body),
            "integratedTime": int(self.clock().timestamp()),
            "logID": self._log_id().hex(),
            "logIndex": index,
        }
        canonical = json.dumps(promised, sort_keys=True, separators=(",", ":")).encode()
        old_proof = {
            "checkpoint": proof["checkpoint"],
            "hashes": [node.hex() for node in proof["hashes"]],
            "logIndex": index,
            "rootHash": proof["root"].hex(),
            "treeSize": proof["size"],
        }
        signed = b64(ecdsa(self.log_key, canonical))
        return promised | {
            "verification": {"inclusionProof": old_proof, "signedEntryTimestamp": signed}
        }

    def log_entry_v2(self, request):
        """POST /api/v2/log/entries"""
        entry = self.entry_for(entry_v2(request))
        if entry is None:
            return 400, {"message": "the signature does not verify"}
        body, index, proof = self._logged(entry)
        return 201, {
            "logIndex": str(index),
            "logId": {"keyId": b64(self._log_id())},
            "kindVersion": {"kind": entry["kind"], "version": entry["apiVersion"]},
            "integratedTime": "0",
            "inclusionProof": {
                "logIndex": str(index),
                "rootHash": b64(proof["root"]),
                "treeSize": str(proof["size"]),
                "hashes": [b64(node) for node in proof["hashes"]],
                "checkpoint": {"envelope": proof["checkpoint"]},
            },
            "canonicalizedBody": b64(body),
        }

    def _log_id(self):
        return hashlib.sha256(spki(self.log_key)).digest()

    def _logged(self, entry):
        """Add an entry; return its bytes, its number and what proves that it is there."""
        body = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        self.tree.entries.append(body)
        index, size, root = len(self.tree.entries) - 1, len(self.tree.entries), self.tree.root()
        note = f"{self.origin}\n{size}\n{b64(root)}\n"
        signature = b64(self._log_id()[:4] + ecdsa(self.log_key, note.encode()))
        checkpoint = f"{note}\n\u2014 {self.origin} {signature}\n"
        hashed = self.tree.path(index)
        return body, index, {"root": root, "size": size, "hashes": hashed, "checkpoint": checkpoint}

    def _handler(self):
        deployment = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                raw = self.rfile.read(int(self.headers["content-length"]))
                if self.path in deployment.fail:
                    status, data = deployment.fail[self.path], b'{"code":0,"message":"knob"}'
                elif self.path == TIMESTAMPS:
                    self.answer(201, deployment.timestamps.answer(raw), "timestamp-reply")
                    return
                else:
                    status, value = self.decide(json.loads(raw))
                    data = json.dumps(value).encode()
                self.answer(status, data, "json")

            def do_GET(self):
                self.answer(200, json.dumps(deployment.discovery(self.path)).encode(), "json")

            def decide(self, body):
                if self.path == "/api/v2/signingCert":
                    return deployment.signing_certificate(body, self.headers["authorization"])
                if self.path == "/api/v1/log/entries":
                    return deployment.log_entry(body)
                if self.path == "/api/v2/log/entries":
                    return deployment.log_entry_v2(body)
                if self.path == "/ct/v1/add-pre-chain":
                    return deployment.add_pre_chain(body)
                return 404, {}

            def answer(self, status, data, kind):
                self.send_response(status)
                self.send_header("content-type", f"application/{kind}")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        return Handler


def _requested_key(request, subject):
    """Return the key to certify; whoever asks has proved to hold it (Fulcio, CreateSigningCertificate)."""
    if "certificateSigningRequest" in request:
        pem = base64.b64decode(request["certificateSigningRequest"])
        return x509.load_pem_x509_csr(pem).public_key()
    asked = request["publicKeyRequest"]
    key = load_pem_public_key(asked["publicKey"]["content"].encode())
    proof = base64.b64decode(asked["proofOfPossession"])
    key.verify(proof, subject.encode(), ec.ECDSA(hashes.SHA256()))
    return key


def _sha256(data):
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


def _usage(**on):
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


def _utf8(text):
    data = text.encode()
    return b"\x0c" + der_length(len(data)) + data
