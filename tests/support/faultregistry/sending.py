"""How an answer gets onto a socket: at once, slowly, cut off, reset.

Owns framing and ``Delivery``. Leaves out what is sent, and the connection's life.
"""

import fcntl
import socket
import struct
import termios
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from tests.support.faultregistry.contents import PIECE_BYTES
from tests.support.faultregistry.records import Entry
from tests.support.faultregistry.wire import Delivery, Hangup, Request, Response

# After an answer that came before the end of the request, how long the client may go on sending;
# closing at once would make the system send an RST that overtakes the answer.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 64 * 1024
# Bytes still under way are waited for before an RST, which would destroy them.
_FLUSH_SECONDS = 2.0
_SLICES_PER_SECOND = 20  # of a body whose rate is limited


def send(
    sock: socket.socket,
    request: Request,
    response: Response,
    entry: Entry,
    *,
    wait: Callable[[float], None],
    closes: bool,
) -> None:
    """Send an answer; what the books say is right before the client can have read the last byte.

    Raises:
        Hangup: a fault ends the connection here.
        OSError: the client did.
    """
    delivery = response.delivery
    wait(delivery.delay)
    if delivery.silent:
        raise Hangup(reset=delivery.reset)
    entry.offset = response.offset
    entry.status = response.status
    sock.sendall(head_bytes(response, closes=closes))
    if request.method != "HEAD" and response.status != HTTPStatus.NO_CONTENT:
        _send_body(sock, response, entry, wait)


def head_bytes(response: Response, *, closes: bool) -> bytes:
    """Return the status line and the header lines."""
    fields = {
        "Date": formatdate(usegmt=True),
        "Connection": "close" if closes else "keep-alive",
        **{name.title(): value for name, value in response.headers.items()},
    }
    length = response.content.size if response.length is None else response.length
    if response.chunked:
        fields["Transfer-Encoding"] = "chunked"
    elif response.status != HTTPStatus.NO_CONTENT:
        fields["Content-Length"] = str(length)
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _send_body(
    sock: socket.socket, response: Response, entry: Entry, wait: Callable[[float], None]
) -> None:
    delivery, size = response.delivery, response.content.size
    stop = delivery.stop_after
    stops = stop is not None and (size is None or stop < size)
    end = stop if stops else size
    started = time.monotonic()
    position = 0
    while end is None or position < end:
        if position == delivery.stall_after:
            wait(delivery.stall_seconds)
        length = _piece_length(position, end, delivery)
        piece = response.content.read(position, length)
        if response.chunked:
            sock.sendall(f"{length:x}\r\n".encode())
        _transmit(sock, memoryview(piece), entry)
        if response.chunked:
            sock.sendall(b"\r\n")
        position += length
        if delivery.bytes_per_second:
            wait(started + position / delivery.bytes_per_second - time.monotonic())
    if position == delivery.stall_after:
        wait(delivery.stall_seconds)
    if stops:
        raise Hangup(reset=delivery.reset)
    if response.chunked:
        sock.sendall(b"0\r\n\r\n")


def _piece_length(position: int, end: int | None, delivery: Delivery) -> int:
    """Return how much may go out before something is due."""
    length = PIECE_BYTES
    if end is not None:
        length = min(length, end - position)
    if delivery.stall_after is not None and delivery.stall_after > position:
        length = min(length, delivery.stall_after - position)
    if delivery.bytes_per_second:
        length = min(length, max(1, delivery.bytes_per_second // _SLICES_PER_SECOND))
    return length


def _transmit(sock: socket.socket, view: memoryview, entry: Entry) -> None:
    while view:
        # Counted first: the client may read the bytes before send() is back.
        entry.bytes_sent += len(view)
        try:
            count = sock.send(view)
        except OSError:
            entry.bytes_sent -= len(view)
            raise
        entry.bytes_sent -= len(view) - count
        view = view[count:]


def linger(sock: socket.socket) -> None:
    """Say that no more will be sent, and read for a while what the client still sends."""
    sock.shutdown(socket.SHUT_WR)
    sock.settimeout(_LINGER_SECONDS)
    deadline = time.monotonic() + _LINGER_SECONDS
    while sock.recv(_LINGER_BYTES) and time.monotonic() < deadline:
        pass


def prepare_reset(sock: socket.socket) -> None:
    """Make the coming close() an RST, once what was sent has been received."""
    deadline = time.monotonic() + _FLUSH_SECONDS
    while time.monotonic() < deadline:
        (unsent,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
        if not unsent:
            break
        time.sleep(0.001)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
