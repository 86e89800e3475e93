"""Bare connections for bulk bytes: a connected socket, and the request line's form on it.

httpx copies every partial send of a large body; bulk bytes therefore go through sockets of our
own. Owns connecting, TLS, and going through proxies. Leaves out which proxy (``proxies.py``), and
requests.
"""

import http.client
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass

from modelpack.registry import addresses, proxies
from modelpack.registry.addresses import Origin
from modelpack.registry.options import ConnectionOptions


@dataclass(frozen=True, slots=True)
class Connection:
    """A connected socket to an origin, perhaps through a proxy."""

    socket: socket.socket
    origin: Origin
    through_proxy: bool
    proxy_authorization: str | None = None

    def target(self, url: str) -> str:
        """Return what stands in the request line for ``url`` (RFC 9112, "Request Target")."""
        path = addresses.path_of(url)
        return f"{self.origin.url}{path}" if self.through_proxy else path

    @property
    def is_tls(self) -> bool:
        """Whether bytes must pass through the TLS library."""
        return isinstance(self.socket, ssl.SSLSocket)

    def abort(self) -> None:
        """Make a read in progress, in another thread, fail at once."""
        # Not SSLSocket's own: it drops the TLS layer, and the reader would get ciphertext.
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def connect(origin: Origin, options: ConnectionOptions, context: ssl.SSLContext) -> Connection:
    """Connect to an origin, directly or through the proxy for it.

    Raises:
        OSError, http.client.HTTPException: no connection; see ``retry.final_failure``.
        UsageError: the proxy for it is no http proxy.
    """
    proxy = proxies.proxy_for(origin, options.proxy)
    host, port = (origin.host, origin.port)
    headers: dict[str, str] = {}
    if proxy is not None:
        host, port = proxy.hostname or "", proxy.port or 80
        login = proxies.authorization(proxy)
        if login is not None:
            headers["Proxy-Authorization"] = login
    connection: http.client.HTTPConnection
    if origin.scheme == "https":
        connection = http.client.HTTPSConnection(
            host, port, timeout=options.connect_timeout, context=context
        )
        if proxy is not None:
            connection.set_tunnel(origin.host, origin.port, headers)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=options.connect_timeout)
    connection.connect()
    connected = connection.sock
    connected.settimeout(options.read_timeout)
    plain_proxy = proxy is not None and origin.scheme == "http"
    return Connection(
        connected, origin, plain_proxy, headers.get("Proxy-Authorization") if plain_proxy else None
    )
