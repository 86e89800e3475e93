"""A plain client for the servers' own tests: ``http.client`` and nothing that helps.

with Client(registry) as client:
    reply = client.get(f"/v2/team/model/blobs/{digest}", Range="bytes=0-9")
    reply.status, reply.body, reply["Content-Range"]
"""

import http.client
import json
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.support.faultregistry.server import HttpServer
from tests.support.faultregistry.wire import Headers

_TIMEOUT_SECONDS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes

    def __getitem__(self, name: str) -> str:
        return self.headers[name]

    @property
    def error(self) -> str:
        """The code of the one error in an error answer."""
        (error,) = json.loads(self.body)["errors"]
        assert error.keys() == {"code", "message", "detail"}
        return str(error["code"])


class Client:
    """One connection, opened when first used and again after it has been closed."""

    def __init__(self, server: HttpServer, tls: ssl.SSLContext | None = None):
        self._url = server.url
        if tls is None:
            self.connection = http.client.HTTPConnection(server.host, timeout=_TIMEOUT_SECONDS)
        else:
            self.connection = http.client.HTTPSConnection(
                server.host, timeout=_TIMEOUT_SECONDS, context=tls
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()

    def open(
        self, method: str, target: str, body: Any = None, **headers: str
    ) -> http.client.HTTPResponse:
        """Send a request; return the answer with its body unread. ``_`` in names means ``-``.

        An empty header is left out; a target may be a whole URL on this server.
        """
        fields = {"User-Agent": "test", "Accept": "*/*"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in fields.items() if value}
        self.connection.request(method, target.removeprefix(self._url), body, given)
        return self.connection.getresponse()

    def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Reply:
        """Send a request; return the whole answer."""
        with self.open(method, target, body, **headers) as response:
            return Reply(
                status=response.status,
                headers=Headers(response.getheaders()),
                body=response.read(),
            )

    def get(self, target: str, **headers: str) -> Reply:
        """Ask for something."""
        return self.ask("GET", target, **headers)
