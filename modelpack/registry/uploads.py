"""Uploading blobs: in resumable pieces where the registry takes them, in one request where not.

Owns the distribution-spec's "Pushing blobs" and what registries make of it: some refuse PATCH
(GHCR, Google's), some answer 201 to it (ECR), some hand the bytes to another host. Leaves out
sending bytes fast (``bodies.py``) and remembering between runs (``uploadstate.py``).

A blob of up to one piece goes in one PUT. A larger one goes by PATCH, piece by piece; after a
broken connection the registry is asked how much it has, and the upload goes on from there. CNCF
distribution keeps half a piece but then drops the upload that has one, so that there only an
upload that stopped between two pieces goes on; any other starts over.
"""

import contextlib
import threading
import time
from dataclasses import dataclass, replace

from modelpack.content import Content
from modelpack.descriptor import Descriptor
from modelpack.digest import Digest
from modelpack.errors import (
    FormatError,
    IntegrityError,
    ModelpackError,
    NetworkError,
    NotFoundError,
)
from modelpack.ratelimit import RateLimiter
from modelpack.registry import addresses, bodies
from modelpack.registry.auth import PUSH
from modelpack.registry.client import MOVED, TO_STORAGE, RegistryClient, Response
from modelpack.registry.errors import (
    RETRIED_STATUSES,
    is_out_of_space,
    passing_reason,
    response_error,
)
from modelpack.registry.retry import retry_after
from modelpack.registry.senders import BodySender, BrokenConnectionError
from modelpack.registry.uploadstate import UploadState
from modelpack.storage import Progress

# Large enough that a request's cost vanishes, small enough to send again after a break.
PIECE_BYTES = 64 * 1024 * 1024
# On a connection that keeps breaking, pieces are halved down to this.
_SMALLEST_PIECE = 1024 * 1024
_TAKEN = frozenset({200, 201, 202, 204})
_PATCH_REFUSED = frozenset({400, 404, 405, 411, 415, 416, 501})
_MAX_REFUSALS = 2
# An upload of an earlier run may lie on a host that is gone.
_REMEMBERED_PATIENCE = 5.0
# A whole blob in one request starts from its first byte every time.
_MAX_WHOLE_TRIES = 5


@dataclass(frozen=True, slots=True)
class _Session:
    """An open upload: where it goes on, and how many bytes the registry has."""

    location: str
    offset: int
    piece: int
    """How many bytes to send at once."""
    least: int = 0
    """How many the registry wants at least, but for the last (``OCI-Chunk-Min-Length``)."""


class Uploader:
    """Uploads to one repository; thread-safe."""

    def __init__(self, client: RegistryClient, *, piece_bytes: int = PIECE_BYTES) -> None:
        self.client = client
        self.piece_bytes = piece_bytes
        self.limiter = RateLimiter(client.options.limit_rate)
        self.patch_refused = False
        self._lock = threading.Lock()
        self._offered: dict[Digest, str] = {}

    def close(self) -> None:
        """Forget what was offered; connections do not outlive an upload."""
        self._offered.clear()

    def upload(
        self, descriptor: Descriptor, content: Content, progress: Progress | None = None
    ) -> None:
        """Upload one blob; see ``RegistryRepository.push_blob``."""
        if content.size != descriptor.size:
            raise IntegrityError(
                f"blob {descriptor.digest} has {content.size} bytes, "
                f"its descriptor says {descriptor.size}"
            )
        with UploadState.claim(
            self.client.registry,
            self.client.repository or "",
            descriptor.digest,
            home=self.client.options.state_directory,
        ) as state:
            _Upload(self, descriptor, content, progress, state).run()

    def mount(self, descriptor: Descriptor, source: str) -> bool:
        """Mount a blob from repository ``source``; see ``RegistryRepository.mount_blob``."""
        response = self.client.request(
            "POST",
            "blobs/uploads/",
            what=f"mount of {self.client.name}@{descriptor.digest}",
            query={"mount": str(descriptor.digest), "from": source},
            expect=(201, 202),
            actions=PUSH,
            also=f"repository:{source}:pull",
        )
        if response.status == 202 and "Location" in response.headers:
            with self._lock:
                self._offered[descriptor.digest] = _location(response)
        return response.status == 201

    def offered(self, digest: Digest) -> str | None:
        """Return, once, the upload that the registry opened instead of mounting a blob."""
        with self._lock:
            return self._offered.pop(digest, None)


