"""What may be asked of a running daemon, by root on its node only.

Owns the protocol that the daemon implements and its local socket calls.
"""

from typing import Protocol


class Control(Protocol):
    """Each call returns a line on what was done, and raises ``NotFoundError`` for unknown names.

    ``name`` is the model's, as in the status. What is said here outlives the daemon.
    """

    def hold(self, name: str) -> str:
        """Stay with the version that is ready, whatever the tag does."""

    def release(self, name: str) -> str:
        """End a hold, and whatever a rollback turned away."""

    def rollback(self, name: str) -> str:
        """Go back to the version before, hold it, and never adopt the present one by itself.

        Raises:
            UsageError: there is no earlier version on this node.
        """

    def refresh(self, name: str | None) -> str:
        """Resolve again and try again now, one model or all, without waiting for intervals."""

    def scrub(self, name: str | None) -> str:
        """Read one model or all again soon, and repair what is damaged."""
