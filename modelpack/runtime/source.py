"""What an image must be like to be imported into a container runtime.

Owns fetching its documents and refusing what cannot be imported, before any weight moves. Leaves
out the runtimes.
"""

import os

from modelpack.artifact import is_intact, is_packed
from modelpack.errors import FormatError, IntegrityError, UsageError
from modelpack.events import Event, Observer, Warned
from modelpack.manifest import Manifest, load_json
from modelpack.pulling import Gate, resolve_model
from modelpack.reference import Reference
from modelpack.storage import Repository

_MAX_CONFIG_BYTES = 4 * 1024 * 1024
# What Go and so image configs call the machines of uname(2), where the two differ.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "loongarch64": "loong64"}


class Warnings:
    """Passes events on and keeps the warnings."""

    def __init__(self, observer: Observer) -> None:
        """Pass events on to ``observer``."""
        self._observer = observer
        self.messages: list[str] = []

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        if isinstance(event, Warned):
            self.messages.append(event.message)
        self._observer(event)


def fetch_image(
    repository: Repository, gate: Gate | None, observer: Observer
) -> tuple[Manifest, bytes]:
    """Return the manifest at a repository's reference and its config, both verified.

    A normal return proves that ``gate`` let it pass, that it has a chunk index for the layers it
    has, and that the config lists these layers.

    Raises:
        NotFoundError: no such reference.
        UsageError: it was not packed by modelpack, or was recompressed.
        PolicyError: ``gate`` refuses.
        IntegrityError: the documents contradict each other.
    """
    manifest = resolve_model(repository, observer)
    if gate is not None:
        gate(repository.reference, manifest)
    return manifest, fetch_config(repository, manifest)


def fetch_config(repository: Repository, manifest: Manifest) -> bytes:
    """Return the config of an image that can be imported, verified.

    Raises: as ``fetch_image``.
    """
    reference = repository.reference
    if not is_packed(manifest):
        raise UsageError(
            f"{reference} was not packed by modelpack; let the container runtime pull it itself"
        )
    if not is_intact(manifest):
        raise UsageError(
            f"{reference}: its layers are not those that were packed (a copier recompressed them?);"
            " copy it again with modelpack copy or skopeo copy --preserve-digests, or let the "
            "container runtime pull it itself"
        )
    config = repository.fetch_blob(manifest.config, max_bytes=_MAX_CONFIG_BYTES)
    try:
        listed = load_json(config, "image config")["rootfs"]["diff_ids"]
    except (KeyError, TypeError) as error:
        raise FormatError(f"{reference}: its image config lists no layers") from error
    if listed != [str(layer.digest) for layer in manifest.layers]:
        raise IntegrityError(f"{reference}: its image config lists other layers")
    return config


def check_platform(reference: Reference, config: bytes) -> None:
    """Prove that an image is for this machine, or containerd would mount nothing.

    Raises:
        UsageError: it is for another.
    """
    value = load_json(config, "image config")
    system, architecture = value.get("os"), value.get("architecture")
    machine = os.uname().machine
    mine = _ARCHITECTURES.get(machine, machine)
    if (system, architecture) != ("linux", mine):
        raise UsageError(
            f"{reference} is for {system!s:.40}/{architecture!s:.40} and this node is linux/{mine}, "
            f"where containerd would not mount it; push it with --platform linux/{mine} as well "
            "(no weight is uploaded again)"
        )
