"""Which requests a fault meets, and how often: the conditions and the counting.

Owns ``When`` (what every ``Fault`` constructor takes), ``Condition`` and the plan of a server.
Leaves out what a fault does (``faults.py``).

    plan = FaultPlan([Fault.status(503, kind="blob", times=3)])
    plan.fired(fault)       # how many requests it has met
"""

import re
import threading
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypedDict

from tests.support.faultregistry.records import asked_range
from tests.support.faultregistry.routes import Kind
from tests.support.faultregistry.wire import Request

if TYPE_CHECKING:
    from tests.support.faultregistry.faults import Fault


class When(TypedDict, total=False):
    """What a request must be for a fault to meet it; all that are given must hold."""

    method: str | Collection[str] | None
    kind: Kind | None
    """The endpoint: blob, manifest, uploads, upload, tags, referrers, token, base."""
    path: str
    """A regular expression, searched in the path and query as sent."""
    repo: str
    digest: object
    """The digest in the path."""
    covers: tuple[int, int]
    """A half-open range of the blob; the request must ask for some byte of it."""
    beyond_connections: int
    """Its connection must be younger than this many others that are open."""
    nth: int | Container[int]
    """Of the requests that fit so far, counted from 1, only these: 3, {1, 4}, range(2, 9)."""
    times: int
    """Only this often in all; without it, always."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """A ``When`` in a form that is quick to test."""

    methods: frozenset[str] | None
    kind: Kind | None
    path: re.Pattern[str] | None
    repo: str | None
    digest: str | None
    covers: tuple[int, int] | None
    beyond_connections: int
    nth: Container[int] | None
    times: int | None

    @classmethod
    def of(cls, when: When) -> Self:
        """Read what a test has written.

        Raises:
            TypeError: it names a condition that does not exist.
        """
        unknown = when.keys() - When.__annotations__.keys()
        if unknown:
            raise TypeError(f"a fault has no condition {sorted(unknown)}")
        given: dict[str, Any] = dict(when)
        method, nth, digest = given.get("method"), given.get("nth"), given.get("digest")
        return cls(
            methods=_strings(method),
            kind=given.get("kind"),
            path=re.compile(given["path"]) if "path" in given else None,
            repo=given.get("repo"),
            digest=None if digest is None else str(digest),
            covers=given.get("covers"),
            beyond_connections=given.get("beyond_connections", 0),
            nth={nth} if isinstance(nth, int) else nth,
            times=given.get("times"),
        )

    def fits(self, request: Request) -> bool:
        """Return whether a request is one of those meant, whatever its number."""
        route = request.route
        return (
            (self.methods is None or request.method in self.methods)
            and (self.kind is None or route.kind == self.kind)
            and (self.path is None or self.path.search(request.target) is not None)
            and (self.repo is None or route.repo == self.repo)
            and (self.digest is None or route.digest == self.digest)
            and request.connection_rank >= self.beyond_connections
            and (self.covers is None or _overlap(request, *self.covers))
        )


class FaultPlan:
    """The faults of one server, in order, and how often each has come true. Thread-safe."""

    def __init__(self, faults: Iterable["Fault"] = ()):
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._fitting: dict[Fault, int] = {}
        self._fired: dict[Fault, int] = {}
        self.add(*faults)

    def __iter__(self) -> Iterator["Fault"]:
        with self._lock:
            return iter(list(self._faults))

    def add(self, *faults: "Fault") -> None:
        """Add faults behind the others; a server that runs obeys at once."""
        with self._lock:
            for fault in faults:
                self._faults.append(fault)
                self._fitting.setdefault(fault, 0)
                self._fired.setdefault(fault, 0)

    def remove(self, fault: "Fault") -> None:
        """Take one fault out; what it has done stays counted."""
        with self._lock:
            self._faults.remove(fault)

    def clear(self) -> None:
        """Take all faults out; what they have done stays counted."""
        with self._lock:
            self._faults.clear()

    def fired(self, fault: "Fault") -> int:
        """Return how many requests a fault has met: a test should see that it did."""
        with self._lock:
            return self._fired[fault]

    def match(self, request: Request) -> list["Fault"]:
        """Return the faults that this request meets, counting it."""
        with self._lock:
            return [fault for fault in self._faults if self._meets(fault, request)]

    def _meets(self, fault: "Fault", request: Request) -> bool:
        condition = fault.condition
        if not condition.fits(request):
            return False
        self._fitting[fault] += 1
        if condition.nth is not None and self._fitting[fault] not in condition.nth:
            return False
        if condition.times is not None and self._fired[fault] >= condition.times:
            return False
        self._fired[fault] += 1
        return True


def _strings(value: str | Collection[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset([value] if isinstance(value, str) else value)


def _overlap(request: Request, start: int, end: int) -> bool:
    first, last = asked_range(request.headers) or (0, None)
    # A suffix range is taken to touch everything: its place depends on the blob's size.
    return first < end and (last is None or last > start)
