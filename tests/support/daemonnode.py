"""What the tests of the daemon's node share.

install(ContainerdNode(...), reference, pushed.digest)
"""

from modelpack.digest import Digest
from modelpack.events import ignore
from modelpack.prefetch.config import Network, RuntimeOptions
from modelpack.prefetch.node import InstallResult
from modelpack.prefetch.node import Node as Place
from modelpack.prefetch.nodes.containerd import ContainerdNode
from modelpack.ratelimit import RateLimiter
from tests.support.node import Node


def place_on(node: Node, **network) -> ContainerdNode:
    """Return a node's containerd as the daemon sees it."""
    runtime = RuntimeOptions(kind="containerd", address=node.socket)
    return ContainerdNode(runtime, Network(**network))


def install(
    place: Place, reference: str, digest: str | Digest, *, gate=None, observer=ignore, fetches=True
) -> InstallResult:
    """Install a version as fast as it goes."""
    wanted = Digest.parse(digest) if isinstance(digest, str) else digest
    return place.install(
        reference,
        wanted,
        gate=gate,
        limiter=RateLimiter(None),
        observer=observer,
        fetches=fetches,
    )


def scrub(place: Place, digest: str | Digest) -> tuple:
    """Return the damage that reading a version again finds."""
    wanted = Digest.parse(digest) if isinstance(digest, str) else digest
    return place.scrub(wanted, limiter=RateLimiter(None), stop=lambda: False)
