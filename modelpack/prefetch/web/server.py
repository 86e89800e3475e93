"""Serving HTTP beside the daemon: one thread, one event loop, two listeners.

Owns starting and stopping. Leaves out what is answered (``public``, ``private``). The daemon's own
threads are never waited for here: what is shown is the last picture that it published.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from modelpack.prefetch.control import Control
from modelpack.prefetch.status import DaemonStatus
from modelpack.prefetch.web import private, public
from modelpack.prefetch.web.connections import Connections, Limits
from modelpack.prefetch.web.sockets import control_socket, format_address, tcp_socket

_logger = logging.getLogger(__name__)

# Requests from root, each of them short.
_CONTROL_THREADS = 2
# Answers that are being written when the daemon stops.
_STOP_SECONDS = 2.0
# What is asked here has short lines; aiohttp's own limits are for cookies and long addresses.
_MAX_LINE = 4096
_MAX_HEADERS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoints:
    """Where the daemon is listening."""

    url: str
    """Of the page, with the port that was really taken."""
    socket_path: Path


@contextmanager
def running(
    status: Callable[[], DaemonStatus],
    control: Control,
    *,
    listen: tuple[str, int] | str,
    socket_path: Path,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Endpoints]:
    """Serve as ``modelpack.prefetch.web.serve`` says; ``limits`` are those of the open address."""
    with (
        tcp_socket(listen) as reading,
        control_socket(socket_path) as asking,
        ThreadPoolExecutor(_CONTROL_THREADS, thread_name_prefix="modelpack-control") as executor,
    ):
        host, port = reading.getsockname()[:2]
        server = _Server(
            [
                (reading, public.application(status, host=host, clock=clock), limits or Limits()),
                (asking, private.application(status, control, executor=executor), Limits()),
            ]
        )
        with server.running():
            url = f"http://{format_address(host, port)}/"
            _logger.info("listening on %s and %s", url, socket_path)
            yield Endpoints(url=url, socket_path=socket_path)


_Listener = tuple[socket.socket, web.Application, Limits]


class _Server:
    """The thread in which applications are served, each on a socket of its own."""

    def __init__(self, listeners: list[_Listener]) -> None:
        self._listeners = listeners
        self._started: Future[Callable[[], None]] = Future()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, name="modelpack-web", daemon=True)
        thread.start()
        try:
            stop = self._started.result()
        except BaseException:
            thread.join()
            raise
        try:
            yield
        finally:
            stop()
            thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._started.done():
                _logger.exception("the server of status and metrics failed")
            else:
                self._started.set_exception(error)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        runners = [await self._begin(*listener) for listener in self._listeners]
        self._started.set_result(lambda: _stop(loop, over))
        await over.wait()
        for listening, _, _ in runners:
            for bound in listening.sockets:
                loop.remove_reader(bound)
        # Who was let in before that has a transport one round later. A server that is closed at
        # once drops such a connection without closing it.
        await asyncio.sleep(0)
        for listening, runner, connections in runners:
            listening.close()
            await runner.cleanup()
            await connections.end()

    @staticmethod
    async def _begin(
        bound: socket.socket, app: web.Application, limits: Limits
    ) -> tuple[asyncio.Server, web.AppRunner, Connections]:
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=_STOP_SECONDS,
            lingering_time=0,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
        )
        await runner.setup()
        make = runner.server
        assert make is not None
        connections = Connections(make, limits)
        # The loop closes its own copy; the caller's stays the caller's.
        copy = bound.dup()
        server = await asyncio.get_running_loop().create_server(connections, sock=copy)
        return server, runner, connections


def _stop(loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(over.set)
    except RuntimeError:  # the loop has ended by itself, which was logged
        _logger.debug("the server had stopped before it was told to")
