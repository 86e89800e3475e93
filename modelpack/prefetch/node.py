"""What the daemon needs of the place where models go: the seam between deciding and doing.

Owns the protocol and its values. ``nodes/`` implements it for containerd and for a directory; the
tests have one in memory with fault knobs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from modelpack.digest import Digest
from modelpack.errors import ModelpackError
from modelpack.events import Observer
from modelpack.manifest import Manifest
from modelpack.pulling import Gate
from modelpack.ratelimit import RateLimiter


class InUseError(ModelpackError):
    """The model is mounted, so it cannot be removed now."""


class GoneError(ModelpackError):
    """The model is not on the node any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A piece of disk that a model takes, perhaps together with others."""

    key: str
    """Two models that have a part of one key share it."""
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """A model that is on the node, complete and visible."""

    digest: Digest
    """Of its manifest."""
    names: tuple[str, ...]
    """The references under which it can be mounted."""
    parts: tuple[Part, ...]
    pinned: bool


def used_bytes(models: Iterable[Installed]) -> int:
    """Return how much disk models take together; what several share counts once.

    >>> shared = Part(key="a", bytes=5)
    >>> one = Installed(digest=Digest.of(b"1"), names=(), parts=(shared,), pinned=False)
    >>> two = Installed(digest=Digest.of(b"2"), names=(), parts=(shared,), pinned=False)
    >>> used_bytes([one, two])
    5
    """
    return sum({part.key: part.bytes for model in models for part in model.parts}.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """What a reference names at the moment, seen before any weight is fetched."""

    manifest: Manifest
    total_bytes: int
    """Of the model's files: what is reserved before a byte is downloaded."""
    parts: tuple[Part, ...] = ()
    """What it will take on the disk, if that can be told: parts that are here need no reserving.
    Without it, all of ``total_bytes`` is reserved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallResult:
    """What making one model ready took."""

    digest: Digest
    bytes: int
    fetched_bytes: int
    reused_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """A file of a model that is not what the model's index says any more."""

    digest: Digest
    path: str
    reason: str


class Node(Protocol):
    """A place for models. Its methods may be called from several threads at once.

    All raise modelpack's errors: ``NetworkError`` when the registry or the runtime does not answer
    (try again later), ``SpaceError`` when the disk is full, ``PolicyError`` when a gate refuses.
    """

    kind: str

    def check(self) -> None:
        """Return if the runtime answers and can take models; raise what is the matter if not."""

    def resolve(self, reference: str, *, gate: Gate | None) -> Resolution:
        """Look a reference up, without fetching any weight, and have the gate decide."""

    def install(
        self,
        reference: str,
        digest: Digest,
        *,
        gate: Gate | None,
        limiter: RateLimiter,
        observer: Observer,
        fetches: bool = True,
    ) -> InstallResult:
        """Bring exactly that version here, verified, visible under the reference, pinned.

        Goes on with what an interrupted call left. An observer that raises stops it. Without
        ``fetches`` the version is here and is only to be had under the reference: no disk is taken,
        and nothing is left of an interrupted call.

        Raises:
            GoneError: nothing was to be fetched, but the version is not here any more.
        """

    def models(self) -> tuple[Installed, ...]:
        """Return the models that are here, whoever brought them."""

    def mounted(self) -> frozenset[Digest]:
        """Return the models that something on the node mounts or runs now."""

    def remove(self, digest: Digest) -> None:
        """Remove a model, all its names, and what nothing else uses of it.

        Idempotent.

        Raises:
            InUseError: it is mounted; nothing was changed.
        """

    def pin(self, digest: Digest, *, pinned: bool) -> None:
        """Keep a model from the runtime's own garbage collection, or leave it to that."""

    def abandon(self, digest: Digest) -> None:
        """Drop what an interrupted ``install`` of a version nobody wants any more has left."""

    def unfinished_bytes(self) -> int:
        """Return how much disk interrupted and running installs take now."""

    def free_bytes(self) -> int:
        """Return how much the file system that models go to has left."""

    def scrub(
        self, digest: Digest, *, limiter: RateLimiter, stop: Callable[[], bool]
    ) -> tuple[Damage, ...]:
        """Read a model again and compare it with its index, at a limited rate.

        Returns what is damaged; what was not read because ``stop`` said so is not mentioned.
        """

    def quarantine(self, digest: Digest, damage: Iterable[Damage]) -> None:
        """Make sure a damaged model is not mounted any more by new containers.

        Its sound chunks stay usable, so that the ``install`` that repairs it fetches little.
        """
