"""The real Fulcio, Rekor and timestamp server, on loopback, with a trust configuration of their own.

Owns starting them, and the trust configuration. Around them the tests' own deployment gives what is
not theirs: identity tokens and their keys, and the issuance log that Fulcio asks.

    with Deployment() as around:
        services = SigstoreServices(around, tmp_path)
        services.start()
"""

import json
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from tests.support.programs import command
from tests.support.servers import Server, accepts_connections, free_port

PROGRAMS = ("fulcio", "rekor-server", "timestamp-server")
EMAIL = "release@ci.example"
PASSWORD = "fulcio"
HOST = "127.0.0.1"


class SigstoreServices:
    """Three programs and what clients are told of them."""

    def __init__(self, around, directory: Path):
        self.around = around
        self.directory = directory
        self.ports = {name: free_port() for name in PROGRAMS}
        self.servers: list[Server] = []

    def start(self) -> None:
        """Start all three; each is ready when it takes connections."""
        for name, arguments in (
            ("timestamp-server", self._timestamp_arguments()),
            ("rekor-server", self._rekor_arguments()),
            ("fulcio", self._fulcio_arguments()),
        ):
            log = self.directory / f"{name}.log"
            server = Server(name, command(name, "serve", *map(str, arguments)), log=log)
            self.servers.append(server)
            port = self.ports[name]
            server.start(lambda port=port: accepts_connections(port))

    def stop(self) -> None:
        """End them."""
        for server in self.servers:
            server.stop()

    def url(self, name: str) -> str:
        """Return where a program listens."""
        return f"http://{HOST}:{self.ports[name]}"

    def token(self, **changes) -> str:
        """Return an identity token that Fulcio takes."""
        return self.around.token(email=EMAIL, email_verified=True, **changes)

    def trust_config(self) -> bytes:
        """Return the client trust configuration."""
        root, signing = self.around.trusted_root(), self.around.signing_config()
        [log] = root["tlogs"]
        root["tlogs"] = [log | {"baseUrl": self.url("rekor-server")}]
        stamps = httpx.get(self.url("timestamp-server") + "/api/v1/timestamp/certchain").content
        authority = self.around._authority_instance(x509.load_pem_x509_certificates(stamps))
        root["timestampAuthorities"] = [authority]
        service = signing["caUrls"][0]
        signing["caUrls"] = [service | {"url": self.url("fulcio")}]
        signing["rekorTlogUrls"] = [
            service | {"url": self.url("rekor-server"), "majorApiVersion": 2}
        ]
        stamp = self.url("timestamp-server") + "/api/v1/timestamp"
        signing["tsaUrls"] = [service | {"url": stamp}]
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": root,
                "signingConfig": signing,
            }
        ).encode()

    def _timestamp_arguments(self):
        return (
            *("--host", HOST, "--port", self.ports["timestamp-server"]),
            *("--timestamp-signer", "memory", "--disable-ntp-monitoring"),
        )

    def _rekor_arguments(self):
        key = self.directory / "log.pem"
        key.write_bytes(
            self.around.log_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return (
            *("--http-port", self.ports["rekor-server"], "--grpc-port", free_port()),
            *("--http-metrics-port", free_port(), "--hostname", HOST),
            *("--signer-filepath", key, "--storage-dir", self.directory / "log"),
            *("--checkpoint-interval", "1s", "--batch-max-age", "50ms"),
        )

    def _fulcio_arguments(self):
        config = self.directory / "fulcio.json"
        issuer = {"IssuerURL": self.around.url, "ClientID": "sigstore", "Type": "email"}
        config.write_text(json.dumps({"OIDCIssuers": {self.around.url: issuer}}))
        chain, key = self.directory / "ca.pem", self.directory / "ca.key"
        chain.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in self.around.chain))
        encryption = BestAvailableEncryption(PASSWORD.encode())
        key.write_bytes(
            self.around.ca_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        )
        return (
            *("--host", HOST, "--port", self.ports["fulcio"], "--grpc-host", HOST),
            *("--grpc-port", free_port(), "--metrics-port", free_port()),
            *("--legacy-unix-domain-socket", self.directory / "fulcio.sock"),
            *("--ca", "fileca", "--fileca-cert", chain, "--fileca-key", key),
            *("--fileca-key-passwd", PASSWORD, "--fileca-watch=false"),
            *("--ct-log-url", self.around.url, "--config-path", config),
        )
