"""What a pull has to do: which chunks to fetch in which requests, and which to copy from where.

Owns the decision; pure: an index, what is already there and what is at hand locally go in, a plan
comes out. Leaves out carrying it out (``download.py``, ``stores/staging.py``).

A chunk is not a request: missing chunks that lie next to each other in a layer are fetched by one
ranged request of up to ``range_bytes``, and a gap of at most ``BRIDGE_BYTES`` (tar headers, a chunk
that is there already) is read and thrown away rather than paid for with another request.
"""

from array import array
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from modelpack.chunkindex import ChunkIndex
from modelpack.digest import ChunkHash

# At 1 GB/s and 0.2 ms a request, 64 KiB of waste cost about what a request does.
BRIDGE_BYTES = 64 * 1024
MIN_RANGE_BYTES = 8 * 1024 * 1024
MAX_RANGE_BYTES = 64 * 1024 * 1024
# Enough requests that no connection sits idle while another has much left.
_RANGES_PER_CONNECTION = 4


class ChunkState(IntEnum):
    """What is to be done about a chunk."""

    UNWANTED = 0
    """Belongs to no file that is wanted, or to one that is in place."""
    HAVE = 1
    """Verified, in its staging file."""
    COPY = 2
    """A local copy is at hand."""
    TWIN = 3
    """The same bytes are fetched or copied for an earlier chunk."""
    FETCH = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchRange:
    """Chunks ``first`` to ``last`` (exclusive) of one layer, fetched by one request."""

    layer: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class ChunkMap:
    """Where every chunk lies: its file, and its byte offset in its layer."""

    index: ChunkIndex
    file_of: "array[int]"
    layer_offset: "array[int]"

    @classmethod
    def of(cls, index: ChunkIndex) -> "ChunkMap":
        """Work the map out."""
        file_of = array("I")
        layer_offset = array("Q")
        for number, file in enumerate(index.files):
            file_of.extend(array("I", [number]) * file.chunk_count)
            layer_offset.extend(file.offset + index.offsets[chunk] for chunk in file.chunks)
        return cls(index=index, file_of=file_of, layer_offset=layer_offset)

    def start(self, chunk: int) -> int:
        """Return the offset in its layer at which a chunk starts."""
        return self.layer_offset[chunk]

    def end(self, chunk: int) -> int:
        """Return the offset in its layer at which a chunk ends."""
        return self.layer_offset[chunk] + self.index.lengths[chunk]

    def layer(self, chunk: int) -> int:
        """Return a chunk's layer."""
        return self.index.files[self.file_of[chunk]].layer


@dataclass(frozen=True, kw_only=True)
class PullPlan:
    """What to do about every chunk, and the totals that follow."""

    states: bytearray
    """A ``ChunkState`` for each chunk."""
    twins: Mapping[int, int]
    """TWIN chunks and the chunk each equals."""
    fetch_bytes: int
    reuse_bytes: int
    """Of wanted chunks that are not fetched."""

    def chunks(self, state: ChunkState) -> list[int]:
        """Return the numbers of the chunks in a state, ascending."""
        return [chunk for chunk, value in enumerate(self.states) if value == state]


def plan_chunks(
    index: ChunkIndex,
    *,
    files: Iterable[int],
    have: Container[int],
    local: Container[ChunkHash],
) -> PullPlan:
    """Decide about every chunk.

    ``files`` are the numbers of the files to build, ``have`` the chunks that are verified in
    their staging files, ``local`` the hashes of chunks that may be copied from this machine.
    """
    states = bytearray(index.chunk_count)
    twins: dict[int, int] = {}
    first_of: dict[ChunkHash, int] = {}
    fetch_bytes = reuse_bytes = 0
    for number in files:
        for chunk in index.files[number].chunks:
            length = index.lengths[chunk]
            value = index.hash_of(chunk)
            first = first_of.setdefault(value, chunk)
            if chunk in have:
                states[chunk] = ChunkState.HAVE
            elif first != chunk and index.lengths[first] == length:
                states[chunk] = ChunkState.TWIN
                twins[chunk] = first
            elif value in local:
                states[chunk] = ChunkState.COPY
            else:
                states[chunk] = ChunkState.FETCH
                fetch_bytes += length
                continue
            reuse_bytes += length
    return PullPlan(states=states, twins=twins, fetch_bytes=fetch_bytes, reuse_bytes=reuse_bytes)


def plan_ranges(chunk_map: ChunkMap, states: bytearray, range_bytes: int) -> list[FetchRange]:
    """Join the chunks to fetch into requests of at most about ``range_bytes``."""
    ranges: list[FetchRange] = []
    first = last = -1
    for chunk, state in enumerate(states):
        if state != ChunkState.FETCH:
            continue
        joins = (
            first >= 0
            and chunk_map.layer(chunk) == chunk_map.layer(first)
            and chunk_map.start(chunk) - chunk_map.end(last) <= BRIDGE_BYTES
            and chunk_map.end(chunk) - chunk_map.start(first) <= range_bytes
        )
        if not joins:
            if first >= 0:
                ranges.append(FetchRange(layer=chunk_map.layer(first), first=first, last=last + 1))
            first = chunk
        last = chunk
    if first >= 0:
        ranges.append(FetchRange(layer=chunk_map.layer(first), first=first, last=last + 1))
    return ranges


def range_size(fetch_bytes: int, connections: int) -> int:
    """Return how large requests should be for this much to fetch."""
    even = fetch_bytes // max(1, connections * _RANGES_PER_CONNECTION)
    return max(MIN_RANGE_BYTES, min(MAX_RANGE_BYTES, even))
