"""One thread's way of sending requests with bulk bodies to a registry or where it points.

Owns keeping the connection, the Authorization header (for the registry's own origin only) and the
telling of broken connections from final failures. Leaves out the socket work (``bodies.py``) and
what the requests mean (``uploads.py``).
"""

import http.client
from collections.abc import Callable, Mapping

from modelpack.content import Content
from modelpack.ratelimit import RateLimiter
from modelpack.registry import addresses, bodies
from modelpack.registry.auth import PUSH
from modelpack.registry.bodies import Answer
from modelpack.registry.client import USER_AGENT, RegistryClient
from modelpack.registry.connections import Connection, connect
from modelpack.registry.retry import final_failure, reason_of

# Bytes per second that a registry hashes at least, when it reads a finished upload once more.
_SLOWEST_REGISTRY = 20_000_000


class BrokenConnectionError(Exception):
    """The connection broke before an answer came; how many bytes arrived is unknown."""


class BodySender:
    """A kept connection; for one thread."""

    def __init__(self, client: RegistryClient, limiter: RateLimiter) -> None:
        self._client = client
        self._limiter = limiter
        self._connection: Connection | None = None
        self._authorization: str | None = None

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Content,
        *,
        start: int,
        length: int,
        sent: Callable[[int], None],
    ) -> Answer:
        """Send ``length`` bytes of ``content`` from ``start`` on, and return the answer.

        Raises:
            BrokenConnectionError: no answer; trying again may help.
            NetworkError: trying again will not help.
            IntegrityError: the content changed while it was read.
        """
        origin = addresses.origin_of(url)
        own = origin == self._client.endpoint
        self._authorization = self._client.authenticator.authorization(PUSH) if own else None
        fields = {
            "User-Agent": USER_AGENT,
            "Content-Type": "application/octet-stream",
            **headers,
        }
        if self._authorization:
            fields["Authorization"] = self._authorization
        try:
            answer = bodies.send(
                self._connect(origin),
                method,
                url,
                fields,
                content,
                start=start,
                length=length,
                timeout=self._client.options.read_timeout,
                answer_timeout=self.answer_seconds(length),
                limiter=self._limiter,
                sent=sent,
            )
        except (OSError, http.client.HTTPException) as error:
            self.close()
            final = final_failure(error, origin.authority)
            if final is not None:
                raise final from error
            raise BrokenConnectionError(reason_of(error)) from error
        self._client.contact.make()
        if not answer.reusable:
            self.close()
        return answer

    def renew(self, answer: Answer) -> None:
        """Get another token after a 401; raises as ``Authenticator.renew``."""
        challenge = ", ".join(answer.headers.get_all("WWW-Authenticate") or [])
        self._client.authenticator.renew(challenge, self._authorization, PUSH)

    def answer_seconds(self, size: int) -> float:
        """Return how long a registry may take to hash or move ``size`` bytes before it answers."""
        return self._client.options.read_timeout + size / _SLOWEST_REGISTRY

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self, origin: addresses.Origin) -> Connection:
        if self._connection is None or self._connection.origin != origin:
            self.close()
            self._connection = connect(origin, self._client.options, self._client.ssl_context)
        return self._connection
