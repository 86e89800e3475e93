"""How to reach a registry: the caller's choices, and what follows from them.

Owns the options value, the address of a registry's API and the TLS context that both planes use.
Leaves out who the user is (``credentials.py``).

    >>> ConnectionOptions().endpoint("localhost:5000").url
    'http://localhost:5000'
    >>> ConnectionOptions().endpoint("docker.io").url
    'https://registry-1.docker.io'
"""

import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelpack.errors import UsageError
from modelpack.reference import is_loopback_host, split_host_port
from modelpack.registry.addresses import Origin, origin_of, split_url
from modelpack.registry.credentials import Credentials
from modelpack.registry.errors import UnsafeAddressError

# Docker Hub's API does not live at the name its references carry.
DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_DOCKER_HUB_API = "registry-1.docker.io"
# There is another place to ask. A mirror that fetches from afar first may still take its time.
_MIRROR_CONNECT_SECONDS = 3.0
_MIRROR_READ_SECONDS = 15.0
_MIRROR_PATIENCE_SECONDS = 3.0


class _SystemTrust(ssl.SSLContext):
    """A context that loads the system's certificates with its first TLS connection.

    That takes some 50 ms, which a registry on loopback never needs.
    """

    _loaded = False
    _loading = threading.Lock()

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Wrap a socket, ready to verify its peer."""
        with self._loading:
            if not self._loaded and self.verify_mode is not ssl.CERT_NONE:
                self.load_default_certs()
                self._loaded = True
        return super().wrap_socket(*arguments, **options)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirror:
    """Another place that has what a registry has."""

    registry: str
    """Whose mirror it is, by the name that references carry."""
    origin: Origin
    path: str = "/v2"
    """What its API's paths begin with."""

    @property
    def api(self) -> str:
        """What comes before ``/NAME/manifests`` in its URLs."""
        return f"{self.origin.url}{self.path}"

    @classmethod
    def parse(cls, url: str, registry: str) -> "Mirror":
        """Read ``http://HOST[:PORT][/PATH]``; a path that has no ``/v2`` in it gets one at its end.

        Raises:
            UsageError: the URL is not such a one. A login belongs into the credentials file.

            >>> Mirror.parse("https://cache.example/v2/hub", "docker.io").api
            'https://cache.example/v2/hub'
        """
        try:
            parts = split_url(url)
        except UnsafeAddressError as error:
            raise UsageError(
                f"mirror of {registry}: not a URL such as http://127.0.0.1:5001, without a login"
            ) from error
        if parts.query or parts.fragment:
            raise UsageError(f"mirror of {registry}: its URL must end with its path")
        path = parts.path.rstrip("/")
        if "/v2/" not in f"{path}/":
            path += "/v2"
        return cls(registry=registry, origin=origin_of(url), path=path)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionOptions:
    """Choices that hold for every request to one registry."""

    plain_http: bool | None = None
    """Use HTTP without TLS; None means on loopback only, as Docker does, and there only without
    ``ca_file`` and ``insecure_tls``, which speak of certificates."""
    ca_file: Path | None = None
    """PEM certificates to trust besides the system's."""
    insecure_tls: bool = False
    """Accept any certificate: for tests, never for real credentials."""
    max_connections: int | None = None
    limit_rate: int | None = None
    """Bytes per second over all connections together; None is no limit."""
    connect_timeout: float = 15.0
    """Seconds until a connection must stand."""
    read_timeout: float = 60.0
    """Seconds without a single byte after which a connection counts as dead."""
    patience: float = 120.0
    """Seconds of retries without any progress after which the work is given up."""
    credentials: Credentials | None = None
    """Use these instead of the stored ones."""
    auth_file: Path | None = None
    """Look for stored credentials here only."""
    token_hosts: tuple[str, ...] = ()
    """Hosts besides the registry's own site that may be sent credentials to issue tokens."""
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """URLs that are asked, in this order, before the registry of that name; see ``Mirror``."""
    proxy: str | None = field(default=None, repr=False)
    """The HTTP proxy for every registry that is not on loopback or in ``NO_PROXY``; None is the one
    that the environment names."""
    state_directory: Path | None = None
    """Where unfinished uploads are remembered; None is the user's cache directory."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            UsageError: a number of connections, a rate or a time that is not positive, or a mirror
                that is no URL.
        """
        for name in ("max_connections", "limit_rate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name.replace('_', ' ')} must be at least 1, not {value}")
        for name in ("connect_timeout", "read_timeout", "patience"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name.replace('_', ' ')} must be above 0")
        for registry in self.mirrors:
            self.mirrors_of(registry)

    @property
    def speaks_of_tls(self) -> bool:
        """Whether a choice was made that has no meaning without TLS."""
        return self.ca_file is not None or self.insecure_tls

    def mirrors_of(self, registry: str) -> tuple[Mirror, ...]:
        """Return where to ask before a registry, in this order."""
        names = DOCKER_HUB if registry in DOCKER_HUB else {registry}
        canonical = "docker.io" if registry in DOCKER_HUB else registry
        return tuple(
            Mirror.parse(url, canonical)
            for name in sorted(names)
            for url in self.mirrors.get(name, ())
        )

    def for_mirror(self, mirror: Mirror) -> "ConnectionOptions":
        """Return how a mirror is asked: without the registry's login, and not for long."""
        return replace(
            self,
            plain_http=mirror.origin.scheme == "http",
            connect_timeout=min(self.connect_timeout, _MIRROR_CONNECT_SECONDS),
            read_timeout=min(self.read_timeout, _MIRROR_READ_SECONDS),
            patience=min(self.patience, _MIRROR_PATIENCE_SECONDS),
            credentials=None,
            token_hosts=(),
            mirrors={},
        )

    def endpoint(self, registry: str) -> Origin:
        """Return where the API of ``registry`` (``host`` or ``host:port``) is reached."""
        host, port = split_host_port(registry)
        if registry in DOCKER_HUB:
            host = _DOCKER_HUB_API
        plain = self.plain_http
        if plain is None:
            plain = is_loopback_host(host) and not self.speaks_of_tls
        return Origin("http" if plain else "https", host.lower(), port or (80 if plain else 443))

    def ssl_context(self) -> ssl.SSLContext:
        """Return a client context that trusts the system's certificates and ``ca_file``.

        Raises:
            UsageError: ``ca_file`` cannot be read or holds no certificate.
        """
        context = _SystemTrust(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca_file is not None:
            try:
                context.load_verify_locations(cafile=self.ca_file)
            except ssl.SSLError as error:
                raise UsageError(f"{self.ca_file} holds no PEM certificate") from error
            except OSError as error:
                raise UsageError(f"{self.ca_file} cannot be read: {error.strerror}") from error
        if self.insecure_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
