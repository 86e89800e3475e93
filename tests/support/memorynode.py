"""A node in memory: a registry and a runtime that do what they are told, with faults on request.

``Registry`` holds models as parts and what tags name; ``MemoryNode`` is ``modelpack.prefetch.node``'s
``Node`` over one. It checks the daemon's promises from inside: nothing mounted may be removed, and
the disk never holds more than it has. ``crash_at`` counts calls down and raises ``CrashError`` in the
middle of one, as kill -9 does.

    registry = Registry()
    registry.push("r.example/a:v1", {"weights": 100})
    node = MemoryNode(registry, disk=1000)
"""

import json
from dataclasses import dataclass, field

from modelpack.digest import Digest
from modelpack.errors import NetworkError, NotFoundError, PolicyError, SpaceError
from modelpack.events import Moved, Planned, Resolved
from modelpack.manifest import parse_manifest
from modelpack.prefetch.node import (
    Damage,
    GoneError,
    Installed,
    InstallResult,
    InUseError,
    Part,
    Resolution,
)
from modelpack.reference import parse_reference

_EMPTY = Digest.of(b"{}")
STEPS = 4
"""In how many pieces each part arrives."""


class CrashError(BaseException):
    """The process was killed here: no handler runs, what was done so far stays."""


def manifest_of(parts):
    """Return a manifest that differs with the parts."""
    layers = [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": str(Digest.of(f"{key}:{size}".encode())),
            "size": size,
        }
        for key, size in sorted(parts.items())
    ]
    config = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": str(_EMPTY),
        "size": 2,
    }
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": layers,
    }
    return parse_manifest(json.dumps(document).encode(), document["mediaType"])


class Registry:
    """What every node of a fleet pulls from."""

    def __init__(self):
        self.tags = {}
        self.models = {}
        self.manifests = {}
        self.is_down = False
        self.unsigned = set()
        """Digests that the policy refuses."""

    def push(self, reference, parts, *, signed=True):
        """Make a tag name a model of these parts; return its digest."""
        manifest = manifest_of(parts)
        self.models[manifest.digest] = dict(parts)
        self.manifests[manifest.digest] = manifest
        self.tags[reference] = manifest.digest
        if not signed:
            self.unsigned.add(manifest.digest)
        return manifest.digest

    def find(self, reference):
        """Return the digest that a reference names."""
        if self.is_down:
            raise NetworkError(f"{reference}: the registry does not answer")
        parsed = parse_reference(reference)
        digest = parsed.digest or self.tags.get(reference)
        if digest not in self.models:
            raise NotFoundError(f"{reference} does not exist")
        return digest

    def gate(self, reference, manifest):
        """Refuse what is not signed: a policy."""
        if manifest.digest in self.unsigned:
            raise PolicyError(f"{reference}: no signature")


@dataclass
class _Model:
    parts: dict
    names: set = field(default_factory=set)
    pinned: bool = False


