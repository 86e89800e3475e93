"""The other end: asking a running daemon how it is, and to do something.

Owns the two ways to it, the control socket and the HTTP address, and what can go wrong on them.
Leaves out showing what it said. Standard library only: asking needs none of what serving needs.

    status = fetch_status(Path("/var/lib/modelpack/control.sock"))
    print(ask(Path("/var/lib/modelpack/control.sock"), "hold", "chat"))
"""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from modelpack.errors import (
    AuthError,
    ModelpackError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    UsageError,
)
from modelpack.prefetch.redaction import redact
from modelpack.prefetch.web.sockets import connected

_SECONDS = 15.0
# A status of a thousand models has about a megabyte.
_MAX_ANSWER = 32 * 1024 * 1024
_SCHEMES = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


def fetch_status(where: Path | str) -> dict[str, Any]:
    """Return the ``/v1/status`` document of the daemon at a socket, or at an address by a URL.

    Raises:
        UsageError: the URL is none.
        NetworkError: nobody answers there.
        AuthError: this user may not use the socket.
        ProtocolError: what answers is no daemon of ours.
    """
    status, answer = _exchange(where, "GET", "/v1/status")
    if status != 200 or not isinstance(answer.get("models"), list):
        raise ProtocolError(
            f"{_shown(where)}: what answers there is no modelpack daemon (HTTP status {status})"
        )
    return answer


def ask(where: Path, verb: str, name: str | None) -> str:
    """Ask the daemon to ``hold``, ``release``, … a model, or all; return what it says it did.

    Raises:
        NotFoundError: it has no such model.
        UsageError: that cannot be done with this model now.
        NetworkError, AuthError, ProtocolError: as ``fetch_status``.
    """
    path = f"/v1/{verb}" if name is None else f"/v1/models/{quote(name, safe='')}/{verb}"
    status, answer = _exchange(where, "POST", path)
    done, problem = answer.get("done"), answer.get("error")
    if status == 200 and isinstance(done, str):
        return done
    kinds = {403: AuthError, 404: NotFoundError, 409: UsageError}
    if isinstance(problem, str):
        raise kinds.get(status, ModelpackError)(problem)
    raise ProtocolError(
        f"{where}: what answers there is no modelpack daemon (HTTP status {status})"
    )


def _exchange(where: Path | str, method: str, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with _connection(where, path) as (connection, target):
            connection.request(method, target, headers={"Host": _host(where)})
            response = connection.getresponse()
            body = response.read(_MAX_ANSWER + 1)
            return response.status, _parse(body, where)
    except PermissionError as error:
        raise AuthError(
            f"{where}: only root may use the daemon's socket; run it as root"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NetworkError(
            f"{_shown(where)}: no daemon answers there ({reason}); is modelpack daemon running?"
        ) from error


def _parse(body: bytes, where: Path | str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if len(body) > _MAX_ANSWER or not isinstance(value, dict):
        raise ProtocolError(f"{_shown(where)}: what answers there is no modelpack daemon")
    return value


@contextmanager
def _connection(where: Path | str, path: str) -> Iterator[tuple[http.client.HTTPConnection, str]]:
    """Yield a connection and what to ask for on it."""
    if isinstance(where, Path):
        with connected(where, timeout=_SECONDS) as stream:
            yield _Over(stream), path
        return
    parts = _split(where)
    connection = _SCHEMES[parts.scheme](parts.netloc, timeout=_SECONDS)
    try:
        yield connection, parts.path.rstrip("/") + path
    finally:
        connection.close()


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or "@" in parts.netloc or not url.isascii() or not url.isprintable():
        raise UsageError(f"--url {redact(url)[:80]!r} is no address such as http://127.0.0.1:9464")
    return parts


def _host(where: Path | str) -> str:
    return "localhost" if isinstance(where, Path) else str(_split(where).netloc)


def _shown(where: Path | str) -> str:
    return str(where) if isinstance(where, Path) else redact(where)


class _Over(http.client.HTTPConnection):
    """HTTP over a stream that is connected already."""

    def __init__(self, stream: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = stream
