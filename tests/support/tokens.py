"""A token server: the other half of a registry with bearer authentication.

Owns the exchange of the distribution specification's token protocol (GET with ``scope`` and
``service``, optional Basic credentials, a signed JWT back) with a lifetime the test chooses. It
grants what is asked for; what a registry then does with the token is the registry's own business.

    with TokenServer(tmp_path, lifetime=5) as tokens:
        start_registry(auth=tokens)
        tokens.requests[-1].scopes          # ["repository:team/model:pull"]
"""

import base64
import dataclasses
import datetime as dt
import json
import ssl
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from tests.support.certificates import PrivateCA

SERVICE = "modelpack-tests"
ISSUER = "modelpack-test-tokens"

# docker-registry 2.8 accepts a token for this long after its "exp"; the server takes it off, so
# that a lifetime of 5 seconds is 5 seconds.
REGISTRY_LEEWAY_SECONDS = 60


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TokenRequest:
    """What one client asked for."""

    at: float  # time.monotonic()
    scopes: list[str]
    username: str | None  # None: no credentials were sent
    granted: bool


class TokenServer:
    """Issues ES256 tokens on a loopback port of its own."""

    def __init__(
        self,
        directory: Path,
        *,
        lifetime: float = 300,
        users: dict[str, str] | None = None,
        tls: PrivateCA | None = None,
    ):
        """``lifetime`` in seconds; ``users`` maps names to passwords, None lets anyone in.

        A registry that speaks TLS needs a token server that does: clients refuse the step down.
        """
        self.lifetime = lifetime  # may be changed while the server runs
        self.requests: list[TokenRequest] = []
        self._users = users
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(self._key)
        self.certificate_file = directory / "token-server.pem"
        self.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._chain = [
            base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        ]
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._scheme = "https" if tls else "http"
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*tls.issue("token-server-tls"))
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The realm that a registry names."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}/token"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def token(self, *scopes: str, lifetime: float | None = None) -> str:
        """Return a signed token for these scopes, for a test that plays the client itself."""
        now = time.time()
        expires = now + (self.lifetime if lifetime is None else lifetime)
        claims = {
            "iss": ISSUER,
            "sub": "tester",
            "aud": SERVICE,
            "exp": int(expires) - REGISTRY_LEEWAY_SECONDS,
            "nbf": int(now) - 2 * REGISTRY_LEEWAY_SECONDS,
            "iat": int(now) - 2 * REGISTRY_LEEWAY_SECONDS,
            "jti": str(uuid.uuid4()),
            "access": [_access(scope) for scope in scopes],
        }
        header = {"typ": "JWT", "alg": "ES256", "x5c": self._chain}
        signed = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_b64(r.to_bytes(32) + s.to_bytes(32))}"

    def _answer(self, query: str, authorization: str | None) -> tuple[int, dict[str, object]]:
        asked = parse_qs(query)
        scopes = [one for value in asked.get("scope", []) for one in value.split()]
        name, password = _basic(authorization)
        granted = self._users is None or (name in self._users and self._users[name] == password)
        self.requests.append(
            TokenRequest(at=time.monotonic(), scopes=scopes, username=name, granted=granted)
        )
        if not granted:
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}
        issued = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return 200, {
            "token": self.token(*scopes),
            "expires_in": int(self.lifetime),
            "issued_at": issued,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, body = answer(urlsplit(self.path).query, self.headers["Authorization"])
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="tokens"')
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self):
                # The OAuth2 form of the protocol: clients fall back to GET on a 404.
                self.send_error(404)

            def log_message(self, *_):
                pass  # `requests` is the log

        return Handler


def _access(scope: str) -> dict[str, object]:
    # repository:host:5000/name:pull,push; only the name may hold colons.
    kind, rest = scope.split(":", 1)
    name, actions = rest.rsplit(":", 1)
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _basic(authorization: str | None) -> tuple[str | None, str | None]:
    if not authorization or not authorization.startswith("Basic "):
        return None, None
    name, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
    return name, password


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
