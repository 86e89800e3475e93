"""How much of a file has been written, as opposed to allocated."""

import os
from collections.abc import Iterable
from pathlib import Path


def written_bytes(paths: Iterable[Path]) -> int:
    """Return how many bytes of files are data, not holes or space laid out ahead."""
    return sum(_written(path) for path in paths if path.is_file())


def _written(path: Path) -> int:
    total, position = 0, 0
    with path.open("rb") as file:
        while True:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:  # only a hole from here to the end
                return total
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            total += position - start
