"""Chunk indexes for tests, made without files: real where it counts, with hashes out of thin air.

index = make_index([("a.bin", [CHUNK, 5]), ("sub/b.txt", [3])])
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence

from blake3 import blake3
from hypothesis import strategies as st

from modelpack.chunkindex import ChunkIndex, FileChunks, build_index
from modelpack.digest import Digest
from modelpack.layering import SourceFile, place, plan_layers

CHUNK = 4 * 1024 * 1024


def fake_hash(*what: object) -> bytes:
    """Return a hash that stands for ``what``: equal for equal arguments."""
    return blake3(repr(what).encode()).digest()


def fake_digest(*what: object) -> Digest:
    return Digest("sha256", hashlib.sha256(repr(what).encode()).hexdigest())


def make_index(
    files: Iterable[tuple[str, Sequence[int]]],
    *,
    modes: dict[str, int] | None = None,
    contents: dict[tuple[str, int], object] | None = None,
    layers: Sequence[Sequence[str]] | None = None,
) -> ChunkIndex:
    """Return a valid index of ``(path, chunk lengths)``.

    Chunk n of a path has the hash of ``contents[path, n]``, or one of its own. ``layers`` says which
    paths share a layer; without it the usual rule decides.
    """
    lengths = {path: list(given) for path, given in files}
    sources = {
        path: SourceFile(path=path, size=sum(given), mode=(modes or {}).get(path, 0o644))
        for path, given in lengths.items()
    }
    if layers is None:
        plan = plan_layers(sources.values())
    else:
        plan = tuple(place([sources[path] for path in group]) for group in layers)
    chunks = []
    for layer in plan:
        for placed in layer.files:
            path = placed.file.path
            hashes = (
                fake_hash((contents or {}).get((path, number), (path, number)), length)
                for number, length in enumerate(lengths[path])
            )
            chunks.append(
                FileChunks(
                    blake3=fake_hash("file", path, lengths[path]),
                    lengths=array("I", lengths[path]),
                    hashes=b"".join(hashes),
                )
            )
    digests = [fake_digest(number, layer.size) for number, layer in enumerate(plan)]
    return build_index(plan, digests, chunks)


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="/\\"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in {".", ".."} and not name.startswith(".wh."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
LENGTHS = st.lists(
    st.one_of(st.integers(1, 2000), st.integers(1, CHUNK), st.just(CHUNK)), max_size=5
)


@st.composite
def indexes(draw: st.DrawFn, *, min_files: int = 0, max_files: int = 12) -> ChunkIndex:
    """Draw any valid index: any paths, modes, chunk lengths, equal chunks, any share of layers."""
    count = draw(st.integers(min_files, max_files))
    # The number keeps any two paths apart; the directory is shared by some.
    paths = [f"{number}-{draw(PATHS)}" for number in range(count)]
    paths = [f"{draw(st.sampled_from(['', 'd/', 'd/é/']))}{path}" for path in paths]
    files = [(path, draw(LENGTHS)) for path in paths]
    modes = {path: draw(st.sampled_from([0o644, 0o755])) for path in paths}
    contents = {
        (path, number): draw(st.one_of(st.none(), st.integers(0, 3))) or (path, number)
        for path, lengths in files
        for number in range(len(lengths))
    }
    groups: list[list[str]] = []
    for path in paths:
        if groups and draw(st.booleans()):
            groups[-1].append(path)
        else:
            groups.append([path])
    return make_index(files, modes=modes, contents=contents, layers=groups)
