"""Taking models off a node, pinning them, and dropping what interrupted imports left.

Owns the order that makes removing safe against a mount at the same moment. Leaves out deciding
what goes.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from modelpack.digest import Digest
from modelpack.errors import NetworkError
from modelpack.runtime.client import Containerd, ImageRecord
from modelpack.runtime.cri import CriImages
from modelpack.runtime.grpcapi import HeldError, MissingError
from modelpack.runtime.holding import hold
from modelpack.runtime.inventory import Inventory, NodeModel, mounted_chains
from modelpack.runtime.records import pin_labels

# CRI takes changes up within milliseconds, unless it has a queue of events.
_SEEN_SECONDS = 30.0
_POLL_SECONDS = 0.02


def remove_model(
    client: Containerd, cri: CriImages | None, inventory: Inventory, digest: Digest
) -> None:
    """Remove a model with all its names; what nothing else uses of it is gone on return.

    Idempotent.

    Raises:
        HeldError: something mounts it. It has all its names.
    """
    model = inventory.read(client).find(digest)
    if model is None:
        _delete([record for record in client.images() if record.target.digest == digest], client)
        return
    refuse_mounted(client, model)
    with hold(client) as holder:
        # 1. Nothing of it is collected while its names are gone and it is not sure that they stay.
        with suppress(MissingError):
            holder.hold_snapshot(model.chain[-1])
            holder.hold_content(digest)
        # 2. Without a name nobody can begin to mount it.
        names = remove_names(holder, inventory, model)
        # 3. Whoever began before that shows now, and gets it back.
        try:
            refuse_mounted(client, model)
        except HeldError:
            for record in model.records:
                client.put_image(record)
            raise
        # 4. Leaving the lease collects what nothing else holds.
    if cri is not None:
        _wait_until_unseen(cri, names)


def remove_names(client: Containerd, inventory: Inventory, model: NodeModel) -> tuple[str, ...]:
    """Delete a model's image records; return which names nothing has any more.

    Another image with the same config shares the name by its id, and keeps that.
    """
    config = model.manifest.config.digest
    picture = inventory.read(client)
    others = [
        other
        for other in (*picture.models, *picture.damaged)
        if other.manifest.config.digest == config and other.manifest.digest != model.manifest.digest
    ]
    records = list(model.records)
    for record in model.records:
        if others and record.name == str(config):
            client.put_image(replace(record, target=others[0].records[0].target))
            records.remove(record)
    _delete(records, client)
    return tuple(record.name for record in records)


def refuse_mounted(client: Containerd, model: NodeModel) -> None:
    """Return if nothing mounts a model.

    Raises:
        HeldError: something does.
    """
    if model.chain[-1] in mounted_chains(client):
        raise HeldError(f"{model.manifest.digest} is mounted by a container")


def set_pinned(client: Containerd, model: NodeModel, *, pinned: bool) -> None:
    """Keep a model from the kubelet's garbage collection, or leave it to that."""
    for record in model.records:
        with suppress(MissingError):
            client.label_image(record, pin_labels(pinned=pinned))


def _delete(records: Sequence[ImageRecord], client: Containerd) -> None:
    for record in records:
        client.delete_image(record.name)


def _wait_until_unseen(cri: CriImages, names: Sequence[str]) -> None:
    """Return when CRI, which hears of it a moment later, knows none of the names."""
    until = time.monotonic() + _SEEN_SECONDS
    for name in names:
        while (state := cri.status(name)) is not None and _has(state.names, name):
            if time.monotonic() > until:
                raise NetworkError(
                    f"containerd's CRI still shows {name} {_SEEN_SECONDS:.0f} s after its removal"
                )
            time.sleep(_POLL_SECONDS)


def _has(known: Sequence[str], name: str) -> bool:
    return name in known or name.startswith("sha256:")
