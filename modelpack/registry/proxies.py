"""Which HTTP proxy stands between this machine and an origin, the same for both planes.

Owns the choice, and httpx's way of following it. Leaves out the data plane's connections
(``connections.py``), which asks here too.

As curl and Go have it, nothing stands between this machine and itself; ``NO_PROXY`` holds for a
configured proxy as for the environment's.
"""

import base64
import ssl
import threading
import urllib.parse
import urllib.request

import httpx

from modelpack.errors import UsageError
from modelpack.reference import is_loopback_host
from modelpack.registry import addresses
from modelpack.registry.addresses import Origin


def proxy_for(origin: Origin, configured: str | None) -> urllib.parse.SplitResult | None:
    """Return the proxy to an origin, or None if it is reached directly.

    Raises:
        UsageError: the proxy is not an ``http://`` one.
    """
    if is_loopback_host(origin.host) or urllib.request.proxy_bypass(origin.host):
        return None
    named, where = configured, "configured"
    if not named:
        proxies = urllib.request.getproxies()
        named = proxies.get(origin.scheme) or proxies.get("all")
        where = f"for {origin.scheme} that the environment names"
    if not named:
        return None
    try:
        proxy = urllib.parse.urlsplit(named if "://" in named else f"http://{named}")
        usable = proxy.scheme == "http" and proxy.hostname and proxy.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"the proxy {where} is not an http:// proxy")
    return proxy


def authorization(proxy: urllib.parse.SplitResult) -> str | None:
    """Return the header that a proxy's user information asks for."""
    if not proxy.username:
        return None
    user, password = (urllib.parse.unquote(text or "") for text in (proxy.username, proxy.password))
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class ProxyingTransport(httpx.BaseTransport):
    """Sends each request directly or through the proxy for its origin; thread-safe."""

    def __init__(
        self, configured: str | None, context: ssl.SSLContext, limits: httpx.Limits
    ) -> None:
        """Prepare, without connecting."""
        self._configured = configured
        self._context = context
        self._limits = limits
        self._lock = threading.Lock()
        self._transports: dict[str | None, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        proxy = proxy_for(addresses.origin_of(str(request.url)), self._configured)
        return self._transport(proxy.geturl() if proxy else None).handle_request(request)

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            transport.close()

    def _transport(self, proxy: str | None) -> httpx.HTTPTransport:
        with self._lock:
            if proxy not in self._transports:
                self._transports[proxy] = httpx.HTTPTransport(
                    verify=self._context, limits=self._limits, proxy=proxy, trust_env=False
                )
            return self._transports[proxy]
