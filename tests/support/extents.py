"""How much of a file has been written, as opposed to allocated."""

from collections.abc import Iterable
from pathlib import Path

_BLOCK = 4096


def written_bytes(paths: Iterable[Path]) -> int:
    """Return how many bytes of files are in blocks that hold anything but zeros.

    Neither blocks nor holes tell: space is allocated ahead, and counts as data once it was read.
    """
    return sum(_written(path) for path in paths if path.is_file())


def _written(path: Path) -> int:
    data = path.read_bytes()
    empty = bytes(_BLOCK)
    blocks = (data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK))
    return sum(len(block) for block in blocks if block != empty[: len(block)])
