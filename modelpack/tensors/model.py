"""Hold what a tensor file's header says: its tensors, its metadata, where the data begins.

Owns: the values and the bounds that both parsers share. Leaves out: the formats themselves.

Example::

    Tensor(name="lm_head.weight", dtype="BF16", shape=(32000, 4096), offset=4096, length=262144000)
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

MAX_HEADER_BYTES = 100_000_000
"""The bound that the safetensors format sets on its header; taken for GGUF too, whose largest real
headers (a vocabulary of some 260,000 tokens with its merges) stay under 20 MB."""

MAX_TENSORS = 250_000
"""Tensors in one file. The largest mixture-of-experts models have some 190,000 in all their shards
together; this many values take about 100 MB of memory."""

MAX_ELEMENTS = 2**63 - 1
"""Elements in one tensor: what the readers that follow keep in a signed 64-bit count."""

_SHOWN_CHARACTERS = 80

Read: TypeAlias = Callable[[int, int], bytes]
"""``read(offset, length)``: up to ``length`` bytes at ``offset``; fewer only at the end of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySummary:
    """Stand for an array in GGUF metadata that is too long, or too deep, to keep."""

    element_type: str
    length: int


MetadataValue: TypeAlias = (
    str | int | float | bool | tuple[str | int | float | bool, ...] | ArraySummary
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """Name one tensor and the bytes that hold it.

    ``shape`` has the outermost dimension first in both formats (a GGUF file stores it innermost
    first). ``offset`` counts bytes from the start of the file; ``length`` leaves padding out.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int

    @property
    def elements(self) -> int:
        """Count the elements; 1 for a scalar, which has no dimensions."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFile:
    """Hold what a valid header says.

    ``size`` is the whole file's, in bytes; ``header_length`` is where the tensor data begins;
    ``tensors`` are in the order of their offsets, do not overlap and end within the file.
    ``format_version`` is GGUF's 2 or 3 (safetensors has none).
    """

    format: Literal["safetensors", "gguf"]
    size: int
    header_length: int
    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    format_version: int | None = None
    byte_order: Literal["little", "big"] = "little"

    @property
    def parameters(self) -> int:
        """Count the elements of all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def parameters_by_dtype(self) -> dict[str, int]:
        """Count the elements of all tensors per dtype, in the order of the dtypes' names."""
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.elements
        return dict(sorted(counts.items()))


def bytes_reader(data: bytes) -> Read:
    """Return a ``read`` over bytes in memory."""

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return read


def shown(name: str) -> str:
    """Quote a name from a file for a message: one line, no control characters, at most 80 long."""
    text = ascii(name[:_SHOWN_CHARACTERS])
    return f"{text}..." if len(name) > _SHOWN_CHARACTERS else text
