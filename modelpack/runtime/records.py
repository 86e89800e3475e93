"""What containerd writes down about an image: its documents, its names and how they hang together.

Owns the manifest and config in the content store with the labels that tell the garbage collector
what belongs to them, the image's names, and pinning. Leaves out the layers' snapshots.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from modelpack.descriptor import Descriptor
from modelpack.digest import Digest
from modelpack.errors import IntegrityError, NetworkError
from modelpack.manifest import Manifest
from modelpack.reference import RegistryReference
from modelpack.registry.credentials import Credentials
from modelpack.registry.options import DOCKER_HUB
from modelpack.runtime.client import Containerd, ImageRecord
from modelpack.runtime.cri import CriImages
from modelpack.runtime.grpcapi import MissingError

SNAPSHOT_REF = "containerd.io/snapshot.ref"
"""The label by which a snapshot says which layer chain it holds."""

_GC_CONTENT = "containerd.io/gc.ref.content"
_GC_SNAPSHOT = "containerd.io/gc.ref.snapshot"
_MANAGED = {"io.cri-containerd.image": "managed"}
_PIN = "io.cri-containerd.pinned"
_PINNED = "pinned"
# CRI takes new records up within milliseconds, unless it has a queue of events.
_SEEN_SECONDS = 30.0
_POLL_SECONDS = 0.01


def chain_ids(diff_ids: Iterable[Digest]) -> tuple[str, ...]:
    """Return the names of the snapshots of layers, lowest first (image-spec, "Layer ChainID").

    >>> chain_ids([Digest.of(b"a")])[0] == str(Digest.of(b"a"))
    True
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(str(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id))
    return tuple(chain)


def repository_name(reference: RegistryReference) -> str:
    """Return ``registry/repository`` as containerd and CRI spell it.

    >>> repository_name(RegistryReference("index.docker.io", "redis"))
    'docker.io/library/redis'
    """
    if reference.registry not in DOCKER_HUB:
        return reference.repository_name
    repository = reference.repository
    return f"docker.io/{repository if '/' in repository else f'library/{repository}'}"


def tag_name(reference: RegistryReference) -> str | None:
    """Return the name of the record for a reference's tag; None if it is by digest.

    A reference with both means the digest, and says nothing of where the tag points now.
    """
    if reference.tag is None or reference.digest is not None:
        return None
    return f"{repository_name(reference)}:{reference.tag}"


def write_documents(
    client: Containerd, manifest: Manifest, config: bytes, chain: Sequence[str]
) -> None:
    """Store manifest and config, linked to each other and to the topmost snapshot."""
    children = {f"{_GC_CONTENT}.config": str(manifest.config.digest)}
    for number, layer in enumerate(manifest.layers):
        children[f"{_GC_CONTENT}.l.{number}"] = str(layer.digest)
    client.write_content(
        manifest.config.digest, config, {f"{_GC_SNAPSHOT}.{client.snapshotter}": chain[-1]}
    )
    client.write_content(manifest.digest, manifest.raw, children)


def record_through_cri(
    client: Containerd,
    cri: CriImages,
    name: RegistryReference,
    manifest: Manifest,
    credentials: Credentials | None,
    *,
    pin: bool,
) -> str:
    """Have CRI take the image up, under its digest, its id and its tag; return the id.

    CRI is asked to pull by digest: by tag it would resolve once more, and pull something else if
    the tag has moved meanwhile. The tag's record is then pointed at what was verified.

    Raises:
        IntegrityError: CRI took up another image.
        ModelpackError: CRI's own reason, such as its credentials or an image verifier.
    """
    by_digest = f"{repository_name(name)}@{manifest.digest}"
    image_id = cri.pull(by_digest, credentials)
    if image_id != str(manifest.config.digest):
        raise IntegrityError(
            f"containerd took {by_digest} up as {image_id}, not as {manifest.config.digest}"
        )
    target = _target(manifest)
    labels = {**_MANAGED, _PIN: _PINNED} if pin else _MANAGED
    names = [by_digest, image_id]
    tag = tag_name(name)
    if tag is not None:
        client.put_image(ImageRecord(name=tag, target=target, labels=labels))
        names.append(tag)
    if pin:
        for each in names:
            client.label_image(ImageRecord(name=each, target=target), pin_labels(pinned=True))
    _wait_until_seen(cri, image_id, tag, pin=pin)
    return image_id


def pin_labels(*, pinned: bool) -> dict[str, str]:
    """Return the labels of a record that keep the kubelet's collection away, or let it come."""
    return {_PIN: _PINNED if pinned else ""}


def is_pinned(record: ImageRecord) -> bool:
    """Tell whether a record keeps the kubelet's collection away from its image."""
    return record.labels.get(_PIN) == _PINNED


def unpin_superseded(client: Containerd, digest: Digest) -> None:
    """Leave an image to the kubelet's garbage collection, unless a tag still names it."""
    records = [record for record in client.images() if record.target.digest == digest]
    if any(_is_tag(record.name) for record in records):
        return
    for record in records:
        if is_pinned(record):
            with suppress(MissingError):
                client.label_image(record, pin_labels(pinned=False))


def record_directly(client: Containerd, name: RegistryReference, manifest: Manifest) -> str:
    """Record the image in a namespace that CRI does not look at; return its id."""
    by_digest = f"{repository_name(name)}@{manifest.digest}"
    for each in (tag_name(name), by_digest):
        if each is not None:
            client.put_image(ImageRecord(name=each, target=_target(manifest)))
    return str(manifest.config.digest)


def is_recorded(
    client: Containerd,
    cri: CriImages | None,
    name: RegistryReference,
    manifest: Manifest,
    *,
    pin: bool,
) -> bool:
    """Tell whether the image has all its names already."""
    tag = tag_name(name)
    names = [f"{repository_name(name)}@{manifest.digest}", *([tag] if tag else [])]
    for each in names:
        record = client.image(each)
        if record is None or record.target.digest != manifest.digest:
            return False
    if cri is None:
        return True
    state = cri.status(names[0])
    return (
        state is not None
        and state.id == str(manifest.config.digest)
        and (tag is None or tag in state.repo_tags)
        and (state.pinned or not pin)
    )


def _wait_until_seen(cri: CriImages, image_id: str, tag: str | None, *, pin: bool) -> None:
    """Return when CRI has taken the records up, which it does a moment after they change."""
    until = time.monotonic() + _SEEN_SECONDS
    while True:
        state = cri.status(image_id)
        if (
            state is not None
            and (tag is None or tag in state.repo_tags)
            and (state.pinned or not pin)
        ):
            return
        if time.monotonic() > until:
            raise NetworkError(
                f"containerd's CRI has not taken up {tag or image_id} within "
                f"{_SEEN_SECONDS:.0f} s; run again"
            )
        time.sleep(_POLL_SECONDS)


def _is_tag(name: str) -> bool:
    return "@" not in name and not name.startswith("sha256:")


def _target(manifest: Manifest) -> Descriptor:
    return Descriptor(
        media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.raw)
    )
