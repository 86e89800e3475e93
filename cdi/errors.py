"""Every error that the cdi package raises on purpose, and the fault: one thing wrong in a spec.

```text
CdiError                 1  anything else
├── CdiUsageError        2  the call itself is wrong: a malformed device name, an unknown option
├── CdiNotFoundError     3  no such file, directory or device
│   └── UnresolvableError 3  device names that no loaded spec defines without conflict
├── InvalidSpecError     5  a CDI spec breaks the rules; holds every fault, not only the first
│   └── InvalidInventoryError 5  an inventory does (cdi.inventory_load)
├── InvalidOciError      5  an OCI runtime spec to inject into is not one
├── TreeError            5  a recorded tree's list of nodes is malformed (cdi.discovery.tree)
├── InvalidManifestError 5  a text holds no Kubernetes objects to convert (cdi.kube.manifests)
├── InvalidLedgerError   5  the ledger of shares is not one (cdi.shares.ledger)
├── ShareError           8  a card has not enough left for a share (cdi.shares.model)
├── LedgerError          1  the ledger cannot be locked, read or written (cdi.shares.ledger)
├── InjectionError       1  the edits cannot be applied on this node
└── SpecWriteError       1  a spec file could not be written or removed
```

The package does not import its users, so the tree is its own; ``exit_code`` is what a command line
is advised to exit with. An error with a module's name beside it is defined there, beside what
raises it.

>>> InvalidSpecError((Fault(path="devices", reason="is empty"),), source="gpu.yaml").exit_code
5
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Name one fault: where it is, such as ``devices[2].containerEdits.env[0]``, and why.

    The path is empty for a fault of the whole document.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class CdiError(Exception):
    """The root of the tree; its ``exit_code`` is what a command line may exit with."""

    exit_code = 1


class CdiUsageError(CdiError):
    """The call itself is wrong: a malformed device name, transient id or option."""

    exit_code = 2


class CdiNotFoundError(CdiError):
    """What was named does not exist."""

    exit_code = 3


class UnresolvableError(CdiNotFoundError):
    """Names that no loaded spec defines, or that conflicting specs define.

    ``devices`` are the names in the order in which they were asked for; ``reasons`` says for some
    of them why they are not there.
    """

    def __init__(self, devices: Iterable[str], reasons: Iterable[str] = ()) -> None:
        self.devices = tuple(devices)
        self.reasons = tuple(reasons)
        message = f"unresolvable CDI devices {', '.join(self.devices)}"
        if self.reasons:
            message += f" ({'; '.join(self.reasons)})"
        super().__init__(message)


class InvalidSpecError(CdiError):
    """A document is not a valid CDI spec; ``faults`` holds all that was found, in document order.

    ``source`` names the file in the message; it may be empty.
    """

    exit_code = 5

    def __init__(self, faults: Iterable[Fault], source: str = "") -> None:
        self.faults = tuple(faults)
        self.source = source
        more = len(self.faults) - 1
        message = f"{self.faults[0]}" if self.faults else "invalid CDI spec"
        if source:
            message = f"{source}: {message}"
        if more > 0:
            message += f" (and {more} more fault{'s' if more > 1 else ''})"
        super().__init__(message)


class InvalidOciError(CdiError):
    """An OCI runtime spec to inject into has a field of a wrong type."""

    exit_code = 5


class InjectionError(CdiError):
    """Valid edits cannot be applied on this node, for example for want of a device node."""


class SpecWriteError(CdiError):
    """A spec file could not be written or removed."""
