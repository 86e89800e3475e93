"""Models to move: real safetensors files of incompressible bytes, made the same every time."""

import json
import shutil
import struct
from pathlib import Path

from blake3 import blake3

MIB = 1024 * 1024
_TENSOR_BYTES = 16 * MIB


def sharded_model(root: Path, *, shards: int, shard_bytes: int) -> Path:
    """Write a model of equal shards, each of 16 MiB tensors; an existing one is kept."""
    done = root / ".complete"
    if done.exists():
        return root / "model"
    model = root / "model"
    model.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        _write_shard(model / name, number, max(1, shard_bytes // _TENSOR_BYTES), shard_bytes)
    (model / "config.json").write_text('{"model_type": "benchmark"}\n')
    done.touch()
    return model


def small_files(root: Path, count: int) -> Path:
    """Write ``count`` files of 1 to 20 KiB in a hundred directories."""
    done = root / ".complete"
    model = root / "model"
    if not done.exists():
        for number in range(count):
            path = model / f"{number % 100:02}" / f"{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_random(number, 1024 + number * 97 % 19456))
        done.touch()
    return model


def changed_copy(model: Path, target: Path, part: float) -> Path:
    """Copy a model with ``part`` of its tensors replaced, spread evenly."""
    if (target / ".complete").exists():
        return target / "model"
    copy = target / "model"
    copy.mkdir(parents=True, exist_ok=True)
    step = round(1 / part)
    count = 0
    for path in sorted(model.iterdir()):
        # Copied and patched in place: a child's peak memory starts at this process's own.
        shutil.copyfile(path, copy / path.name)
        if path.suffix != ".safetensors":
            continue
        with (copy / path.name).open("r+b") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            for entry in json.loads(file.read(length)).values():
                count += 1
                if count % step == 0:
                    start, end = entry["data_offsets"]
                    file.seek(8 + length + start)
                    file.write(_random(0xC0FFEE + count, end - start))
    (target / ".complete").touch()
    return copy


def _write_shard(path: Path, number: int, tensors: int, size: int) -> None:
    header = {}
    offset = 0
    lengths = [size // tensors] * tensors
    for index, length in enumerate(lengths):
        header[f"model.layers.{number * tensors + index}.weight"] = {
            "dtype": "U8",
            "shape": [length],
            "data_offsets": [offset, offset + length],
        }
        offset += length
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for index, length in enumerate(lengths):
            file.write(_random(number * 100_003 + index, length))


def _random(seed: int, size: int) -> bytes:
    """Return ``size`` bytes of BLAKE3's output stream for a seed."""
    return blake3(struct.pack("<Q", seed)).digest(size)
