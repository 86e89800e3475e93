"""Short leases: what is being read, or perhaps put back, is not collected meanwhile.

Owns the leases of reading and removing. Leaves out those of imports (``workplace.py``), which are
made to outlive a crash; these are not: the next daemon on the node drops what is left of them.

    with hold(client) as holder:
        holder.hold_snapshot(chain[-1])
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from modelpack.descriptor import OUR_PREFIX
from modelpack.errors import ModelpackError
from modelpack.runtime.client import Containerd

HOLD_LABEL = OUR_PREFIX + "hold"
"""On such leases, and on the views made under them, which nobody mounts."""

EXPIRE_LABEL = "containerd.io/gc.expire"
_LEASE_TIME = timedelta(hours=1)


@contextmanager
def hold(client: Containerd, lifetime: timedelta = _LEASE_TIME) -> Iterator[Containerd]:
    """Lend a client whose calls act under a new lease, which goes at the end.

    Nothing of what the lease alone held is there afterwards.
    """
    lease = f"modelpack-hold-{secrets.token_hex(8)}"
    expires = datetime.now(UTC) + lifetime
    client.create_lease(
        lease, {HOLD_LABEL: "1", EXPIRE_LABEL: expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
    )
    try:
        yield replace(client, lease=lease)
    finally:
        with suppress(ModelpackError):  # it expires
            client.delete_lease(lease, collect=True)


def drop_stale_holds(client: Containerd) -> None:
    """Drop what a daemon that was killed has left; for the only daemon of a node, as it starts.

    A reader whose lease goes away under it finds out, and says nothing about what it read.
    """
    for lease in client.leases(HOLD_LABEL):
        client.delete_lease(lease, collect=True)
