"""The ledger: a file that says which claim has which part of which card.

Owns the file, its lock and its atomic replacement. Leaves out what may be handed out
(:mod:`cdi.shares.store`).

The ledger is written before a spec appears and after a spec is gone, so at any moment, a crash
included, every share that a container could get is in it.

>>> Ledger.parse('{"version": 1, "shares": []}', "here")
Ledger(shares=())
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cdi.errors import CdiError, Fault
from cdi.inventory_reader import InventoryReader
from cdi.shares.model import Share, claim_fault

VERSION = 1
DEFAULT_STATE = "/var/lib/modelpack/cdi"
_FILE = "shares.json"
_LOCK = "shares.lock"
# A node with hundreds of claims stays far below this.
MAX_BYTES = 16 * 1024 * 1024
# Changes take milliseconds; a longer wait means that a holder hangs.
LOCK_SECONDS = 30.0
_POLL_SECONDS = 0.05


class LedgerError(CdiError):
    """The ledger cannot be read or written, or another process keeps it locked."""


class InvalidLedgerError(CdiError):
    """The ledger's file is not a ledger."""

    exit_code = 5


@dataclass(frozen=True, slots=True)
class Ledger:
    """All shares of a node, by claim."""

    shares: tuple[Share, ...] = ()

    def find(self, claim: str) -> Share | None:
        """Return the share of a claim, or None."""
        return next((share for share in self.shares if share.claim == claim), None)

    def with_share(self, share: Share) -> "Ledger":
        """Return the ledger with a share added or replaced."""
        others = (other for other in self.shares if other.claim != share.claim)
        return Ledger(tuple(sorted((*others, share), key=lambda one: one.claim)))

    def without(self, claim: str) -> "Ledger":
        """Return the ledger without a claim's share."""
        return Ledger(tuple(share for share in self.shares if share.claim != claim))

    def leaving(self, share: Share) -> "Ledger":
        """Return the ledger with a share marked as about to be removed."""
        return self.with_share(replace(share, leaving=True))

    @classmethod
    def parse(cls, text: str, source: str) -> "Ledger":
        """Read a ledger's text.

        Raises:
            InvalidLedgerError: it is not one.
        """
        faults: list[Fault] = []
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidLedgerError(_unreadable(source, error)) from error
        reader = InventoryReader(value, "", faults)
        version = reader.integer("version", 0, 2**31)
        shares = reader.records("shares", Share.read, required=True)
        reader.finish()
        if version != VERSION and not faults:
            faults.append(Fault(path="version", reason=f"is {version}, not {VERSION}"))
        for i, share in enumerate(shares):
            if not faults and (fault := claim_fault(share.claim)):
                faults.append(Fault(path=f"shares[{i}].claim", reason=fault))
            if not faults and not share.parts:
                faults.append(Fault(path=f"shares[{i}].parts", reason="is empty"))
        if faults:
            raise InvalidLedgerError(_unreadable(source, faults[0]))
        return cls(shares)

    def text(self) -> str:
        """Return the ledger as text."""
        value = {"version": VERSION, "shares": [share.to_json() for share in self.shares]}
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def locked(state: Path, *, seconds: float = LOCK_SECONDS) -> Iterator[Path]:
    """Hold the ledger of a state directory; yields the path of its file.

    The directory is created where it is missing. The lock ends with the process.

    Raises:
        LedgerError: the directory is not usable, or the lock is not to be had in time.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerError(f"{state} is not usable for the ledger: {error.strerror}") from error
    try:
        _wait(descriptor, state, time.monotonic() + seconds)
        yield state / _FILE
    finally:
        os.close(descriptor)


def _wait(descriptor: int, state: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise LedgerError(f"another process keeps the ledger in {state} locked") from error
            time.sleep(_POLL_SECONDS)
        else:
            return


def read_ledger(path: Path) -> Ledger:
    """Read the ledger; a missing file is an empty one.

    Raises:
        InvalidLedgerError: the file is not a ledger.
        LedgerError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Ledger()
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise InvalidLedgerError(f"{path} is larger than {MAX_BYTES} bytes")
    return Ledger.parse(data.decode("utf-8", "replace"), str(path))


def _unreadable(source: str, reason: object) -> str:
    return (
        f"{source} is not a ledger: {reason}; restore it, or move it away, remove the shares' "
        "specs and hand the shares out again"
    )


def write_ledger(ledger: Ledger, path: Path) -> None:
    """Replace the ledger's file, under its lock; a crash leaves the old one or the new one.

    Raises:
        LedgerError: the file system refused; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # the lock keeps it ours
    try:
        try:
            with open(temporary, "wb", opener=_private) as file:
                file.write(ledger.text().encode())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise LedgerError(f"{path} cannot be written: {error.strerror}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
