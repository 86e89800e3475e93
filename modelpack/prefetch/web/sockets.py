"""The two sockets that are listened on, opened with errors a person can act on.

Owns parsing ``HOST:PORT``, binding, the control socket's mode and who its peers are. Leaves out
HTTP. Sockets are bound before any thread starts, so that what is wrong with them ends the start.

    >>> parse_listen("[::1]:9464")
    ('::1', 9464)
"""

import contextlib
import errno
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modelpack.errors import ModelpackError, UsageError

CONTROL_SOCKET = "control.sock"
"""Its name in the store."""

_BACKLOG = 64
_CONTROL_MODE = 0o600
_MAX_PORT = 65535
# struct ucred: pid, uid, gid.
_UCRED = struct.Struct("3i")
# Whether somebody answers on a socket is known at once, or nobody does.
_PROBE_SECONDS = 2.0


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port from ``HOST:PORT``, an IPv6 address in brackets.

    Raises:
        UsageError: it is not of this form.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    valid = colon and bare and port.isascii() and port.isdigit() and int(port) <= _MAX_PORT
    if not valid or (":" in bare) != bracketed:
        raise UsageError(
            f"listen: {text[:80]!r} is not HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464"
        )
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether an address is one that only this machine reaches."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def format_address(host: str, port: int) -> str:
    """Write host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def tcp_socket(listen: tuple[str, int] | str) -> Iterator[socket.socket]:
    """Listen on an address for as long as the context lasts; port 0 takes any that is free.

    Raises:
        UsageError: the address is malformed, unknown or not of this machine.
        ModelpackError: another program has it, or it may not be taken.
    """
    host, port = parse_listen(listen) if isinstance(listen, str) else listen
    shown = format_address(host, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"listen: {host[:80]!r} is no address or name of this machine") from error
    family, _, _, _, address = found[0]
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address[0] == "::":
            # "everywhere" means IPv4, too, whatever the machine's default is
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise _bind_error(shown, error) from error
        listener.setblocking(False)
        yield listener


def _bind_error(shown: str, error: OSError) -> ModelpackError:
    if error.errno == errno.EADDRINUSE:
        return ModelpackError(
            f"listen: {shown} is in use by another program; stop it, or listen on another port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"listen: {shown} is not an address of this machine")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ModelpackError(
            f"listen: {shown} may not be taken by this user; ports below 1024 are root's"
        )
    return ModelpackError(f"listen: {shown}: {error.strerror}")


@contextmanager
def control_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a socket that only this process's user and root can open; remove it afterwards.

    A socket that a killed daemon left is replaced.

    Raises:
        ModelpackError: a daemon answers there, or the socket cannot be made.
    """
    with ExitStack() as stack:
        try:
            short = stack.enter_context(_directory(path))
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            _remove_stale(path, short)
            # The mode of the socket is that of the file which bind makes: there is no moment at
            # which others could open it, and no umask is touched.
            os.fchmod(listener.fileno(), _CONTROL_MODE)
            listener.bind(short)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ModelpackError(f"control socket {path}: {error.strerror}") from error
        stack.callback(_remove_own, short, os.stat(short))
        listener.setblocking(False)
        yield listener


def _remove_own(short: str, ours: os.stat_result) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(short, follow_symlinks=False), ours):
            os.unlink(short)


@contextmanager
def connected(path: Path, *, timeout: float) -> Iterator[socket.socket]:
    """Connect to a control socket.

    Raises:
        OSError: nobody listens there, or this user may not.
    """
    with _directory(path) as short, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(short)
        yield connection


@contextmanager
def _directory(path: Path) -> Iterator[str]:
    """Yield a short name for ``path``: a socket's address may have 107 bytes, a store's more."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _remove_stale(path: Path, short: str) -> None:
    try:
        mode = os.stat(short, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ModelpackError(f"control socket {path}: something else is there; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        with contextlib.suppress(ConnectionRefusedError):
            probe.connect(short)
            raise ModelpackError(f"control socket {path}: another daemon answers there")
    os.unlink(short)


def peer_uid(connection: socket.socket) -> int:
    """Return the user at the other end of a Unix socket, as the kernel knows it."""
    size = _UCRED.size
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)
