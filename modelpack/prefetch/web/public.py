"""What anybody who reaches the address may read; nothing here changes anything.

Owns the paths ``/``, ``/v1/status``, ``/metrics``, ``/healthz`` and ``/readyz``, the methods and
``Host`` headers that are let in, and the headers that keep a browser from doing more with an
answer than showing it. Leaves out what the answers hold.
"""

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from modelpack.prefetch.status import DaemonStatus
from modelpack.prefetch.web import metrics, page, view
from modelpack.prefetch.web.sockets import is_loopback

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_METHODS = ("GET", "HEAD")
_SERVER = "modelpack"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def application(
    status: Callable[[], DaemonStatus], *, host: str, clock: Callable[[], float]
) -> web.Application:
    """Return the read-only application that is served at the address ``host``."""
    app = web.Application(
        middlewares=[_only_reading, *([_only_local] if is_loopback(host) else [])]
    )
    app.on_response_prepare.append(harden)
    registry = metrics.registry(status)

    async def show_page(_: web.Request) -> web.Response:
        return web.Response(
            text=page.HTML, content_type="text/html", headers={page.POLICY_HEADER: page.POLICY}
        )

    async def show_status(_: web.Request) -> web.Response:
        return web.json_response(view.document(status()))

    async def show_metrics(request: web.Request) -> web.Response:
        body, content_type = metrics.exposition(registry, request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def healthz(_: web.Request) -> web.Response:
        problem = view.hung(status(), now=clock())
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    async def readyz(_: web.Request) -> web.Response:
        reasons = view.unready(status())
        text = "".join(f"{reason}\n" for reason in reasons or ("ready",))
        return web.Response(text=text, status=503 if reasons else 200)

    app.add_routes(
        [
            web.get("/", show_page),
            web.get("/v1/status", show_status),
            web.get("/metrics", show_metrics),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
        ]
    )
    return app


async def harden(_: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every answer has; a handler's own stand.

    One request a connection: its time is bounded as a whole then, and a stop waits for nobody.
    """
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers[hdrs.SERVER] = _SERVER
    response.headers[hdrs.CONNECTION] = "close"
    response.force_close()


@web.middleware
async def _only_reading(request: web.Request, handler: _Handler) -> web.StreamResponse:
    if request.method not in _METHODS:
        raise web.HTTPMethodNotAllowed(request.method[:20], _METHODS)
    return await handler(request)


@web.middleware
async def _only_local(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse what a web page sent here under a name of its own that it had point to loopback."""
    host = request.headers.get(hdrs.HOST, "")
    name, colon, port = host.rpartition(":")
    bare = name if colon and port.isdigit() else host
    if not is_loopback(bare.removeprefix("[").removesuffix("]").lower()):
        raise web.HTTPMisdirectedRequest(text="421: use the address 127.0.0.1 or localhost\n")
    return await handler(request)
