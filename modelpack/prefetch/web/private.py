"""What root on the node may ask of the daemon, on the socket in its store.

Owns the paths, the check of who asks, and how answers and errors are written: ``{"done": …}`` or
``{"error": …}``, one line each. Leaves out what is done (``modelpack.prefetch.control``).
"""

import asyncio
import functools
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from aiohttp import web

from modelpack.errors import ModelpackError, NotFoundError, UsageError
from modelpack.prefetch.control import Control
from modelpack.prefetch.redaction import redact
from modelpack.prefetch.status import DaemonStatus
from modelpack.prefetch.web import view
from modelpack.prefetch.web.public import harden
from modelpack.prefetch.web.sockets import peer_uid

_logger = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

VERBS = ("hold", "release", "rollback", "refresh", "scrub")
FOR_ALL = ("refresh", "scrub")
"""Verbs that may be asked of all models at once."""


def application(
    status: Callable[[], DaemonStatus], control: Control, *, executor: Executor
) -> web.Application:
    """Return the application of the control socket; ``control`` is called in ``executor``."""
    app = web.Application(middlewares=[_only_root])
    app.on_response_prepare.append(harden)

    async def show_status(_: web.Request) -> web.Response:
        return web.json_response(view.document(status()))

    async def ask_one(request: web.Request) -> web.Response:
        name, verb = request.match_info["name"], request.match_info["verb"]
        return await answer(verb, functools.partial(getattr(control, verb), name), name)

    async def ask_all(request: web.Request) -> web.Response:
        verb = request.match_info["verb"]
        return await answer(verb, functools.partial(getattr(control, verb), None), None)

    async def answer(verb: str, call: Callable[[], str], name: str | None) -> web.Response:
        loop = asyncio.get_running_loop()
        try:
            done = redact(await loop.run_in_executor(executor, call))
        except ModelpackError as error:
            return web.json_response({"error": redact(str(error))}, status=_status_of(error))
        except Exception:
            _logger.exception("%s failed", verb, extra={"model": name})
            said = f"the daemon could not {verb}, by a fault of its own; its log says more"
            return web.json_response({"error": said}, status=500)
        return web.json_response({"done": done})

    app.add_routes(
        [
            web.get("/v1/status", show_status),
            web.post(f"/v1/models/{{name}}/{{verb:{'|'.join(VERBS)}}}", ask_one),
            web.post(f"/v1/{{verb:{'|'.join(FOR_ALL)}}}", ask_all),
        ]
    )
    return app


def _status_of(error: ModelpackError) -> int:
    if isinstance(error, NotFoundError):
        return 404
    return 409 if isinstance(error, UsageError) else 500


@web.middleware
async def _only_root(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Let in root and the user that the daemon runs as; the socket's mode is the first fence."""
    connection = request.get_extra_info("socket")
    # asyncio hands out a view of the socket that can be asked for its options
    uid = peer_uid(connection) if connection is not None else None
    if uid not in {0, os.geteuid()}:
        _logger.warning("user %s was turned away at the control socket", uid)
        return web.json_response({"error": "only root may use the control socket"}, status=403)
    assert connection is not None
    assert connection.family == socket.AF_UNIX
    return await handler(request)
