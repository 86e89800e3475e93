"""A threaded HTTP/1.1 server on a loopback address that does as the faults say.

Owns sockets, TLS, threads and keep-alive, and the rules that hold for any request (a User-Agent,
no body on a GET). Leaves out what the answers are (``registry.py``, ``hosts.py``) and how
they are sent (``sending.py``).

A server starts in ``with`` or by ``start()``. ``stop()`` ends every connection and joins every
thread, and a later ``start()`` uses the same port.
"""

import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from io import BufferedReader
from typing import Self, cast

from tests.support.faultregistry.faultplan import FaultPlan
from tests.support.faultregistry.faults import Fault
from tests.support.faultregistry.records import Books, Entry
from tests.support.faultregistry.routes import Route
from tests.support.faultregistry.sending import head_bytes, linger, prepare_reset, send
from tests.support.faultregistry.wire import (
    Body,
    Hangup,
    Head,
    NotHttpError,
    Refusal,
    Request,
    Response,
    read_head,
    violation,
)

_BACKLOG = 256
_READ_BUFFER_BYTES = 64 * 1024
_JOIN_SECONDS = 10.0


class _Connection:
    """One accepted connection and the thread that serves it."""

    def __init__(self, number: int, sock: socket.socket):
        self.number = number
        self.socket = sock
        self.thread: threading.Thread | None = None

    def shut_down(self) -> None:
        """Wake the thread, whatever it is doing with the socket."""
        with suppress(OSError):
            # Not SSLSocket's own method, which pulls the TLS object from under the thread.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class HttpServer(Books, ABC):
    """The part that a registry, a blob host and a token host share."""

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        faults: Iterable[Fault] = (),
    ):
        """``port`` 0 takes a free one; another loopback ``address`` makes it another host."""
        super().__init__()
        self.address = address
        self.port = port
        self.faults = FaultPlan(faults)
        self._tls = tls
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._connections: dict[int, _Connection] = {}
        self._in_flight = 0
        self.connections_opened = 0
        self.peak_connections = 0
        self.peak_in_flight = 0
        """The most requests that were being answered at one time."""

    # What a server is about

    @abstractmethod
    def identify(self, head: Head) -> Route:
        """Return the endpoint a request names."""

    @abstractmethod
    def authorize(self, request: Request) -> None:
        """Let a request pass, or raise the Refusal that challenges it."""

    @abstractmethod
    def answer(self, request: Request) -> Response:
        """Return the answer to a request that may pass, or raise a Refusal."""

    # Where it is

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, as in a reference."""
        assert self.port, "the server has not been started"
        return f"{self.address}:{self.port}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, or https."""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        with self._lock:
            return len(self._connections)

    # Life

    def start(self) -> Self:
        """Listen and serve; on the port it had before, if it ran before."""
        assert self._listener is None, "the server runs already"
        self._stopping.clear()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((self.address, self.port))
            self._listener.listen(_BACKLOG)
        except OSError:
            self._listener.close()
            self._listener = None
            raise
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(
            target=self._accept, args=(self._listener,), name=f"accept {self.host}", daemon=True
        )
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Refuse new connections, end the open ones and wait for every thread; idempotent."""
        if self._listener is None or self._acceptor is None:
            return
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._acceptor.join(_JOIN_SECONDS)
        self._listener.close()
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            connection.shut_down()
        for connection in connections:
            if connection.thread is not None:
                connection.thread.join(_JOIN_SECONDS)
        self._listener = self._acceptor = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def disconnect_all(self) -> None:
        """End every open connection, as a restarted proxy does."""
        with self._lock:
            for connection in self._connections.values():
                connection.shut_down()

    # Connections

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return  # stop() has shut the listener down
            with self._lock:
                self.connections_opened += 1
                connection = _Connection(self.connections_opened, accepted)
                self._connections[connection.number] = connection
                self.peak_connections = max(self.peak_connections, len(self._connections))
                connection.thread = threading.Thread(
                    target=self._serve, args=(connection,), name=f"serve {self.host}", daemon=True
                )
                connection.thread.start()

    def _serve(self, connection: _Connection) -> None:
        try:
            # Clients come and go as they like: a broken connection is no error here.
            with suppress(OSError):
                self._secure(connection)
                with connection.socket.makefile("rb", _READ_BUFFER_BYTES) as stream:
                    self._converse(connection, cast(BufferedReader, stream))
        finally:
            with self._lock:
                del self._connections[connection.number]
                connection.socket.close()

    def _secure(self, connection: _Connection) -> None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return
        with self._lock:
            connection.socket = self._tls.wrap_socket(
                connection.socket, server_side=True, do_handshake_on_connect=False
            )
        if self._stopping.is_set():
            raise ConnectionAbortedError
        connection.socket.do_handshake()

    def _converse(self, connection: _Connection, stream: BufferedReader) -> None:
        try:
            while self._exchange(connection, stream):
                pass
        except NotHttpError as error:
            self._violated(str(error))
            refusal = Refusal(400, "UNSUPPORTED", str(error)).response()
            body = refusal.content.read(0, refusal.content.size or 0)
            connection.socket.sendall(head_bytes(refusal, closes=True) + bytes(body))
        except Hangup as hangup:
            if hangup.reset:
                prepare_reset(connection.socket)

    def _exchange(self, connection: _Connection, stream: BufferedReader) -> bool:
        """Serve one request; return whether another may follow."""
        head = read_head(stream)
        if head is None:
            return False
        body = Body(
            stream,
            head.headers,
            before_reading=lambda: _continue(connection.socket, head),
            wait=self._wait,
        )
        with self._lock:
            rank = sum(number < connection.number for number in self._connections)
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        try:
            route = self.identify(head)
            entry = self._begin(head, route, body, connection.number)
            request = Request(
                method=head.method,
                target=head.target,
                path=head.path,
                query=head.query,
                headers=head.headers,
                route=route,
                body=body,
                connection_rank=rank,
            )
            response = self._respond(request, entry)
            closes = response.close or head.headers.get("connection", "").lower() == "close"
            if response.delivery.early and not body.done:
                send(connection.socket, request, response, entry, wait=self._wait, closes=True)
                linger(connection.socket)
                return False
            body.drain()
            send(connection.socket, request, response, entry, wait=self._wait, closes=closes)
            return not closes
        finally:
            with self._lock:
                self._in_flight -= 1

    def _respond(self, request: Request, entry: Entry) -> Response:
        try:
            _check(request)
            self.authorize(request)
        except Refusal as refusal:
            return self._refused(refusal, request)
        firing = self.faults.match(request)
        entry.faults = tuple(fault.name for fault in firing)
        response = None
        changed = request
        for fault in firing:
            if fault.before is None or response is not None:
                continue
            outcome = fault.before(changed)
            if isinstance(outcome, Response):
                response = outcome
            else:
                changed = outcome
        if response is None:
            try:
                response = self.answer(changed)
            except Refusal as refusal:
                response = self._refused(refusal, request)
        for fault in firing:
            if fault.after is not None:
                response = fault.after(request, response)
        return response

    def _refused(self, refusal: Refusal, request: Request) -> Response:
        if refusal.violation:
            self._violated(refusal.message, f"{request.method} {request.target}")
        return refusal.response()

    def _wait(self, seconds: float) -> None:
        """Wait, unless the server is stopped first.

        Raises:
            Hangup: it is.
        """
        if seconds > 0 and self._stopping.wait(seconds):
            raise Hangup


def _check(request: Request) -> None:
    """Hold a request to what any server may expect.

    Raises:
        Refusal: it breaks a rule.
    """
    if not request.headers.get("user-agent"):
        raise violation("UNSUPPORTED", "no User-Agent header")
    if request.method in ("GET", "HEAD", "DELETE") and not request.body.done:
        raise violation("UNSUPPORTED", f"a body on a {request.method}")


def _continue(sock: socket.socket, head: Head) -> None:
    if head.headers.get("expect", "").lower() == "100-continue":
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
