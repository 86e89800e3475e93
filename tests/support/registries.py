"""Two real registries, started with the one setting a test is about.

docker-registry is the CNCF distribution: it has chunked uploads, ranges, mounts and deletion, and
no referrers API. crane's registry is another program's idea of the same specification.

    with DockerRegistry(tmp_path, auth=TokenServer(...)) as registry:
        registry.host                       # "127.0.0.1:41873"
"""

import base64
import json
import re
from pathlib import Path
from typing import Literal, Self

import yaml

from tests.support import programs, tokens
from tests.support.certificates import PrivateCA
from tests.support.servers import Server

# The one user of a registry with Basic authentication, and bcrypt's hash of the password.
USERNAME = "tester"
PASSWORD = "correct horse"
_HTPASSWD = f"{USERNAME}:$2b$04$ieI7BETWXRfEg7/Qf4CnN.15r7h1kl.0oW1Hm0YKYNVZXalzuvqtG\n"


class DockerRegistry(Server):
    """One registry on a loopback port that it chooses itself and keeps over restarts."""

    def __init__(
        self,
        directory: Path,
        *,
        auth: Literal["basic"] | tokens.TokenServer | None = None,
        tls: PrivateCA | None = None,
        delete: bool = True,
        remote: str | None = None,
    ):
        """``directory`` takes the data and the log; ``tls`` issues the certificate.

        With ``remote``, another registry's URL, it is that one's pull-through cache.
        """
        self.storage = directory / "data"
        self._port = 0
        self._scheme = "https" if tls else "http"
        self._config = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "delete": {"enabled": delete},
            },
            "http": {},
        }
        if remote:
            self._config["proxy"] = {"remoteurl": remote}
        if tls:
            certificate, key = tls.issue(directory.name)
            self._config["http"]["tls"] = {"certificate": str(certificate), "key": str(key)}
        if auth == "basic":
            passwords = directory / "htpasswd"
            passwords.write_text(_HTPASSWD)
            self._config["auth"] = {"htpasswd": {"realm": "tests", "path": str(passwords)}}
        elif auth:
            self._config["auth"] = {
                "token": {
                    "realm": auth.url,
                    "service": tokens.SERVICE,
                    "issuer": tokens.ISSUER,
                    "rootcertbundle": str(auth.certificate_file),
                }
            }
        self._config_file = directory / "config.yml"
        super().__init__(
            "docker-registry",
            programs.command("docker-registry", "serve", self._config_file),
            log=directory / "docker-registry.log",
        )

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, as in a reference."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, or https."""
        return f"{self._scheme}://{self.host}"

    def start(self) -> None:
        """Start it, or start it again on the port it had."""
        self._config["http"]["addr"] = self.host
        self._config_file.write_text(yaml.safe_dump(self._config))
        said_before = len(self.logs())
        super().start(ready=lambda: "listening on" in self.logs()[said_before:])
        self._port = int(re.findall(r"listening on 127\.0\.0\.1:(\d+)", self.logs())[-1])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def requests(self) -> list[str]:
        """Return a line for each finished request: ``206 GET /v2/… sent=2``."""
        found = re.findall(r'"([A-Z]+) (\S+) HTTP/1\.1" (\d+) (\d+)', self.logs())
        return [f"{status} {method} {uri} sent={sent}" for method, uri, status, sent in found]

    def blob_path(self, digest: str) -> Path:
        """Return where a blob's bytes lie on disk, for a test that damages them."""
        algorithm, encoded = digest.split(":")
        blobs = self.storage / "docker/registry/v2/blobs"
        return blobs / algorithm / encoded[:2] / encoded / "data"


class CraneRegistry(Server):
    """The registry that crane serves; manifests are in memory and end with the process."""

    def __init__(self, directory: Path):
        """``directory`` takes the blobs and the log."""
        blobs = directory / "blobs"
        blobs.mkdir()
        super().__init__(
            "crane registry",
            programs.command(
                "crane", "registry", "serve", "--address=127.0.0.1:0", "--disk", blobs
            ),
            log=directory / "crane.log",
            env=programs.environment("crane"),
        )

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, as in a reference."""
        return f"127.0.0.1:{re.findall(r'serving on port ([0-9]+)', self.logs())[-1]}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://{self.host}"

    def start(self) -> None:
        """Start it, empty of manifests and on a new port."""
        said_before = len(self.logs())
        super().start(ready=lambda: "serving on port" in self.logs()[said_before:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def docker_config(
    directory: Path, host: str, username: str = USERNAME, password: str = PASSWORD
) -> Path:
    """Write a ``config.json`` with one registry's credentials below ``directory``; return it."""
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    file = directory / "config.json"
    file.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return file
