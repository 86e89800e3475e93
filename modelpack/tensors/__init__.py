"""Read what the headers of tensor files say: safetensors and GGUF.

Owns: the strict, bounded parsers and the values they return. Leaves out: opening files, where chunks
end (``modelpack.chunking``) and what the tensors mean for a model (``modelpack.facts``).

The parsers take a ``read(offset, length)`` callable and the file's size, so the same code reads a
local file, a mounted one and a blob in a registry, and never more than its header.

Example::

    from modelpack.tensors import bytes_reader, probe

    found = probe("model.safetensors", bytes_reader(data), len(data))
    if found is not None:
        print(found.format, found.parameters, [tensor.name for tensor in found.tensors])
"""

from modelpack.tensors.gguf import parse_gguf
from modelpack.tensors.model import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    ArraySummary,
    MetadataValue,
    Read,
    Tensor,
    TensorFile,
    bytes_reader,
)
from modelpack.tensors.probe import probe
from modelpack.tensors.safetensors import parse_safetensors

__all__ = [
    "MAX_HEADER_BYTES",
    "MAX_TENSORS",
    "ArraySummary",
    "MetadataValue",
    "Read",
    "Tensor",
    "TensorFile",
    "bytes_reader",
    "parse_gguf",
    "parse_safetensors",
    "probe",
]
