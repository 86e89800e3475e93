"""A small sigstore deployment on loopback: certificate authority, issuance log, transparency log.

Owns real X.509 with embedded SCTs (RFC 6962), a real Merkle tree with inclusion proofs and signed
checkpoints, and real identity tokens, behind the HTTP interfaces of Fulcio v1 and Rekor v1. The
client under test is unpatched and is told of the deployment by its trust configuration alone.
Leaves out timestamp services (the log's signed integration time is the source of time here).

    with Deployment() as sigstore:
        SigstoreSigner(sigstore.token(), trust_config=sigstore.trust_config())
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
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

IDENTITY = "https://ci.example/team/models/release.yml@refs/heads/main"
SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
ISSUER_V1 = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_V2 = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
LIFETIME = dt.timedelta(minutes=10)
ORIGIN = "log.example"


def b64(data):
    return base64.b64encode(data).decode()


def spki(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ecdsa(key, data):
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


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


class Deployment:
    """The services, and knobs for what they do wrong."""

    def __init__(self):
        self.root_key, self.ca_key, self.ct_key, self.log_key = (new_key() for _ in range(4))
        self.token_key = new_key()
        self.tree = Tree()
        self.clock = lambda: dt.datetime.now(dt.UTC)
        self.entry_for = lambda entry: entry
        self.fail = {}
        self.chain = self._authority()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(self, *, audience="sigstore", expires=300, key=None, identity=IDENTITY):
        now = int(dt.datetime.now(dt.UTC).timestamp())
        claims = {"iss": self.url, "sub": identity, "aud": audience, "iat": now - 600}
        return jwt.encode(claims | {"exp": now + expires}, key or self.token_key, "ES256")

    def trust_config(self, **changes):
        """Return the client trust configuration; ``changes`` replace members of the root."""
        valid = {"start": "2020-01-01T00:00:00Z"}
        service = {"url": self.url, "majorApiVersion": 1, "validFor": valid, "operator": "tests"}
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self.log_instance(self.log_key)],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "tests", "commonName": "tests"},
                    "uri": self.url,
                    "certChain": {
                        "certificates": [
                            {"rawBytes": b64(certificate.public_bytes(Encoding.DER))}
                            for certificate in self.chain
                        ]
                    },
                    "validFor": valid,
                }
            ],
            "ctlogs": [self.log_instance(self.ct_key)],
            "timestampAuthorities": [],
        }
        value = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": root | changes,
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [service],
                "oidcUrls": [],
                "rekorTlogUrls": [service],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaUrls": [],
                "tsaConfig": {"selector": "ANY"},
            },
        }
        return json.dumps(value).encode()

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

    def _scts(self, tbs):
        milliseconds = int(self.clock().timestamp() * 1000)
        issuer = hashlib.sha256(spki(self.ca_key)).digest()
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1) + issuer
        signed += len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = ecdsa(self.ct_key, signed)
        sct = b"\0" + hashlib.sha256(spki(self.ct_key)).digest()
        sct += struct.pack("!QHBBH", milliseconds, 0, 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        return b"\x04" + _der_length(len(listed)) + listed

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
        pem = base64.b64decode(request["certificateSigningRequest"])
        leaf = self.certificate(x509.load_pem_x509_csr(pem).public_key(), claims["sub"])
        chain = [
            certificate.public_bytes(Encoding.PEM).decode() for certificate in (leaf, *self.chain)
        ]
        return 201, {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

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
        body = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        self.tree.entries.append(body)
        index = len(self.tree.entries) - 1
        log_id = hashlib.sha256(spki(self.log_key)).digest()
        root = self.tree.root()
        note = f"{ORIGIN}\n{len(self.tree.entries)}\n{b64(root)}\n"
        signature = b64(log_id[:4] + ecdsa(self.log_key, note.encode()))
        promised = {
            "body": b64(body),
            "integratedTime": int(self.clock().timestamp()),
            "logID": log_id.hex(),
            "logIndex": index,
        }
        canonical = json.dumps(promised, sort_keys=True, separators=(",", ":")).encode()
        proof = {
            "checkpoint": f"{note}\n\u2014 {ORIGIN} {signature}\n",
            "hashes": [node.hex() for node in self.tree.path(index)],
            "logIndex": index,
            "rootHash": root.hex(),
            "treeSize": len(self.tree.entries),
        }
        signed = b64(ecdsa(self.log_key, canonical))
        verification = {"inclusionProof": proof, "signedEntryTimestamp": signed}
        return promised | {"verification": verification}

    def _handler(self):
        deployment = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path in deployment.fail:
                    status, answer = deployment.fail[self.path], {"code": 0, "message": "knob"}
                elif self.path == "/api/v2/signingCert":
                    status, answer = deployment.signing_certificate(
                        body, self.headers["authorization"]
                    )
                elif self.path == "/api/v1/log/entries":
                    status, answer = deployment.log_entry(body)
                else:
                    status, answer = 404, {}
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        return Handler


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
    return b"\x0c" + _der_length(len(data)) + data


def _der_length(length):
    if length < 0x80:
        return bytes([length])
    encoded = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(encoded)]) + encoded
