"""What the daemon remembers of each model from one run to the next.

Owns the values and their JSON. Leaves out the file (``state.py``) and what follows from them.

Two clocks are in use. *Wall* times are seconds since the epoch, only shown. *Steady* times are
seconds that daemons have run on this node all told, kept with the state: every wait that protects
something (soaking, back-off, keeping the last good version) is counted in it, so that no jump of
the wall clock ends one early, and a time without a daemon does not count.

    >>> Progress(name="a", reference="r.example/a:v1").to_json()["adopted"] is None
    True
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelpack.digest import Digest
from modelpack.errors import FormatError

# Three weeks of versions at the default bound on updates, none of them evicted meanwhile.
MAX_VERSIONS = 512
MAX_TURNED_AWAY = 64
DAY = 86400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A version of a model that this daemon brought to the node."""

    digest: Digest
    bytes: int
    ready_at: float
    """Wall time at which it was made ready."""
    ready_steady: float
    used_at: float | None = None
    """Wall time at which it was last seen mounted since it was made ready."""
    used_steady: float | None = None
    released: bool = False
    """Whether it was left to the runtime's garbage collection, for being wanted no more. If it is
    found pinned after that, an operator did it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why the last try failed, and when the next one is."""

    kind: str
    """A word of ``failures.KINDS``."""
    reason: str
    attempts: int
    next_steady: float
    digest: Digest | None = None
    """Of the version that was tried; None if it was the reference that could not be looked up."""
    free_bytes: int | None = None
    """What the disk had left, if that was the trouble; it must have more before the next try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LastTransfer:
    """What the transfer of a model that ended last took."""

    fetched_bytes: int
    reused_bytes: int
    timings: Mapping[str, float]
    """Seconds in each stage, by its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One model, by its name in the configuration."""

    name: str
    reference: str
    """As last configured."""
    adopted: Digest | None = None
    """The version that this node should have: the last that was made ready, or was gone back to."""
    previous: Digest | None = None
    """The last good version before it."""
    versions: tuple[Version, ...] = ()
    """What was brought and not been evicted since; the newest last."""
    candidate: Digest | None = None
    """What the reference names, and the policy lets through, if that is not what is adopted."""
    candidate_seen: float = 0.0
    """Steady time at which this node first saw the candidate: soaking is counted from it."""
    turned_away: frozenset[Digest] = frozenset()
    """Versions that were rolled back from."""
    held: bool = False
    """Whether somebody asked this node to stay with what is adopted."""
    adoptions: tuple[float, ...] = ()
    """Steady times at which newer versions were adopted, of the last day."""
    failure: Failure | None = None
    """Of bringing a version."""
    lookup: Failure | None = None
    """Of looking the reference up, which does not stop what was looked up before."""
    resolved: float | None = None
    """Steady time of the last successful look-up; None asks for one."""
    scrubbed: float | None = None
    """Steady time at which it was last read again, or made ready."""
    scrub_asked: bool = False
    damaged: Digest | None = None
    """The version in which a scrub found damage that is not repaired yet."""
    last: LastTransfer | None = None

    def version(self, digest: Digest | None) -> Version | None:
        """Return what is known of a version that was brought."""
        return next((one for one in self.versions if one.digest == digest), None)

    def with_version(self, version: Version) -> "Progress":
        """Return the same with a version added, or known anew."""
        others = [one for one in self.versions if one.digest != version.digest]
        return replace(self, versions=(*others, version)[-MAX_VERSIONS:])

    def without_version(self, digest: Digest) -> "Progress":
        """Return the same after a version has left the node."""
        return replace(
            self,
            versions=tuple(one for one in self.versions if one.digest != digest),
            previous=None if self.previous == digest else self.previous,
            damaged=None if self.damaged == digest else self.damaged,
        )

    @property
    def is_forgettable(self) -> bool:
        """Whether nothing would be lost with it, once the model is not configured any more."""
        return not (self.versions or self.turned_away or self.held)

    def to_json(self) -> dict[str, Any]:
        """Return it for the state file."""
        return {
            "name": self.name,
            "reference": self.reference,
            "adopted": _text(self.adopted),
            "previous": _text(self.previous),
            "versions": [_version_to_json(version) for version in self.versions],
            "candidate": _text(self.candidate),
            "candidate_seen": self.candidate_seen,
            "turned_away": sorted(map(str, self.turned_away)),
            "held": self.held,
            "adoptions": list(self.adoptions),
            "failure": None if self.failure is None else _failure_to_json(self.failure),
            "lookup": None if self.lookup is None else _failure_to_json(self.lookup),
            "resolved": self.resolved,
            "scrubbed": self.scrubbed,
            "scrub_asked": self.scrub_asked,
            "damaged": _text(self.damaged),
            "last": None if self.last is None else _transfer_to_json(self.last),
        }

    @classmethod
    def from_json(cls, value: Any) -> "Progress":
        """Read what ``to_json`` wrote.

        Raises:
            FormatError: it is something else.
        """
        try:
            return cls(
                name=_of(value["name"], str),
                reference=_of(value["reference"], str),
                adopted=_digest(value["adopted"]),
                previous=_digest(value["previous"]),
                versions=tuple(map(_version_from_json, value["versions"])),
                candidate=_digest(value["candidate"]),
                candidate_seen=_number(value["candidate_seen"]),
                turned_away=frozenset(map(Digest.parse, value["turned_away"])),
                held=_of(value["held"], bool),
                adoptions=tuple(map(_number, value["adoptions"])),
                failure=_failure_from_json(value["failure"]),
                lookup=_failure_from_json(value["lookup"]),
                resolved=_optional_number(value["resolved"]),
                scrubbed=_optional_number(value["scrubbed"]),
                scrub_asked=_of(value["scrub_asked"], bool),
                damaged=_digest(value["damaged"]),
                last=_transfer_from_json(value["last"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"what is kept of a model cannot be read: {error!r:.200}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """Disk that is promised to one version, from before its first byte until it is ready."""

    name: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Everything that outlives a daemon."""

    steady: float = 0.0
    """How many seconds daemons have run on this node."""
    models: Mapping[str, Progress] = field(default_factory=dict)
    reservations: Mapping[Digest, Reservation] = field(default_factory=dict)
    """Of installs that run or were interrupted."""

    def to_json(self) -> dict[str, Any]:
        """Return it for the state file."""
        return {
            "steady": self.steady,
            "models": [progress.to_json() for progress in self.models.values()],
            "reservations": {
                str(digest): {"name": one.name, "bytes": one.bytes}
                for digest, one in self.reservations.items()
            },
        }

    @classmethod
    def from_json(cls, value: Any) -> "State":
        """Read what ``to_json`` wrote.

        Raises:
            FormatError: it is something else.
        """
        try:
            models = [Progress.from_json(item) for item in value["models"]]
            return cls(
                steady=max(0.0, _number(value["steady"])),
                models={progress.name: progress for progress in models},
                reservations={
                    Digest.parse(digest): Reservation(
                        name=_of(item["name"], str), bytes=_of(item["bytes"], int)
                    )
                    for digest, item in value["reservations"].items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"what is kept cannot be read: {error!r:.200}") from error


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def _digest(value: Any) -> Digest | None:
    return None if value is None else Digest.parse(_of(value, str))


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.60} is not of type {kind.__name__}")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{value!r:.60} is not a number")
    return float(value)


