"""When to try again, how long to wait first, and when to give up.

Owns the back-off, ``Retry-After`` and the telling of transient from final connection failures.
Leaves out performing requests. Clock, sleep and randomness are arguments.

    >>> retry_after("7", now=0.0)
    7.0
"""

import email.utils
import errno
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

from modelpack.errors import NetworkError
from modelpack.events import Observer, Retried
from modelpack.registry.errors import clean

_FIRST_DELAY = 0.25
_LONGEST_DELAY = 15.0
# More than fit into the patience, unless bytes move that are lost again every time.
_MAX_TRIES = 20
# A server may ask for an hour; the user's patience is asked first, and one nap stays below this.
LONGEST_RETRY_AFTER = 60.0
# Before a registry has ever answered, a wrong host or port is likelier than a passing trouble.
_FIRST_CONTACT_PATIENCE = 4.0
_ADVICE = "check the network and run the same command again"


class Contact:
    """Whether a registry has ever answered, shared by all requests to it."""

    def __init__(self) -> None:
        self._made = threading.Event()

    def make(self) -> None:
        """Record an answer."""
        self._made.set()

    def __bool__(self) -> bool:
        return self._made.is_set()


class Backoff:
    """The retries of one piece of work: waits longer each time, and gives up in bounded time.

    ``progress()`` starts the patience anew, so that a slow transfer which still moves is never
    given up.
    """

    def __init__(
        self,
        what: str,
        *,
        patience: float,
        contact: Contact | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._what = what
        self._patience = patience
        self._contact = contact
        self._observer = observer
        self._clock = clock
        self._sleep = sleep
        self._uniform = uniform
        self._since = clock()
        self._tries = 0

    def progress(self) -> None:
        """Record that the work moved on."""
        self._since = self._clock()
        self._tries = 0

    def touch(self) -> None:
        """Record that bytes are moving, which may still be lost.

        It starts the patience anew, but not the count of tries.
        """
        self._since = self._clock()

    def wait(self, reason: str, after: float | None = None) -> None:
        """Sleep before the next try, at least ``after`` seconds when the server asked for that.

        Raises:
            NetworkError: the patience is at its end; nothing was slept.
        """
        delay = self._uniform(0.5, 1.0) * min(_LONGEST_DELAY, _FIRST_DELAY * 2.0**self._tries)
        if after is not None:
            delay = min(LONGEST_RETRY_AFTER, after) + delay / 4
        patience = self._patience
        if self._contact is not None and not self._contact:
            patience = min(patience, _FIRST_CONTACT_PATIENCE)
        waited = self._clock() - self._since
        reason = clean(reason)
        if waited + delay > patience or self._tries >= _MAX_TRIES:
            raise NetworkError(
                f"{self._what}: {reason}; gave up after {self._tries + 1} tries "
                f"without progress, {_ADVICE}"
            )
        self._tries += 1
        if self._observer is not None:
            self._observer(Retried(what=self._what, reason=reason, delay=delay))
        self._sleep(delay)


def retry_after(header: str | None, *, now: float) -> float | None:
    """Return the seconds a ``Retry-After`` asks for (RFC 9110): a number or a date.

    ``now`` is seconds since the epoch. None when the header is absent or is neither.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return max(0.0, moment.timestamp() - now)


def final_failure(error: BaseException, registry: str) -> NetworkError | None:
    """Return the error for a connection failure that no retry can mend, or None.

    That is a certificate that is not trusted, TLS spoken to a server that has none, and a host
    name that does not exist.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return NetworkError(
                f"the certificate of {registry} is not trusted ({clean(cause.verify_message)}); "
                "name its authority with --ca-file"
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in {
            "WRONG_VERSION_NUMBER",
            "RECORD_LAYER_FAILURE",
            "HTTP_REQUEST",
        }:
            return NetworkError(
                f"{registry} does not speak TLS; if that is intended, use --plain-http"
            )
        if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            return NetworkError(f"there is no host {registry}; check the name in the reference")
    return None


def reason_of(error: BaseException) -> str:
    """Return a short reason for a connection failure, without addresses or queries."""
    for cause in _causes(error):
        if isinstance(cause, TimeoutError):
            return "timed out"
        if isinstance(cause, OSError) and cause.errno in errno.errorcode and cause.strerror:
            return cause.strerror.lower()
    name = type(error).__name__
    return clean(f"{name}: {error}" if str(error) else name)[:100]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 10:
        yield error
        error = error.__cause__ or error.__context__
        seen += 1
