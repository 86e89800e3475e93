"""A repository that is asked for at its registry's mirrors first.

Owns the order of asking and when a mirror is given up. Leaves out asking (``repository.py``,
``ranges.py``) and verifying, which is the same wherever bytes come from.

Manifests and blobs come from the first mirror that has them, and from the registry itself if none
does. Lists of tags and of what is attached to a model come from the registry if it answers at all:
a mirror could keep signatures back. Pushing knows no mirrors. A mirror gets no login of the
registry's.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TypeVar

from modelpack.descriptor import Descriptor
from modelpack.digest import Digest
from modelpack.errors import IntegrityError, ModelpackError, NetworkError, NotFoundError
from modelpack.events import Observer, Warned, ignore
from modelpack.manifest import Index, Manifest
from modelpack.reference import RegistryReference
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.repository import RegistryRepository
from modelpack.registry.retry import reason_of
from modelpack.storage import ByteStream, RangeConnection, RangeIgnoredError, WrongBytesError

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")
# A connection may break without the mirror being down. After so many in a row it is left alone for
# a while; one whose bytes were wrong, for the whole transfer.
_STRIKES = 2
_REST_SECONDS = 30.0


class _Source:
    """A mirror, and whether it is worth asking now."""

    def __init__(self, repository: RegistryRepository, observer: Observer) -> None:
        self.repository = repository
        self.name = repository.client.endpoint.url
        self._observer = observer
        self._lock = threading.Lock()
        self._strikes = 0
        self._out_until = 0.0
        self._said = False

    @property
    def is_usable(self) -> bool:
        return time.monotonic() >= self._out_until

    def worked(self) -> None:
        """Take note of an answer that was good."""
        with self._lock:
            self._strikes = 0

    def failed(self, error: BaseException) -> None:
        """Take note of a failure; say so once."""
        reason = str(error) if isinstance(error, ModelpackError) else reason_of(error)
        _logger.debug("mirror %s: %s", self.name, reason)
        with self._lock:
            if isinstance(error, IntegrityError | WrongBytesError):
                self._out_until = math.inf
            elif not isinstance(error, NotFoundError):  # what it lacks, it may lack alone
                self._strikes += 1
                if self._strikes >= _STRIKES:
                    self._strikes, self._out_until = 0, time.monotonic() + _REST_SECONDS
            said, self._said = self._said, True
        if not said:
            self._observer(Warned(message=f"mirror {self.name}: {reason}; asking elsewhere"))


class MirroredRepository(RegistryRepository):
    """A repository of a registry that has mirrors; thread-safe."""

    def __init__(
        self,
        reference: RegistryReference,
        options: ConnectionOptions,
        observer: Observer = ignore,
    ) -> None:
        """Prepare, without connecting.

        Raises:
            UsageError: the options' certificate file is unusable.
        """
        super().__init__(reference, options, observer)
        self._sources = [
            _Source(
                RegistryRepository(reference, options.for_mirror(mirror), observer, mirror=mirror),
                observer,
            )
            for mirror in options.mirrors_of(reference.registry)
        ]

    def close(self) -> None:
        """Close all connections."""
        for source in self._sources:
            source.repository.close()
        super().close()

    def resolve(self, name: str | Digest) -> Descriptor:
        """Return the descriptor of the manifest at a tag or digest; see ``RegistryRepository``."""
        resolve = super().resolve
        return self._first(lambda mirror: mirror.resolve(name), lambda: resolve(name))

    def fetch_manifest(self, name: str | Digest) -> Manifest | Index:
        """Return the verified manifest at a tag or digest.

        By digest it is proved. By tag it is what the first mirror that answers says; which mirrors
        may say so is the configuration's choice.
        """
        fetch = super().fetch_manifest
        return self._first(lambda mirror: mirror.fetch_manifest(name), lambda: fetch(name))

    def fetch_blob(self, descriptor: Descriptor, *, max_bytes: int) -> bytes:
        """Return a small blob, verified."""
        fetch = super().fetch_blob
        return self._first(
            lambda mirror: mirror.fetch_blob(descriptor, max_bytes=max_bytes),
            lambda: fetch(descriptor, max_bytes=max_bytes),
        )

    def open_blob(
        self, descriptor: Descriptor, start: int = 0, length: int | None = None
    ) -> AbstractContextManager[ByteStream]:
        """Open a blob as one stream, from the registry: what was read cannot be taken back.

        Only where that does not answer is a mirror asked.
        """
        return self._open_blob(
            super().open_blob(descriptor, start, length), descriptor, start, length
        )

    def range_connection(self) -> RangeConnection:
        """Return a new connection for fetching ranges of blobs, for one thread."""
        return _MirroredConnection(self._sources, super().range_connection())

    def tags(self) -> list[str]:
        """Return all tags, sorted."""
        return self._last(super().tags, lambda mirror: mirror.tags())

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Return the descriptors of the manifests whose subject is ``digest``."""
        list_them = super().referrers
        return self._last(
            lambda: list_them(digest, artifact_type),
            lambda mirror: mirror.referrers(digest, artifact_type),
        )

    @contextmanager
    def _open_blob(
        self,
        origin: AbstractContextManager[ByteStream],
        descriptor: Descriptor,
        start: int,
        length: int | None,
    ) -> Iterator[ByteStream]:
        with ExitStack() as opened:

            def of_mirror(mirror: RegistryRepository) -> ByteStream:
                return opened.enter_context(mirror.open_blob(descriptor, start, length))

            yield self._last(lambda: opened.enter_context(origin), of_mirror)

    def _first(
        self, of_mirror: Callable[[RegistryRepository], _T], of_origin: Callable[[], _T]
    ) -> _T:
        """Ask the mirrors, then the registry."""
        for source in self._sources:
            if not source.is_usable:
                continue
            try:
                found = of_mirror(source.repository)
            except ModelpackError as error:
                source.failed(error)
            else:
                source.worked()
                return found
        return of_origin()

    def _last(
        self, of_origin: Callable[[], _T], of_mirror: Callable[[RegistryRepository], _T]
    ) -> _T:
        """Ask the registry, and the mirrors only where that does not answer."""
        try:
            return of_origin()
        except NetworkError:
            for source in self._sources:
                try:
                    return of_mirror(source.repository)
                except ModelpackError as error:
                    source.failed(error)
            raise


