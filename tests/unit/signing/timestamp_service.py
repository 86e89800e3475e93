"""A timestamp authority (RFC 3161): real requests in, real signed responses out.

Owns the few DER structures of RFC 3161 and CMS (RFC 5652) that a response has, and a certificate of
its own. Leaves out HTTP (``sigstore_services.py``). ``clock`` and ``imprint_for`` are knobs for what
an authority does wrong.

    authority = TimestampAuthority()
    response = authority.answer(request)
"""

import datetime as dt
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SHA256 = "2.16.840.1.101.3.4.2.1"
ECDSA_SHA256 = "1.2.840.10045.4.3.2"
SIGNED_DATA = "1.2.840.113549.1.7.2"
TST_INFO = "1.2.840.113549.1.9.16.1.4"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
POLICY = "1.3.6.1.4.1.57264.2"

INTEGER, OCTETS, SEQUENCE, SET, TIME = 0x02, 0x04, 0x30, 0x31, 0x18
EXPLICIT_0 = 0xA0
EXTENSIONS = 0xA3
POISON = "1.3.6.1.4.1.11129.2.4.3"


def der(tag, *parts):
    data = b"".join(parts)
    return bytes([tag]) + der_length(len(data)) + data


def der_length(length):
    if length < 0x80:
        return bytes([length])
    encoded = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(encoded)]) + encoded


def integer(value):
    return der(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid(dotted):
    first, second, *rest = map(int, dotted.split("."))
    data = bytearray()
    for number in (40 * first + second, *rest):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(0x80 | number & 0x7F)
        data += bytes(reversed(groups))
    return der(0x06, bytes(data))


def items(data):
    """Return the (tag, content, whole) of what follows one another in ``data``."""
    found, position = [], 0
    while position < len(data):
        tag, length, start = data[position], data[position + 1], position + 2
        if length & 0x80:
            width = length & 0x7F
            length = int.from_bytes(data[start : start + width], "big")
            start += width
        found.append((tag, data[start : start + length], data[position : start + length]))
        position = start + length
    return found


def without_poison(raw):
    """Return what a certificate will sign, given its precertificate (RFC 6962, section 3.1)."""
    [(_, body, _)] = items(raw)
    [(_, signed, _), *_] = items(body)
    parts = []
    for tag, content, whole in items(signed):
        if tag != EXTENSIONS:
            parts.append(whole)
            continue
        [(_, listed, _)] = items(content)
        kept = [one for _, inside, one in items(listed) if items(inside)[0][2] != oid(POISON)]
        parts.append(der(EXTENSIONS, der(SEQUENCE, *kept)))
    return der(SEQUENCE, *parts)


class TimestampAuthority:
    """Signs over the hash it is asked about and the time of its own clock."""

    def __init__(self):
        self.clock = lambda: dt.datetime.now(dt.UTC)
        self.imprint_for = lambda imprint: imprint
        self._key, root_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root, name = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
            for text in ("tests timestamp root", "tests timestamps")
        )
        self._certificate = _certificate(name, self._key, root, root_key, authority=False)
        self.chain = [self._certificate, _certificate(root, root_key, root, root_key)]

    def answer(self, request):
        """Return the response to a ``TimeStampReq`` (RFC 3161, section 2.4.2)."""
        [(_, body, _)] = items(request)
        _, (_, _, imprint), *rest = items(body)
        nonce = b"".join(whole for tag, _, whole in rest if tag == INTEGER)
        info = der(
            SEQUENCE,
            integer(1),
            oid(POLICY),
            self.imprint_for(imprint),
            integer(x509.random_serial_number() >> 8),
            der(TIME, self.clock().strftime("%Y%m%d%H%M%SZ").encode()),
            nonce,
        )
        token = der(SEQUENCE, oid(SIGNED_DATA), der(EXPLICIT_0, self._signed(info)))
        return der(SEQUENCE, der(SEQUENCE, integer(0)), token)

    def _signed(self, info):
        """Return the CMS SignedData around a ``TSTInfo``."""
        sha256 = der(SEQUENCE, oid(SHA256))
        certificate = self._certificate.public_bytes(Encoding.DER)
        identified = der(SEQUENCE, der(OCTETS, hashlib.sha256(certificate).digest()))
        attributes = [
            _attribute(CONTENT_TYPE, oid(TST_INFO)),
            _attribute(MESSAGE_DIGEST, der(OCTETS, hashlib.sha256(info).digest())),
            _attribute(SIGNING_CERTIFICATE_V2, der(SEQUENCE, der(SEQUENCE, identified))),
        ]
        # DER sorts a set; what is signed has the tag of one (RFC 5652, section 5.4).
        ordered = sorted(attributes)
        signature = self._key.sign(der(SET, *ordered), ec.ECDSA(hashes.SHA256()))
        signer = der(
            SEQUENCE,
            integer(1),
            der(
                SEQUENCE,
                self._certificate.issuer.public_bytes(),
                integer(self._certificate.serial_number),
            ),
            sha256,
            der(EXPLICIT_0, *ordered),
            der(SEQUENCE, oid(ECDSA_SHA256)),
            der(OCTETS, signature),
        )
        return der(
            SEQUENCE,
            integer(3),
            der(SET, sha256),
            der(SEQUENCE, oid(TST_INFO), der(EXPLICIT_0, der(OCTETS, info))),
            der(EXPLICIT_0, certificate),
            der(SET, signer),
        )


def _attribute(kind, value):
    return der(SEQUENCE, oid(kind), der(SET, value))


def _certificate(subject, key, issuer, issuer_key, *, authority=True):
    now = dt.datetime.now(dt.UTC)
    public = key.public_key()
    usage = dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
            *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    usage |= {"key_cert_sign": True} if authority else {"digital_signature": True}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=365))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if not authority:
        only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        builder = builder.add_extension(only, critical=True)
    return builder.sign(issuer_key, hashes.SHA256())
