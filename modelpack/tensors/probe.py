"""Recognise tensor files by their content.

Owns: the decision which parser a file is for, and what becomes of one that is not what its name
says. Leaves out: the parsers.

Example::

    found = probe("blobs/sha256-0123", read, size)  # a TensorFile, or None for any other file
"""

from modelpack.errors import FormatError
from modelpack.tensors.gguf import MAGIC, parse_gguf
from modelpack.tensors.model import Read, TensorFile
from modelpack.tensors.safetensors import LENGTH_BYTES, looks_like_safetensors, parse_safetensors

_LFS_POINTER = b"version https://git-lfs"


def probe(name: str, read: Read, size: int) -> TensorFile | None:
    """Return what the header says, or None when the file holds no tensors in a known format.

    ``name`` is the file's path or name. Content decides: a file whose name ends in ``.safetensors``
    or ``.gguf`` has claimed a format and has to be valid; any other file that begins like one is
    recognised when it is valid and is None, an ordinary file, when it is not.

    Raises:
        FormatError: the name claims a format and the content is not a valid instance of it. The
            message does not hold the name. The caller decides whether such a file is refused or
            handled as opaque bytes.
    """
    lowered = name.lower()
    claims_safetensors = lowered.endswith(".safetensors")
    claims_gguf = lowered.endswith(".gguf")
    claimed = claims_safetensors or claims_gguf
    head = read(0, len(_LFS_POINTER)) if size else b""
    if claimed and head == _LFS_POINTER:
        raise FormatError("is a Git LFS pointer, not the tensors; run `git lfs pull` first")
    is_gguf = head.startswith(MAGIC)
    is_safetensors = looks_like_safetensors(head[: LENGTH_BYTES + 1], size)
    try:
        # A valid file of one format under the other's name is still what its bytes say.
        if is_gguf or (claims_gguf and not is_safetensors):
            return parse_gguf(read, size)
        if is_safetensors or claims_safetensors:
            return parse_safetensors(read, size)
    except FormatError:
        if claimed:
            raise
    return None
