"""Looking a reference up for a node: what it names, and what that would take.

Owns reaching registries as the configuration says, and remembering sizes, so that a tag that has
not moved costs one request. Leaves out fetching models.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from modelpack.artifact import is_intact, is_packed, load_artifact
from modelpack.chunkindex import ChunkIndex
from modelpack.connect import open_repository
from modelpack.digest import Digest
from modelpack.errors import UsageError
from modelpack.events import ignore
from modelpack.manifest import Manifest
from modelpack.prefetch.config import Network
from modelpack.prefetch.node import Resolution
from modelpack.pulling import Gate, resolve_model
from modelpack.reference import Reference, RegistryReference, parse_reference
from modelpack.registry.options import ConnectionOptions
from modelpack.storage import Repository

# What every file system of interest gives a file at the least.
_BLOCK_BYTES = 4096
# Sizes of so many versions are remembered; a node has some tens.
_MAX_REMEMBERED = 1024

Check = Callable[[Repository, Manifest], None]
"""Raises if a manifest cannot go to a node at all."""


def connection_options(network: Network, reference: str | Reference) -> ConnectionOptions:
    """Return how the registry of a reference is reached."""
    parsed = parse_reference(reference) if isinstance(reference, str) else reference
    plain = isinstance(parsed, RegistryReference) and parsed.registry in network.plain_http
    return ConnectionOptions(
        plain_http=True if plain else None,
        ca_file=network.ca_file,
        max_connections=network.connections,
        auth_file=network.auth_file,
        mirrors=network.mirrors,
        proxy=network.proxy,
    )


def pinned_to(reference: str, digest: Digest) -> Reference:
    """Return a reference that means one version, and keeps its tag for the name.

    Raises:
        UsageError: it means another version already.
    """
    parsed = parse_reference(reference)
    if parsed.digest not in {None, digest}:
        raise UsageError(f"{reference} cannot be installed as {digest}")
    return replace(parsed, digest=digest)


def gate_for(reference: str, gate: Gate | None) -> Gate | None:
    """Return a gate that is asked about the reference as it was configured, not as pinned."""
    if gate is None:
        return None
    parsed = parse_reference(reference)
    return lambda _, manifest: gate(parsed, manifest)


class Resolver:
    """Resolves references; thread-safe."""

    def __init__(self, network: Network, check: Check) -> None:
        """``check`` is asked once for each version."""
        self._network = network
        self._check = check
        self._lock = threading.Lock()
        self._sizes: dict[Digest, int] = {}

    def resolve(self, reference: str, *, gate: Gate | None) -> Resolution:
        """Look a reference up; see ``Node.resolve``."""
        connection = connection_options(self._network, reference)
        with open_repository(reference, connection) as repository:
            manifest = resolve_model(repository, ignore)
            if gate is not None:
                gate(parse_reference(reference), manifest)
            return Resolution(manifest=manifest, total_bytes=self._size(repository, manifest))

    def _size(self, repository: Repository, manifest: Manifest) -> int:
        with self._lock:
            known = self._sizes.get(manifest.digest)
        if known is not None:
            return known
        self._check(repository, manifest)
        size = sum(layer.size for layer in manifest.layers)
        if is_packed(manifest) and is_intact(manifest):
            size = disk_bytes(load_artifact(repository, manifest).index)
            size += manifest.layers[-1].size + _BLOCK_BYTES
        with self._lock:
            if len(self._sizes) >= _MAX_REMEMBERED:
                self._sizes.clear()
            self._sizes[manifest.digest] = size
        return size


def disk_bytes(index: ChunkIndex) -> int:
    """Return the disk that a model's files and directories take at most."""
    blocks = sum(-(-file.size // _BLOCK_BYTES) for file in index.files)
    directories = {(file.layer, above) for file in index.files for above in _directories(file.path)}
    return (blocks + len(directories) + len(index.layers)) * _BLOCK_BYTES


def _directories(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
