"""Sides of a comparison made of bytes in memory."""

from array import array

from modelpack.chunkindex import FileChunks, build_index
from modelpack.chunking import chunk_lengths
from modelpack.diffing.report import Version
from modelpack.digest import Digest, chunk_hash
from modelpack.layering import SourceFile, plan_layers
from modelpack.tensors import bytes_reader, probe


def version(files, *, cut=None, name="v", index_bytes=0):
    """A side whose files are ``path: bytes`` or ``path: (bytes, mode)``, cut every ``cut`` bytes."""
    contents = {
        path: value if isinstance(value, tuple) else (value, 0o644) for path, value in files.items()
    }
    plan = plan_layers(
        SourceFile(path=path, size=len(data), mode=mode) for path, (data, mode) in contents.items()
    )

    def chunks(path):
        data = contents[path][0]
        if cut:
            lengths = [len(data[at : at + cut]) for at in range(0, len(data), cut)]
        else:
            lengths = chunk_lengths(len(data), probe(path, bytes_reader(data), len(data)))
        hashes, at = b"", 0
        for length in lengths:
            hashes += chunk_hash(data[at : at + length])
            at += length
        return FileChunks(blake3=chunk_hash(data), lengths=array("I", lengths), hashes=hashes)

    index = build_index(
        plan,
        [Digest.of(str(number).encode()) for number in range(len(plan))],
        (chunks(placed.file.path) for layer in plan for placed in layer.files),
    )
    return Version(
        name=name,
        kind="artifact",
        digest=None,
        index=index,
        numbers=tuple(range(len(index.files))),
        index_bytes=index_bytes,
    )
