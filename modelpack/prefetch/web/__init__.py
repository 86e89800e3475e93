"""The daemon as it is seen: health, metrics, status and a page over HTTP; control over a socket.

``server`` runs it all in a thread of its own; ``public`` is what anybody who reaches the address
may read, ``private`` what root may ask on the socket; ``metrics`` and ``page`` make what is shown
from a ``DaemonStatus``; ``client`` is the other end. Needs aiohttp and prometheus-client, the
extra ``node``.

    with serve(daemon.status, daemon, listen="127.0.0.1:9464", socket_path=path) as endpoints:
        print(endpoints.url)
"""

from modelpack.prefetch.web.server import Endpoints, serve

__all__ = ["Endpoints", "serve"]