class _MirroredConnection:
    """A worker's connections: one to each mirror, and one to the registry."""

    def __init__(self, sources: list[_Source], origin: RangeConnection) -> None:
        self._sources = sources
        self._mirrors = [source.repository.range_connection() for source in sources]
        self._origin = origin
        self._aborted = False

    def open_range(
        self, descriptor: Descriptor, start: int, length: int
    ) -> AbstractContextManager[ByteStream]:
        """Open a range at the first place that has it (see ``storage.RangeConnection``)."""
        return self._open(descriptor, start, length)

    @contextmanager
    def _open(self, descriptor: Descriptor, start: int, length: int) -> Iterator[ByteStream]:
        for source, connection in zip(self._sources, self._mirrors, strict=True):
            if not source.is_usable:
                continue
            with ExitStack() as opened:
                try:
                    stream = opened.enter_context(connection.open_range(descriptor, start, length))
                except RangeIgnoredError as ignored:
                    # As a cache does with a blob that it has to fetch first: take all of it.
                    raise RangeIgnoredError(self._watched(source, ignored.stream)) from None
                except ModelpackError as error:
                    self._note(source, error)
                    continue
                with self._watched(source, nullcontext(stream)) as watched:
                    yield watched
                return
        with self._origin.open_range(descriptor, start, length) as stream:
            yield stream

    @contextmanager
    def _watched(
        self, source: _Source, stream: AbstractContextManager[ByteStream]
    ) -> Iterator[ByteStream]:
        with stream as opened:
            try:
                yield opened
            except Exception as error:
                self._note(source, error)
                raise
            source.worked()

    def _note(self, source: _Source, error: BaseException) -> None:
        if not self._aborted:  # a connection that was told to stop has not failed
            source.failed(error)

    def abort(self) -> None:
        """Make a read in progress, in another thread, fail at once."""
        self._aborted = True
        for connection in (*self._mirrors, self._origin):
            connection.abort()

    def close(self) -> None:
        """Close every connection; the next request opens new ones."""
        for connection in (*self._mirrors, self._origin):
            connection.close()
