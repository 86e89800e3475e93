"""A status as it may be shown to anybody: its JSON without secrets, and its three verdicts.

Owns what is said of health and readiness; pure. Leaves out metrics and the page.
"""

from typing import Any

from modelpack.prefetch.redaction import redact, redact_all
from modelpack.prefetch.status import DaemonStatus

HUNG_AFTER = 120.0
"""Seconds without a round of the main loop after which it counts as dead.

A round takes a second or two; the longest waits in it are a few calls to the runtime and the
registry, each with a limit of its own. A restart helps against a deadlock and nothing else, so this
is generous.
"""


def document(status: DaemonStatus) -> dict[str, Any]:
    """Return the document that ``/v1/status`` answers with."""
    value = redact_all(status.to_json())
    assert isinstance(value, dict)
    return value


def hung(status: DaemonStatus, *, now: float) -> str | None:
    """Say that the main loop is dead, or return None while it lives; ``now`` as in the status."""
    age = now - status.alive_at
    if age <= HUNG_AFTER:
        return None
    return f"the main loop has not come round for {age:.0f} s"


def unready(status: DaemonStatus) -> tuple[str, ...]:
    """Return why the node is not ready, a line each; empty when it is."""
    return tuple(" ".join(redact(reason).split()) for reason in status.unready)
