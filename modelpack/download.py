"""The download engine: many connections, each chunk verified before it counts, bounded memory.

Owns the worker threads and what one does with a range: read into a reused buffer, hash, write at
the final offset, report the chunk. Leaves out which range comes next (``schedule.py``), HTTP
(``registry/ranges.py``) and files (``stores/staging.py``).

Memory is one piece buffer for each connection. Chunks arrive out of order; the sink is told of a
chunk only after its BLAKE3 matched, and nothing else is said to be there.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from blake3 import blake3

from modelpack.content import PIECE_BYTES
from modelpack.descriptor import Descriptor
from modelpack.digest import chunk_hash
from modelpack.errors import IntegrityError, ModelpackError, NetworkError, TransientError
from modelpack.events import Observer, Retried
from modelpack.plan import ChunkMap, ChunkState, FetchRange
from modelpack.ratelimit import RateLimiter
from modelpack.schedule import Assignment, ConnectionGovernor, RangeQueue
from modelpack.storage import ByteStream, RangeConnection, RangeIgnoredError, WrongBytesError
from modelpack.stores.pagecache import aligned_buffer, placed

_logger = logging.getLogger(__name__)

# How often goodput is measured and slow connections are looked for.
_TICK_SECONDS = 0.5
# After this long without a complaint of the server one more connection is tried again.
_EASE_SECONDS = 15.0
# Left-over bytes of a response that are read to keep the connection, rather than closing it.
_DRAIN_BYTES = 256 * 1024
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 10.0
# A registry may be away for a minute; after two without a single byte the user should hear of it.
GIVE_UP_SECONDS = 120.0
# Wrong bytes may come from one bad proxy or disk: the same chunk is asked for again, elsewhere if
# the registry redirects, but only this often.
_WRONG_BYTES_TRIES = 3
# A chunk whose transfer breaks off this often without ever completing will not complete.
_STRIKES = 8


class Sink(Protocol):
    """Where verified chunks go."""

    def write(self, chunk: int, offset: int, data: memoryview) -> None:
        """Put bytes at ``offset`` of a chunk; they count only once the chunk is verified."""

    def verified(self, chunks: Sequence[int]) -> None:
        """Take note that all bytes of these chunks are written and match their hashes."""


class Downloader:
    """Fetches ranges of chunks in parallel until all are verified, or it is hopeless."""

    def __init__(
        self,
        *,
        chunk_map: ChunkMap,
        states: bytearray,
        layers: Sequence[Descriptor],
        connect: Callable[[], RangeConnection],
        sink: Sink,
        observer: Observer,
        max_connections: int | None = None,
        start_connections: int | None = None,
        limiter: RateLimiter | None = None,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        """Prepare; ``states`` is updated from FETCH to HAVE as chunks arrive."""
        self._map = chunk_map
        self._states = states
        self._layers = layers
        self._connect = connect
        self._sink = sink
        self._observer = observer
        self._limiter = limiter or RateLimiter(None)
        self._give_up_seconds = give_up_seconds
        self._governor = (
            ConnectionGovernor.starting(max_connections, start_connections)
            if start_connections
            else ConnectionGovernor.starting(max_connections)
        )
        self._condition = threading.Condition()
        self._queue = RangeQueue.of(chunk_map, ())
        self._workers: list[threading.Thread] = []
        self._connections: dict[Assignment, RangeConnection] = {}
        self._failure: BaseException | None = None
        self._last_progress = 0.0
        self._wrong_bytes: dict[int, int] = {}
        self._strikes: dict[int, int] = {}
        self._running = 0
        self._reading: set[int] = set()
        self._backed_off_at = 0.0
        self._eased_at = 0.0
        self._trouble = ""
        self.received_bytes = 0
        """Body bytes read so far, those thrown away included."""

    def run(self, ranges: Sequence[FetchRange]) -> None:
        """Fetch everything; return when every chunk of ``ranges`` is verified.

        Raises:
            IntegrityError: a chunk kept coming with other bytes.
            NetworkError: no progress for too long.
            KeyboardInterrupt: passed on, once every worker has stopped.
        """
        self._queue = RangeQueue.of(self._map, ranges)
        self._last_progress = time.monotonic()
        try:
            self._supervise()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._stop()
        if self._failure is not None:
            raise self._failure

    def _supervise(self) -> None:
        seen, seen_at = 0, time.monotonic()
        while True:
            with self._condition:
                if self._failure is not None or self._queue.is_done:
                    return
                self._spawn()
                self._condition.wait(_TICK_SECONDS)
                now = time.monotonic()
                if now - self._last_progress > self._give_up_seconds:
                    raise NetworkError(
                        f"no data for {self._give_up_seconds:.0f} seconds{self._trouble}; "
                        "run again to continue"
                    )
                elapsed = now - seen_at
                if elapsed >= _TICK_SECONDS:
                    rate = (self.received_bytes - seen) / elapsed
                    self._governor.measured(rate, self._running)
                    seen, seen_at = self.received_bytes, now
                if now - self._eased_at > _EASE_SECONDS:
                    self._governor.eased()
                    self._eased_at = now
                for assignment in self._queue.slow(now):
                    _logger.debug("replacing a slow connection")
                    self._cancel(assignment)

    def _spawn(self) -> None:
        wanted = min(self._governor.target, len(self._queue.waiting) + len(self._queue.active))
        while self._running < wanted:
            worker = threading.Thread(target=self._work, name="modelpack-fetch", daemon=True)
            try:
                worker.start()
            except RuntimeError as error:  # a limit on processes, as containers have
                if not self._running:
                    raise ModelpackError(f"no thread can be started: {error}") from error
                self._governor.capped(self._running)
                return
            self._running += 1
            self._workers.append(worker)

    def _stop(self) -> None:
        with self._condition:
            for assignment in list(self._connections):
                self._cancel(assignment)
            self._condition.notify_all()
        for worker in self._workers:
            worker.join()

    def _cancel(self, assignment: Assignment) -> None:
        assignment.cancelled = True
        connection = self._connections.get(assignment)
        if connection is not None:
            connection.abort()

    def _fail(self, error: BaseException) -> None:
        with self._condition:
            if self._failure is None:
                self._failure = error
            self._condition.notify_all()

    def _work(self) -> None:
        connection = None
        buffer = aligned_buffer(PIECE_BYTES)
        failures = 0
        try:
            connection = self._connect()
            while assignment := self._take():
                with self._condition:
                    self._connections[assignment] = connection
                try:
                    self._fetch(connection, assignment, buffer)
                except TransientError as error:
                    failures += 1
                    delay = self._retry(assignment, error, failures)
                    connection.close()
                    connection = self._connect()
                    self._pause(delay)
                else:
                    failures = 0
                    with self._condition:
                        self._connections.pop(assignment, None)
                        self._queue.finish(assignment)
                        self._condition.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._fail(error)
        finally:
            if connection is not None:
                with suppress(OSError):
                    connection.close()
            with self._condition:
                self._running -= 1
                self._condition.notify_all()

    def _take(self) -> Assignment | None:
        """Wait for work; None when there is none left, or too many are working."""
        with self._condition:
            while True:
                if self._failure is not None or self._running > self._governor.target:
                    return None
                assignment = self._queue.take(time.monotonic())
                if assignment is not None:
                    return assignment
                if self._queue.is_done:
                    return None
                self._condition.wait(_TICK_SECONDS)

    def _retry(self, assignment: Assignment, error: TransientError, failures: int) -> float:
        """Queue the rest again and return how long this worker should wait."""
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * float(1 << min(failures - 1, 10)))
        delay *= 0.5 + random.random()  # noqa: S311 - jitter, not a secret
        if error.retry_after is not None:
            delay = max(delay, error.retry_after)
        with self._condition:
            self._connections.pop(assignment, None)
            if assignment.received and not assignment.cancelled:
                strikes = self._strikes[assignment.cursor] = (
                    self._strikes.get(assignment.cursor, 0) + 1
                )
                if strikes >= _STRIKES:
                    raise NetworkError(f"{error}, {strikes} times at the same place") from error
            self._queue.give_back(assignment)
            # What was sent before the last backing off could not know of it.
            if error.is_throttle and assignment.started >= self._backed_off_at:
                self._governor.throttled()
                self._backed_off_at = self._eased_at = time.monotonic()
            if not assignment.cancelled:
                self._trouble = f" ({error})"
            if assignment.cancelled and self._failure is None:
                delay = 0.0
            self._condition.notify_all()
        if not assignment.cancelled:
            layer = self._layers[assignment.layer].digest.short
            self._observer(Retried(what=f"layer {layer}", reason=str(error), delay=delay))
        return delay

    def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        until = time.monotonic() + seconds
        with self._condition:
            while self._failure is None and (left := until - time.monotonic()) > 0:
                self._condition.wait(left)

    def _fetch(
        self, connection: RangeConnection, assignment: Assignment, buffer: memoryview
    ) -> None:
        start, end = self._bounds(assignment)
        descriptor = self._layers[assignment.layer]
        try:
            with connection.open_range(descriptor, start, end - start) as stream:
                self._read_chunks(stream, assignment, buffer, start)
                self._leave(connection, stream, assignment, buffer, end)
        except RangeIgnoredError as ignored:
            with ignored.stream as stream:
                self._read_layer(stream, assignment, buffer)

    def _read_layer(self, stream: ByteStream, assignment: Assignment, buffer: memoryview) -> None:
        """Read a whole layer in order, because the server knows no ranges."""
        chunks = [
            chunk
            for file in self._map.index.files_of_layer(assignment.layer)
            for chunk in file.chunks
            if self._states[chunk] == ChunkState.FETCH
        ]
        with self._condition:
            if not chunks or not self._queue.stream_layer(assignment, chunks[0], chunks[-1] + 1):
                assignment.cursor = assignment.last
                return
        self._read_chunks(stream, assignment, buffer, 0)

    def _read_chunks(
        self,
        stream: ByteStream,
        assignment: Assignment,
        buffer: memoryview,
        position: int,
    ) -> None:
        """Read the assignment's chunks from a stream that stands at layer offset ``position``."""
        while True:
            if few := self._claim_small(assignment):
                position = self._read_small(stream, assignment, few, buffer, position)
                continue
            chunk = assignment.cursor
            if chunk >= assignment.last:
                return
            if self._claim(chunk, assignment):
                try:
                    start = self._map.start(chunk)
                    self._discard(stream, assignment, buffer, start - position)
                    self._read_chunk(stream, assignment, chunk, buffer)
                    position = self._map.end(chunk)
                finally:
                    with self._condition:
                        self._reading.discard(chunk)
                        self._condition.notify_all()
            with self._condition:
                assignment.cursor = chunk + 1

    def _claim(self, chunk: int, assignment: Assignment) -> bool:
        """Tell whether a chunk is still wanted, once no other connection is at it.

        Two are at one chunk where a server ignores some ranges. Had both written it, the later
        bytes, not verified yet, would replace the earlier ones, which are.
        """
        with self._condition:
            while chunk in self._reading and not self._is_over(assignment):
                self._condition.wait(_TICK_SECONDS)
            if self._states[chunk] != ChunkState.FETCH:
                return False
            if self._is_over(assignment):
                raise TransientError("cancelled")
            self._reading.add(chunk)
            return True

    def _claim_small(self, assignment: Assignment) -> list[int]:
        """Claim the next chunks if several of them fit into one piece; else nothing.

        Taking a lock and waking others for each costs more than moving some kilobytes does. A split
        takes place further on (``MIN_SPLIT_BYTES``).
        """
        first, starts, ends = assignment.cursor, self._map.start, self._map.end
        if first + 1 >= assignment.last or ends(first + 1) - starts(first) > PIECE_BYTES:
            return []
        claimed: list[int] = []
        with self._condition:
            for chunk in range(first, assignment.last):
                if chunk in self._reading or ends(chunk) - starts(first) > PIECE_BYTES:
                    break
                if self._states[chunk] == ChunkState.FETCH:
                    claimed.append(chunk)
            self._reading.update(claimed)
        return claimed

    def _is_over(self, assignment: Assignment) -> bool:
        return self._failure is not None or assignment.cancelled

    def _read_chunk(
        self, stream: ByteStream, assignment: Assignment, chunk: int, buffer: memoryview
    ) -> None:
        hasher = blake3()
        index = self._map.index
        length, base = index.lengths[chunk], index.offsets[chunk]
        offset = 0
        while offset < length:
            # Pieces end where blocks of the file do, so that only a chunk's ends are parts of blocks.
            room = PIECE_BYTES - (base + offset) % PIECE_BYTES
            piece = placed(buffer, base + offset, min(room, length - offset))
            filled = 0
            while filled < len(piece):
                count = self._receive(stream, assignment, piece[filled:])
                hasher.update(piece[filled : filled + count])
                filled += count
            self._sink.write(chunk, offset, piece)
            offset += filled
        if hasher.digest() != self._map.index.hash_of(chunk):
            self._wrong(chunk)
        self._count((chunk,))

    def _read_small(
        self,
        stream: ByteStream,
        assignment: Assignment,
        chunks: list[int],
        buffer: memoryview,
        position: int,
    ) -> int:
        """Read claimed chunks through one buffer; return the layer offset after them.

        What has come whole counts, also if the rest does not come.
        """
        base, end = self._map.start(chunks[0]), self._map.end(chunks[-1])
        filled = 0
        done: list[int] = []
        try:
            self._discard(stream, assignment, buffer, base - position)
            for chunk in chunks:
                start, stop = self._map.start(chunk) - base, self._map.end(chunk) - base
                while filled < stop:
                    filled += self._receive(stream, assignment, buffer[filled : end - base])
                piece = buffer[start:stop]
                if chunk_hash(piece) != self._map.index.hash_of(chunk):
                    self._wrong(chunk)
                self._sink.write(chunk, 0, piece)
                done.append(chunk)
        finally:
            try:
                self._count(done)
            finally:
                with self._condition:
                    self._reading.difference_update(chunks)
                    if done:
                        assignment.cursor = done[-1] + 1
                    self._condition.notify_all()
        return end

    def _count(self, chunks: Sequence[int]) -> None:
        """Take note of chunks that are written and verified."""
        for chunk in chunks:
            self._states[chunk] = ChunkState.HAVE
        if chunks:
            self._sink.verified(chunks)

    def _wrong(self, chunk: int) -> None:
        with self._condition:
            tries = self._wrong_bytes[chunk] = self._wrong_bytes.get(chunk, 0) + 1
        file = self._map.index.files[self._map.file_of[chunk]]
        message = (
            f"{file.path}: chunk {chunk - file.first_chunk} arrived with other bytes than its "
            f"BLAKE3 promises (layer {self._layers[file.layer].digest})"
        )
        if tries >= _WRONG_BYTES_TRIES:
            raise IntegrityError(f"{message}; the registry's copy is damaged or was changed")
        raise WrongBytesError(message)

    def _discard(
        self, stream: ByteStream, assignment: Assignment, buffer: memoryview, size: int
    ) -> None:
        while size > 0:
            size -= self._receive(stream, assignment, buffer[:size])

    def _receive(self, stream: ByteStream, assignment: Assignment, buffer: memoryview) -> int:
        count = stream.readinto(buffer[: self._limiter.piece(len(buffer))])
        if count == 0:
            raise TransientError("the server closed the connection early")
        now = time.monotonic()
        with self._condition:
            self.received_bytes += count
            assignment.received += count
            self._last_progress = now
            over = self._is_over(assignment)
        if over:
            raise TransientError("cancelled")
        self._pause(self._limiter.reserve(count))
        return count

    def _leave(
        self,
        connection: RangeConnection,
        stream: ByteStream,
        assignment: Assignment,
        buffer: memoryview,
        end: int,
    ) -> None:
        """Use up what a split left of the response, or drop the connection."""
        left = end - self._map.end(assignment.last - 1)
        if left > _DRAIN_BYTES:
            connection.close()
        else:
            self._discard(stream, assignment, buffer, left)

    def _bounds(self, assignment: Assignment) -> tuple[int, int]:
        with self._condition:
            return (
                self._map.start(assignment.cursor),
                self._map.end(assignment.last - 1),
            )
