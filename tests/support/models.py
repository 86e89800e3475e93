"""Model directories for tests: small, but of every shape that real ones have."""

import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.support.tensorfiles import safetensors_file

CHUNK = 4 * 1024 * 1024


def random_bytes(size: int, seed: int = 0) -> bytes:
    """Return the same ``size`` incompressible bytes for the same seed."""
    return random.Random(seed).randbytes(size)


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    """Write files by path below ``root``, making directories; return ``root``."""
    for path, data in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return root


def read_tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return (mode, bytes) of every file below ``root`` but modelpack's own, by path."""
    found = {}
    for directory, names, files in os.walk(root):
        names.sort()
        for name in files:
            path = Path(directory, name)
            relative = path.relative_to(root).as_posix()
            if relative.split("/")[0] != ".modelpack":
                found[relative] = (path.stat().st_mode & 0o777, path.read_bytes())
    return found


def copy_tree(source: Path, target: Path) -> Path:
    """Copy a directory and return the copy."""
    return Path(shutil.copytree(source, target))


def leftovers(root: Path) -> list[str]:
    """Return what is in ``.modelpack/`` of a destination."""
    state = root / ".modelpack"
    return sorted(path.relative_to(state).as_posix() for path in state.rglob("*"))


def one_shard(layers: Iterable[int], *, size: int = 600_000, seed: int = 1) -> bytes:
    """Return a safetensors file with one large and one small tensor for each layer."""
    tensors = []
    for layer in layers:
        name = f"model.layers.{layer}"
        tensors.append((f"{name}.w", "U8", [size], random_bytes(size, seed * 1000 + layer)))
        tensors.append((f"{name}.norm", "U8", [512], random_bytes(512, seed * 1000 + layer + 500)))
    return safetensors_file(tensors)
