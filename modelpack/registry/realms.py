"""Which token services a registry may send its clients to.

A registry answers 401 with the URL of the service that issues tokens (its *realm*). A hostile or
broken-into registry could name any URL: an internal host, so that the client probes it, or a host
of its own, so that the client hands over a password. Owns the rule; leaves out the request.

The rule, in order:

1. The realm is an absolute http or https URL without user information.
2. A registry reached over HTTPS must name an HTTPS realm. A plain-HTTP realm must be on the host
   of a plain-HTTP registry.
3. On the registry's own host, any port, it may get credentials.
4. On another host it must not be an address literal, a loopback or single-label name, nor a name
   that resolves to a loopback, link-local or unspecified address, or to a private one unless the
   host is in the registry's own site. Such a realm is not asked at all.
5. Credentials go only to the registry's own site (``same_site``) and to hosts the user has named.

    >>> same_site("registry-1.docker.io", "auth.docker.io")
    True
    >>> same_site("registry.example.co.uk", "evil.co.uk")
    False
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Iterable

from modelpack.reference import is_loopback_host
from modelpack.registry.addresses import Origin, origin_of, without_query
from modelpack.registry.errors import UnsafeAddressError

Resolver = Callable[[str, int], Iterable[str]]

# Domains in which every tenant gets a name, so that a shared parent proves nothing. Not the whole
# Public Suffix List: the rule for short second levels below covers the national ones, and a
# registry whose token service lives elsewhere can be named in ``token_hosts``.
_SHARED_DOMAINS = frozenset(
    {
        "amazonaws.com", "amazonaws.com.cn", "appspot.com", "azurecr.io", "azurewebsites.net",
        "cloudapp.net", "cloudfront.net", "duckdns.org", "fly.dev", "github.io", "gitlab.io",
        "googleapis.com", "herokuapp.com", "netlify.app", "ngrok.app", "ngrok.io", "nip.io",
        "pages.dev", "pkg.dev", "run.app", "sslip.io", "vercel.app", "windows.net", "workers.dev",
    }
)  # fmt: skip
# co.uk, com.au, or.jp: under a two-letter national domain a short second level is no one's own.
_SHORT_SECOND_LEVEL = 3
# Any label that a C library's inet_aton would read as a number: 127.1, 0x7f.1, 2130706433.
_NUMERIC_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z", re.IGNORECASE)


def check_realm(
    realm: str,
    endpoint: Origin,
    *,
    trusted: Collection[str] = (),
    resolve: Resolver | None = None,
) -> bool:
    """Prove that a realm may be asked for a token; return whether with credentials.

    Raises:
        UnsafeAddressError: it must not be asked at all.
    """
    origin = origin_of(realm)
    where = f"{endpoint.authority} sends its clients for a token to {without_query(realm)[:200]}"
    own = origin.host == endpoint.host
    if origin.scheme == "http" and (endpoint.scheme == "https" or not own):
        raise UnsafeAddressError(f"{where}, over plain http; refused")
    if own:
        return True
    named = origin.host in trusted
    related = same_site(endpoint.host, origin.host)
    if _is_literal(origin.host):
        raise UnsafeAddressError(f"{where}, an address and not a name; refused")
    if is_loopback_host(origin.host) or "." not in origin.host:
        raise UnsafeAddressError(f"{where}, a name inside this machine or network; refused")
    for address in (resolve or _addresses)(origin.host, origin.port):
        if _is_internal(address, private_too=not (related or named)):
            raise UnsafeAddressError(
                f"{where}, which is at the internal address {address}; refused"
            )
    return related or named


def same_site(registry: str, other: str) -> bool:
    """Tell whether a host surely belongs to whoever runs the registry.

    It does when it is the registry's host, lies below it, or is or lies below the parent domain of
    the registry's host, provided that such a parent is nobody else's: at least two labels, not a
    national second level such as ``co.uk``, not a domain shared by tenants.
    """
    if other == registry:
        return True
    if _is_literal(registry) or _is_literal(other):
        return False
    if _is_own_domain(registry) and other.endswith(f".{registry}"):
        return True
    parent = registry.partition(".")[2]
    return _is_own_domain(parent) and (other == parent or other.endswith(f".{parent}"))


def _is_own_domain(domain: str) -> bool:
    labels = domain.split(".")
    if len(labels) < 2 or not all(labels):
        return False
    if any(domain == shared or domain.endswith(f".{shared}") for shared in _SHARED_DOMAINS):
        return False
    if len(labels) == 2 and len(labels[1]) == 2:
        return len(labels[0]) > _SHORT_SECOND_LEVEL
    return True


def _is_literal(host: str) -> bool:
    return ":" in host or bool(_NUMERIC_LABEL.match(host.rpartition(".")[2]))


def _is_internal(text: str, *, private_too: bool) -> bool:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.is_loopback or address.is_link_local or address.is_unspecified:
        return True
    return private_too and not address.is_global


def _addresses(host: str, port: int) -> list[str]:
    """Resolve a name; one that does not resolve here may still resolve at a proxy."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]) for entry in found]
