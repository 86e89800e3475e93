"""Decide where the chunks of a file end.

Owns: the rule below. Leaves out: reading, hashing, and the chunk index that records the result; a
reader never needs this module, because the index holds the lengths.

The aim: a chunk's bytes should depend on one tensor, or on a few small neighbours of one block, and
on nothing else in the file. A header that grows, a tensor that is renamed, added or removed, or a
model cut into other shards then leaves the other chunks byte for byte as they were, without a rolling
hash and without reading the data.

The rule, version 1 (normative)
-------------------------------

Units: offsets and lengths are bytes. C is 4,194,304 (4 MiB); S is 262,144 (256 KiB). To *cut* an
extent means to end a chunk after every C bytes counted from the extent's first byte, and at the
extent's end; the last chunk of an extent is between 1 and C bytes long.

1.  An empty file has no chunks.
2.  A file that is not a valid safetensors or GGUF file is one extent; cut it.
3.  Otherwise order the tensors by (offset, length). A tensor's *extent* runs from its offset to the
    next tensor's offset, or, for the last one, to the end of the file. So padding (GGUF aligns
    tensors) and anything else between two tensors belongs to the tensor before it, and whatever
    follows the last tensor belongs to the last. Tensors whose extent is empty are left out of what
    follows.
4.  The bytes before the first tensor's offset (the header, with its padding) are one extent; cut it.
    With no tensors that is the whole file.
5.  A tensor is *small* when its extent is shorter than S. Cut the extent of every tensor that is not
    small: it shares no chunk with anything.
6.  A tensor's *block* is the first component of its name, split at ".", that consists only of the
    characters 0 to 9; compare blocks as text. A name without one is in no block, which is a block of
    its own for the comparison. (In ``model.layers.12.mlp.experts.3.up_proj.bias`` the block is
    ``12``; in ``blk.7.attn_norm.weight`` it is ``7``; ``lm_head.bias`` has none.)
7.  Go through the small tensors in order. A tensor joins the chunk of the one before it when all of
    these hold: the one before it is small; both have the same block; the chunk, with the tensor's
    whole extent, is not longer than C. Otherwise it begins a chunk. Small extents are never split.

Why rule 6: the end of a pack has to follow from the neighbours alone, or one added tensor would move
every later boundary. Lengths do not serve (all layers of a model look alike), whole names do not
either (a changed prefix renames every tensor). The block survives a changed prefix and a renamed
tensor, stays together when a model is cut into other shards (the safetensors library orders a file's
tensors by dtype and name), and has one pack for each of its uninterrupted runs of small tensors.

What is not promised: a pack that reaches C within one block shifts the rest of that run when a tensor
is added to it; a renaming that moves a small tensor to another block or place regroups the packs it
leaves and joins; taking away what stood between two packs of one block makes them one; and in GGUF
the padding after the last tensor of a file is part of that tensor's last chunk, so a writer that
leaves it out makes that one chunk another.

Example::

    chunk_lengths(9 * 1024 * 1024, None)  # [4194304, 4194304, 1048576]
"""

from modelpack.tensors import Tensor, TensorFile

CHUNK_BYTES = 4 * 1024 * 1024
"""C of the rule, the longest chunk: a 1 TB model has some 240,000, whose index stays near 10 MB."""

SMALL_TENSOR_BYTES = 256 * 1024
"""S of the rule. A chunk costs some 36 bytes of index, 0.014 % of this; packing anything larger would
only tie tensors together that can be reused apart."""


def chunk_lengths(size: int, tensors: TensorFile | None) -> list[int]:
    """Return the lengths of a file's chunks, in order, by the rule in this module's text.

    ``tensors`` is what the file's header says, or None for a file to be handled as opaque bytes.
    The lengths are each from 1 to ``CHUNK_BYTES`` and add up to ``size``. Pure: the same arguments
    give the same lengths.

    Raises:
        ValueError: ``tensors`` describes a file of another size.
    """
    if tensors is None:
        return _cut(size)
    if tensors.size != size:
        raise ValueError(f"the header describes {tensors.size} bytes, the file has {size}")
    if not tensors.tensors:
        return _cut(size)
    lengths = _cut(tensors.tensors[0].offset)
    pack = 0  # bytes in the open pack of small tensors; 0 when none is open
    pack_block: str | None = None
    for tensor, extent in _extents(tensors.tensors, size):
        if extent >= SMALL_TENSOR_BYTES:
            if pack:
                lengths.append(pack)
                pack = 0
            lengths += _cut(extent)
            continue
        block = _block(tensor.name)
        if pack and (block != pack_block or pack + extent > CHUNK_BYTES):
            lengths.append(pack)
            pack = 0
        pack += extent
        pack_block = block
    if pack:
        lengths.append(pack)
    return lengths


def _extents(tensors: tuple[Tensor, ...], size: int) -> list[tuple[Tensor, int]]:
    """Pair each tensor with the length of its extent (rule 3)."""
    ends = [tensor.offset for tensor in tensors[1:]] + [size]
    extents = []
    for tensor, end in zip(tensors, ends, strict=True):
        if end > tensor.offset:
            extents.append((tensor, end - tensor.offset))
    return extents


def _block(name: str) -> str | None:
    """Return the tensor's block (rule 6)."""
    for component in name.split("."):
        if component.isdigit() and component.isascii():
            return component
    return None


def _cut(extent: int) -> list[int]:
    whole, rest = divmod(extent, CHUNK_BYTES)
    lengths = [CHUNK_BYTES] * whole
    if rest:
        lengths.append(rest)
    return lengths
