"""The receipt of a pull: what it put into a directory, and what tells that nobody touched it.

Owns the document ``DEST/.modelpack/receipt.json`` (schemas/receipt.schema.json).

    receipt = read_receipt(Path("model"))
    print(receipt.digest if receipt else "nothing was pulled there")
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelpack.errors import FormatError, ModelpackError
from modelpack.manifest import load_json
from modelpack.paths import METADATA_DIR, check_path
from modelpack.scan import identity_of

RECEIPT = "receipt.json"
# Every file that an index may name, twice, and its numbers: some 300 bytes each.
MAX_RECEIPT_BYTES = 256 * 1024 * 1024
_RECEIPT_VERSION = 1

Identity = tuple[int, int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What the last pull left in a directory."""

    reference: str
    digest: str
    complete: bool
    """Whether all that was asked for is in place."""
    selected: bool
    """Whether only some of the artifact's files were asked for."""
    files: Mapping[str, Identity] = field(default_factory=dict)
    """The files in place, and what tells that nobody has touched them since."""
    owned: frozenset[str] = frozenset()
    """Every path that a pull has written or is about to write."""

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as JSON."""
        return {
            "version": _RECEIPT_VERSION,
            "reference": self.reference,
            "digest": self.digest,
            "complete": self.complete,
            "selected": self.selected,
            "files": {path: list(identity) for path, identity in sorted(self.files.items())},
            "owned": sorted(self.owned),
        }

    @classmethod
    def from_json(cls, value: Any) -> "Receipt":
        """Read a receipt.

        Raises:
            FormatError: it is not one of this version.
        """
        try:
            if value["version"] != _RECEIPT_VERSION:
                raise FormatError("receipt has another version")
            return cls(
                reference=str(value["reference"]),
                digest=str(value["digest"]),
                complete=value["complete"] is True,
                selected=value["selected"] is True,
                files={
                    check_path(path): (item[0], item[1], item[2], item[3], item[4])
                    for path, item in value["files"].items()
                },
                owned=frozenset(check_path(path) for path in value["owned"]),
            )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise FormatError("receipt is malformed") from error


def is_untouched(known: Identity | None, status: os.stat_result) -> bool:
    """Tell whether a file is as a receipt knows it.

    The device number does not count: a volume has another one on every machine that mounts it.
    """
    return known is not None and known[1:] == identity_of(status)[1:]


def read_receipt(directory: Path) -> Receipt | None:
    """Return the receipt of a pulled directory without locking it, None if there is none."""
    try:
        with (directory / METADATA_DIR / RECEIPT).open("rb") as file:
            return Receipt.from_json(load_json(file.read(MAX_RECEIPT_BYTES), RECEIPT))
    except (OSError, ModelpackError):
        return None