class MemoryNode:
    """A runtime's image store; what is on it outlives every daemon."""

    kind = "memory"

    def __init__(self, registry, *, disk=10**9, tells_parts=False):
        self.registry = registry
        self.disk = disk
        self.tells_parts = tells_parts
        self.here = {}
        self.begun = {}
        """Of each version that is not complete, bytes of each part."""
        self.in_use = set()
        self.damaged = {}
        self.is_down = False
        self.faults = {}
        """An error to raise once, by the name of a method."""
        self.crash_at = None
        self.calls = []
        self.most_used = 0

    def _step(self, name):
        if self.crash_at is not None:
            self.crash_at -= 1
            if self.crash_at <= 0:
                self.crash_at = None
                raise CrashError(name)

    def _begin(self, name, *details):
        self.calls.append((name, *details))
        self._step(name)
        fault = self.faults.pop(name, None)
        if fault is not None:
            raise fault
        if self.is_down:
            raise NetworkError("the runtime does not answer")

    def used(self):
        """Return how many bytes are on the disk."""
        complete = {key: size for one in self.here.values() for key, size in one.parts.items()}
        return sum(complete.values()) + self.unfinished_bytes()

    def check(self):
        self._begin("check")

    def resolve(self, reference, *, gate):
        self._begin("resolve", reference)
        digest = self.registry.find(reference)
        manifest = self.registry.manifests[digest]
        if gate is not None:
            gate(parse_reference(reference), manifest)
        parts = self.registry.models[digest]
        return Resolution(
            manifest=manifest,
            total_bytes=sum(parts.values()),
            parts=_parts(parts) if self.tells_parts else (),
        )

    def install(self, reference, digest, *, gate, limiter, observer, fetches=True):
        self._begin("install", reference, digest)
        pinned = parse_reference(reference).with_digest(digest)
        assert self.registry.find(str(pinned)) == digest, reference
        observer(Resolved(reference=reference, digest=digest))
        if gate is not None:
            gate(pinned, self.registry.manifests[digest])
        parts = self.registry.models[digest]
        fetched = 0
        if digest not in self.here:
            if not fetches:
                raise GoneError(str(digest))
            fetched = self._fetch(digest, parts, observer)
            self._step("before-commit")
            self.begun.pop(digest, None)
            self.here[digest] = _Model(parts=dict(parts))
        self._step("before-name")
        name = reference.partition("@")[0] if parse_reference(reference).tag else str(pinned)
        for other in self.here.values():
            if name in other.names and other is not self.here[digest]:
                other.names.discard(name)
                other.pinned = False
        self.here[digest].names.add(name)
        self.here[digest].pinned = True
        self._step("after-name")
        return InstallResult(
            digest=digest,
            bytes=sum(parts.values()),
            fetched_bytes=fetched,
            reused_bytes=sum(parts.values()) - fetched,
        )

    def _fetch(self, digest, parts, observer):
        complete = {key for one in self.here.values() for key in one.parts}
        begun = self.begun.setdefault(digest, {})
        todo = {key: size for key, size in parts.items() if key not in complete}
        total = sum(parts.values())
        observer(Planned(total_bytes=total, reused_bytes=total - sum(todo.values()), items=()))
        fetched = 0
        for key, size in todo.items():
            while begun.get(key, 0) < size:
                piece = min(max(1, size // STEPS), size - begun.get(key, 0))
                if self.registry.is_down:
                    raise NetworkError("the registry went away")
                if self.used() + piece > self.disk:
                    raise SpaceError("the disk is full")
                begun[key] = begun.get(key, 0) + piece
                fetched += piece
                self.most_used = max(self.most_used, self.used())
                self._step("piece")
                observer(Moved(item=key, size=piece))
        return fetched

    def models(self):
        self._begin("models")
        return tuple(
            Installed(
                digest=digest,
                names=tuple(sorted(one.names)),
                parts=_parts(one.parts),
                pinned=one.pinned,
            )
            for digest, one in self.here.items()
        )

    def mounted(self):
        self._begin("mounted")
        return frozenset(self.in_use)

    def remove(self, digest):
        self._begin("remove", digest)
        if digest in self.in_use:
            raise InUseError(f"{digest} is mounted")
        self.here.pop(digest, None)
        self._step("after-remove")

    def pin(self, digest, *, pinned):
        self._begin("pin", digest, pinned)
        if digest not in self.here:
            raise NotFoundError(f"{digest} is not here")
        self.here[digest].pinned = pinned

    def abandon(self, digest):
        self._begin("abandon", digest)
        self.begun.pop(digest, None)
        self._step("after-abandon")

    def unfinished_bytes(self):
        return sum(sum(parts.values()) for parts in self.begun.values())

    def free_bytes(self):
        return self.disk - self.used()

    def scrub(self, digest, *, limiter, stop):
        self._begin("scrub", digest)
        if stop() or digest not in self.damaged:
            return ()
        return (Damage(digest=digest, path=self.damaged[digest], reason="a chunk differs"),)

    def quarantine(self, digest, damage):
        self._begin("quarantine", digest)
        gone = self.here.pop(digest)
        self.damaged.pop(digest, None)
        # What is sound stays as what an interrupted install leaves.
        self.begun[digest] = {key: size // 2 for key, size in gone.parts.items()}


def _parts(parts):
    return tuple(Part(key=key, bytes=size) for key, size in sorted(parts.items()))