class _Upload:
    """One blob on its way, in one thread."""

    def __init__(
        self,
        uploader: Uploader,
        descriptor: Descriptor,
        content: Content,
        progress: Progress | None,
        state: UploadState,
    ) -> None:
        self._uploader = uploader
        self._client = uploader.client
        self._descriptor = descriptor
        self._content = content
        self._progress = progress
        self._state = state
        self._what = f"upload of {self._client.name}@{descriptor.digest}"
        self._backoff = self._client.backoff(self._what)
        self._piece = uploader.piece_bytes
        self._reported = 0
        self._best = 0
        self._refusals = 0
        self._whole = False
        self._sender = BodySender(self._client, uploader.limiter)

    def run(self) -> None:
        """Upload until the registry has the blob.

        Raises: as ``RegistryRepository.push_blob``.
        """
        try:
            whole_tries = 0
            session = self._remembered()
            while True:
                if session is None:
                    session = self._begin()
                if self._in_one(session):
                    whole_tries += 1
                    if self._send_whole(session, last=whole_tries >= _MAX_WHOLE_TRIES):
                        break
                    session = None
                elif session.offset < self._descriptor.size:
                    session = self._send_piece(session)
                elif self._commit(session):
                    break
                else:
                    session = None
            self._state.forget()
            self._report(self._descriptor.size)
        finally:
            self._sender.close()

    # Sessions

    def _in_one(self, session: _Session) -> bool:
        small = self._descriptor.size <= self._uploader.piece_bytes
        return session.offset == 0 and (small or self._whole or self._uploader.patch_refused)

    def _remembered(self) -> _Session | None:
        """Return the session that an earlier run left, if the registry still has it."""
        location = self._state.load()
        if location is None:
            return None
        with contextlib.suppress(ModelpackError):
            session = self._asked(_Session(location, 0, self._piece), patience=_REMEMBERED_PATIENCE)
            if session is not None and session.offset:
                self._report(session.offset)
                self._best = session.offset
                return session
        self._state.forget()
        return None

    def _begin(self) -> _Session:
        location = self._uploader.offered(self._descriptor.digest)
        least = 0
        if location is None:
            response = self._client.request(
                "POST", "blobs/uploads/", what=self._what, expect=(202,), actions=PUSH, content=b""
            )
            location = _location(response)
            with contextlib.suppress(ValueError):
                least = int(response.headers.get("OCI-Chunk-Min-Length", "0")[:18])
        session = _Session(location, 0, max(self._piece, least), least)
        if not self._in_one(session):
            self._state.save(location, 0)
        return session

    def _asked(self, session: _Session, *, patience: float | None = None) -> _Session | None:
        """Ask the registry how much it has; None when the session is gone."""
        response = self._client.request(
            "GET",
            session.location,
            what=self._what,
            expect=(200, 202, 204, 400, 404, 405, 416),
            actions=PUSH,
            patience=patience,
        )
        if response.status not in _TAKEN:
            return None
        try:
            offset = addresses.uploaded_bytes(response.headers.get("Range", ""))
        except FormatError:
            return None
        if offset > self._descriptor.size:
            return None
        location = _location(response) if "Location" in response.headers else session.location
        return replace(session, location=location, offset=offset)

    # Requests with bytes

    def _send_piece(self, session: _Session) -> _Session | None:
        """Send the next piece; return the session as it is then, None to open another."""
        length = min(session.piece, self._descriptor.size - session.offset)
        headers = {"Content-Range": f"{session.offset}-{session.offset + length - 1}"}
        answer = self._send("PATCH", session.location, headers, session.offset, length)
        if answer is None:
            self._piece = max(session.least, min(_SMALLEST_PIECE, self._piece), session.piece // 2)
            return self._after_break(replace(session, piece=self._piece))
        if answer.status in _TAKEN:
            return self._advanced(session, answer, length)
        full = is_out_of_space(answer.status, answer.body)
        if answer.status in _PATCH_REFUSED and session.offset == 0 and not full:
            # A 404 may only mean that this one session is gone.
            self._uploader.patch_refused = self._uploader.patch_refused or answer.status != 404
            self._whole = True
            self._state.forget()
            return None
        if answer.status in {404, 416}:
            self._backoff.wait(f"HTTP status {answer.status} to PATCH")
            return self._after_break(session)
        return self._after_refusal(answer, session)

    def _advanced(self, session: _Session, answer: bodies.Answer, length: int) -> _Session:
        """Read where the registry stands after it took a piece."""
        offset = session.offset + length
        # Without a Range that can be read, it took what it was sent; the digest will show.
        with contextlib.suppress(FormatError):
            offset = addresses.uploaded_bytes(answer.headers.get("Range", ""))
        if offset > session.offset + length:
            raise NetworkError(f"{self._what}: the registry says it has bytes that were not sent")
        location = session.location
        if (named := answer.headers.get("Location")) is not None:
            location = addresses.resolve_location(session.location, named)
        self._state.save(location, offset)
        if offset > self._best:
            self._best = offset
            self._refusals = 0
            self._piece = min(self._uploader.piece_bytes, 2 * session.piece)
            self._backoff.progress()
        else:
            self._backoff.wait("the registry kept none of the bytes")
        return replace(
            session, location=location, offset=offset, piece=max(session.least, self._piece)
        )

    def _send_whole(self, session: _Session, *, last: bool) -> bool:
        """Send the whole blob in the closing PUT; False when it must start over."""
        url = addresses.add_query(session.location, f"digest={self._descriptor.digest}")
        answer = self._send("PUT", url, {}, 0, self._descriptor.size)
        if answer is not None and answer.status in _TAKEN:
            self._check_digest(answer.headers.get("Docker-Content-Digest"))
            return True
        if answer is None:
            if self._is_there():
                return True
            if last:
                raise NetworkError(
                    f"{self._what}: the connection broke {_MAX_WHOLE_TRIES} times, and this "
                    "registry takes no uploads in pieces; check the network and run again"
                )
        elif answer.status == 404:
            self._backoff.wait("the registry dropped the upload")
        else:
            self._after_refusal(answer, session)
        return False

    def _commit(self, session: _Session) -> bool:
        """Close the upload under its digest; False when the registry has dropped it."""
        url = addresses.add_query(session.location, f"digest={self._descriptor.digest}")
        try:
            response = self._client.request(
                "PUT",
                url,
                what=self._what,
                expect=_TAKEN,
                actions=PUSH,
                content=b"",
                read_timeout=self._sender.answer_seconds(self._descriptor.size),
            )
        except NotFoundError:
            # The answer to an earlier try may have been lost on its way.
            self._state.forget()
            if self._is_there():
                return True
            self._backoff.wait("the registry dropped the upload")
            return False
        except IntegrityError:
            self._state.forget()
            raise
        self._check_digest(response.headers.get("Docker-Content-Digest"))
        return True

    def _send(
        self, method: str, url: str, headers: dict[str, str], start: int, length: int
    ) -> bodies.Answer | None:
        """Send one request with bytes; None after a broken connection, having waited."""
        position = start

        def sent(count: int) -> None:
            nonlocal position
            position += count
            self._backoff.touch()
            self._report(position)

        try:
            return self._sender.send(
                method, url, headers, self._content, start=start, length=length, sent=sent
            )
        except BrokenConnectionError as error:
            self._backoff.wait(str(error))
            return None

    # When it does not work

    def _after_break(self, session: _Session) -> _Session | None:
        asked = self._asked(session)
        if asked is None:
            self._state.forget()
            return None
        if asked.offset > self._best:
            self._best = asked.offset
            self._backoff.progress()
        self._state.save(asked.location, asked.offset)
        return asked

    def _after_refusal(self, answer: bodies.Answer, session: _Session) -> _Session | None:
        """Wait or renew after an answer that may pass; raise the error that any other means."""
        final = is_out_of_space(answer.status, answer.body)
        if answer.status in RETRIED_STATUSES and not final:
            after = retry_after(answer.headers.get("Retry-After"), now=time.time())
            self._backoff.wait(passing_reason(answer.status, answer.body), after)
            return self._after_break(session)
        own = addresses.origin_of(session.location) == self._client.endpoint
        if answer.status == 401 and own and self._refusals < _MAX_REFUSALS:
            self._refusals += 1
            self._sender.renew(answer)
            return self._after_break(session)
        raise response_error(
            answer.status,
            answer.body,
            what=self._what,
            registry=self._client.registry,
            logged_in=self._client.authenticator.logged_in,
        )

    def _is_there(self) -> bool:
        response = self._client.request(
            "HEAD",
            f"blobs/{self._descriptor.digest}",
            what=self._what,
            expect={200, 404, *TO_STORAGE},
            redirects=MOVED,
            actions=PUSH,
            max_bytes=0,
        )
        return response.status != 404

    def _check_digest(self, served: str | None) -> None:
        digest = self._descriptor.digest
        if served is not None and served.startswith(digest.algorithm) and served != str(digest):
            raise IntegrityError(f"{self._what}: the registry stored it as {served[:80]!r}")

    def _report(self, position: int) -> None:
        """Report bytes once, however often they are sent."""
        if position > self._reported and self._progress is not None:
            self._progress(position - self._reported)
        self._reported = max(self._reported, position)


def _location(response: Response) -> str:
    location = response.headers.get("Location")
    if location is None:
        raise NetworkError("the registry opened an upload without saying where")
    return addresses.resolve_location(response.url, location)
