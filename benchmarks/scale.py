"""A model of 1 TB, without its bytes: how large its index is, and how long planning a pull takes.

The model's files are sparse, with real safetensors headers, cut by the packer's own rule; only the
hashes are made up. The registry is simulated by handing over the encoded index. What the link and
the cores would then take follows from the measured CPU cost of a byte.

    python -m benchmarks.scale [TERABYTES]
"""

import json
import os
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

from blake3 import blake3

from modelpack.chunkindex import ChunkIndex, FileChunks, build_index, decode_index, encode_index
from modelpack.digest import Digest
from modelpack.layering import SourceFile, plan_layers
from modelpack.packing import chunk_lengths_of
from modelpack.plan import ChunkMap, plan_chunks, plan_ranges, range_size
from modelpack.schedule import RangeQueue

_SHARD_BYTES = 5_000_000_000
_TENSOR_BYTES = 117_440_512
_CONNECTIONS = 16


def main(terabytes: str = "1") -> None:
    """Print sizes, seconds and memory as Markdown."""
    total = int(float(terabytes) * 1e12)
    with tempfile.TemporaryDirectory() as place:
        index = _index_of(_sparse_model(Path(place), total))
    rows = []
    started = time.perf_counter()
    encoded = encode_index(index)
    rows.append(("encode the index", time.perf_counter() - started))
    before = _peak()
    del index
    started = time.perf_counter()
    decoded = decode_index(encoded)
    rows.append(("decode and validate it", time.perf_counter() - started))
    started = time.perf_counter()
    chunk_map = ChunkMap.of(decoded)
    files = range(len(decoded.files))
    work = plan_chunks(decoded, files=files, have=frozenset(), local=frozenset())
    size = range_size(work.fetch_bytes, _CONNECTIONS)
    ranges = plan_ranges(chunk_map, work.states, size)
    queue = RangeQueue.of(chunk_map, ranges)
    rows.append(("plan the pull", time.perf_counter() - started))
    print(f"{decoded.total_bytes / 1e12:.2f} TB in {len(decoded.files)} files, ")
    print(f"{decoded.chunk_count:,} chunks, index of {len(encoded) / 1e6:.1f} MB, ")
    print(f"{len(queue.waiting):,} requests of up to {size / 2**20:.0f} MiB; peak {_peak()} MB ")
    print(f"(of which {before} MB for making the index, as a push does)\n")
    print("| step | seconds |\n|---|---|")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.2f} |")


def _sparse_model(root: Path, total: int) -> list[Path]:
    paths = []
    count = max(1, round(total / _SHARD_BYTES))
    for number in range(count):
        header = {
            f"model.layers.{number}.{tensor}.weight": {
                "dtype": "BF16",
                "shape": [_TENSOR_BYTES // 2],
                "data_offsets": [tensor * _TENSOR_BYTES, (tensor + 1) * _TENSOR_BYTES],
            }
            for tensor in range(_SHARD_BYTES // _TENSOR_BYTES)
        }
        raw = json.dumps(header).encode()
        raw += b" " * (-len(raw) % 8)
        path = root / f"model-{number + 1:05}-of-{count:05}.safetensors"
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(raw)) + raw)
            file.truncate(8 + len(raw) + len(header) * _TENSOR_BYTES)
        paths.append(path)
    return paths


def _index_of(paths: list[Path]) -> ChunkIndex:
    plan = plan_layers(
        SourceFile(path=path.name, size=path.stat().st_size, mode=0o644) for path in paths
    )
    by_name = {path.name: path for path in paths}
    chunks = []
    for layer in plan:
        for placed in layer.files:
            path = by_name[placed.file.path]
            fd = os.open(path, os.O_RDONLY)
            lengths = chunk_lengths_of(fd, path.name, placed.file.size)
            os.close(fd)
            seed = path.name.encode()
            hashes = blake3(seed).digest(32 * len(lengths))
            chunks.append(
                FileChunks(blake3=blake3(seed + b"file").digest(), lengths=lengths, hashes=hashes)
            )
    return build_index(plan, [Digest.of(b"%d" % number) for number in range(len(plan))], chunks)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


if __name__ == "__main__":
    main(*sys.argv[1:])
