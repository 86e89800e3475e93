"""Which repositories of a registry hold a blob, as far as this machine has seen.

Owns a small record that lets a push mount a blob from a sibling repository instead of sending it.
A wrong or lost entry costs one request.
"""

import json
import threading

from modelpack.cache import Cache
from modelpack.descriptor import Descriptor
from modelpack.reference import Reference, RegistryReference

# Smaller blobs are sent faster than asked about.
_MIN_BYTES = 1024 * 1024
_MAX_SOURCES = 3


class BlobRecord:
    """The record for one target; layouts keep none, because they hold every blob once."""

    def __init__(self, target: Reference, cache: Cache | None = None) -> None:
        self._target = target
        self._cache = cache or Cache("blobs")
        self._lock = threading.Lock()

    def add(self, descriptor: Descriptor) -> None:
        """Take note that the target repository holds a blob."""
        if not isinstance(self._target, RegistryReference) or descriptor.size < _MIN_BYTES:
            return
        with self._lock:
            known = self._repositories(descriptor)
            if self._target.repository in known[:1]:
                return
            names = [self._target.repository, *known]
            unique = list(dict.fromkeys(names))[:_MAX_SOURCES]
            self._cache.put(self._key(descriptor), json.dumps(unique).encode())

    def sources(self, descriptor: Descriptor) -> list[Reference]:
        """Return other repositories of the same registry that held a blob when last seen."""
        if not isinstance(self._target, RegistryReference) or descriptor.size < _MIN_BYTES:
            return []
        return [
            RegistryReference(self._target.registry, name)
            for name in self._repositories(descriptor)
            if name != self._target.repository
        ]

    def _repositories(self, descriptor: Descriptor) -> list[str]:
        raw = self._cache.get(self._key(descriptor))
        value = json.loads(raw) if raw else []
        return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []

    def _key(self, descriptor: Descriptor) -> bytes:
        registry = self._target.registry if isinstance(self._target, RegistryReference) else ""
        return f"{registry} {descriptor.digest}".encode()
