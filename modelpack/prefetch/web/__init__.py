"""The daemon as it is seen: health, metrics, status and a page over HTTP; control over a socket.

``server`` runs it all in a thread of its own; ``public`` is what anybody who reaches the address
may read, ``private`` what root may ask on the socket; ``metrics`` and ``page`` make what is shown
from a ``DaemonStatus``; ``client`` is the other end. Only the serving side needs aiohttp and
prometheus-client, the extra ``node``, and only when it starts.

    with serve(daemon.status, daemon, listen="127.0.0.1:9464", socket_path=path) as endpoints:
        print(endpoints.url)
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from modelpack.errors import UsageError
from modelpack.prefetch.control import Control
from modelpack.prefetch.status import DaemonStatus

if TYPE_CHECKING:
    from modelpack.prefetch.web.server import Endpoints


def serve(
    status: Callable[[], DaemonStatus],
    control: Control,
    *,
    listen: tuple[str, int] | str,
    socket_path: Path,
    clock: Callable[[], float] = time.time,
) -> "AbstractContextManager[Endpoints]":
    """Serve for as long as the context lasts; when it ends, no thread, socket or file is left.

    ``status`` is called in the server's thread for every answer and must return at once;
    ``control`` is called in a few other threads. ``listen`` is an address, or ``HOST:PORT``.

    Raises:
        UsageError: the address is malformed or not of this machine, or what serving needs is not
            installed.
        ModelpackError: the address or the control socket is taken.
    """
    try:
        from modelpack.prefetch.web import server  # noqa: PLC0415 -- may be missing, and takes long
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the daemon's HTTP server needs {error.name}: pip install modelpack-oci[node]"
        ) from error
    return server.running(status, control, listen=listen, socket_path=socket_path, clock=clock)