def _optional_number(value: Any) -> float | None:
    return None if value is None else _number(value)


def _version_to_json(version: Version) -> dict[str, Any]:
    return {
        "digest": str(version.digest),
        "bytes": version.bytes,
        "ready_at": version.ready_at,
        "ready_steady": version.ready_steady,
        "used_at": version.used_at,
        "used_steady": version.used_steady,
        "released": version.released,
    }


def _version_from_json(value: Any) -> Version:
    return Version(
        digest=Digest.parse(_of(value["digest"], str)),
        bytes=_of(value["bytes"], int),
        ready_at=_number(value["ready_at"]),
        ready_steady=_number(value["ready_steady"]),
        used_at=_optional_number(value["used_at"]),
        used_steady=_optional_number(value["used_steady"]),
        released=_of(value["released"], bool),
    )


def _transfer_to_json(transfer: LastTransfer) -> dict[str, Any]:
    return {
        "fetched_bytes": transfer.fetched_bytes,
        "reused_bytes": transfer.reused_bytes,
        "timings": {name: round(seconds, 3) for name, seconds in transfer.timings.items()},
    }


def _transfer_from_json(value: Any) -> LastTransfer | None:
    if value is None:
        return None
    timings = _of(value["timings"], dict)
    return LastTransfer(
        fetched_bytes=_of(value["fetched_bytes"], int),
        reused_bytes=_of(value["reused_bytes"], int),
        timings={_of(name, str): _number(seconds) for name, seconds in timings.items()},
    )


def _failure_to_json(failure: Failure) -> dict[str, Any]:
    return {
        "kind": failure.kind,
        "reason": failure.reason,
        "attempts": failure.attempts,
        "next_steady": failure.next_steady,
        "digest": _text(failure.digest),
        "free_bytes": failure.free_bytes,
    }


def _failure_from_json(value: Any) -> Failure | None:
    if value is None:
        return None
    free = value["free_bytes"]
    return Failure(
        kind=_of(value["kind"], str),
        reason=_of(value["reason"], str),
        attempts=_of(value["attempts"], int),
        next_steady=_number(value["next_steady"]),
        digest=_digest(value["digest"]),
        free_bytes=None if free is None else _of(free, int),
    )
