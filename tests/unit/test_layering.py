import io
import random
import tarfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import FormatError
from modelpack.layering import (
    LARGE_FILE_BYTES,
    MAX_DATA_LAYERS,
    MAX_LAYERS,
    SourceFile,
    frames,
    place,
    plan_layers,
)
from tests.support.indexes import PATHS

L = LARGE_FILE_BYTES


def files(*pairs):
    return [SourceFile(path=path, size=size, mode=0o644) for path, size in pairs]


def paths_of(layers):
    return [[placed.file.path for placed in layer.files] for layer in layers]


@pytest.mark.parametrize(
    ("given_files", "expected"),
    [
        ([], []),
        ([("a", 0)], [["a"]]),
        ([("a", L)], [["a"]]),
        ([("a", L - 1), ("b", L)], [["b"], ["a"]]),
        ([("z", L), ("a", L), ("m", 1), ("b", 2)], [["a"], ["z"], ["b", "m"]]),
        # by the bytes of the path, not by its letters: '-' is before '/', 'Z' before 'a'
        ([("a/b", 1), ("a-b", 1), ("a.b", 1), ("Z", 1)], [["Z", "a-b", "a.b", "a/b"]]),
        (
            [("é", 1), ("z", 1), ("\U0001f600", 1), ("\uffef", 1)],
            [["z", "é", "\uffef", "\U0001f600"]],
        ),
    ],
)
def test_which_files_share_a_layer(given_files, expected):
    assert paths_of(plan_layers(files(*given_files))) == expected


@pytest.mark.parametrize("small", [False, True], ids=["large-only", "with-small"])
@pytest.mark.parametrize("large", [1, 97, 98, 99, 100, 101, 163, 196, 198, 199, 1000, 10_000])
def test_never_more_layers_than_runtimes_take(large, small):
    given_files = files(*[(f"model-{n:05}", L) for n in range(large)], *[("a", 1)] * small)
    layers = plan_layers(given_files)
    room = MAX_DATA_LAYERS - small
    assert len(layers) == min(large, room) + small
    assert len(layers) + 1 <= MAX_LAYERS
    of_large = layers[: min(large, room)]
    counts = [len(layer.files) for layer in of_large]
    assert max(counts) - min(counts) <= 1
    in_order = [path for layer in paths_of(of_large) for path in layer]
    assert in_order == sorted(in_order)
    assert sum(len(layer.files) for layer in layers) == large + small


def test_a_layer_of_all_small_files_is_last():
    layers = plan_layers(files(("a", 1), ("m", L), ("z", 1)))
    assert paths_of(layers) == [["m"], ["a", "z"]]


SOURCES = st.lists(
    st.builds(
        SourceFile,
        path=PATHS,
        size=st.integers(0, 3 * L) | st.integers(0, 600),
        mode=st.sampled_from([0o644, 0o755]),
    ),
    max_size=12,
    unique_by=lambda file: file.path,
)


def planned(sources):
    try:
        return plan_layers(sources)
    except FormatError:
        return None


@given(SOURCES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_files_given_does_not_matter(sources, chance):
    shuffled = sources[:]
    chance.shuffle(shuffled)
    assert planned(sources) == planned(shuffled)


@given(SOURCES, st.integers(0, 11), st.integers(0, L - 1))
@settings(deadline=None)
def test_an_edit_of_a_small_file_leaves_the_other_layers(sources, which, size):
    """A runtime names a layer by all below it, so what changes has to be above what does not."""
    before = planned(sources)
    if before is None or which >= len(sources) or sources[which].size >= L:
        return
    edited = sources[:]
    edited[which] = SourceFile(path=sources[which].path, size=size, mode=0o644)
    after = plan_layers(edited)
    assert after[:-1] == before[:-1]


@given(SOURCES)
@settings(deadline=None)
def test_files_of_a_layer_do_not_overlap_and_end_within_it(sources):
    for layer in planned(sources) or ():
        end = 0
        for placed in layer.files:
            assert placed.offset >= end + 512
            assert placed.offset % 512 == 0
            end = placed.offset + placed.file.size
        assert layer.size == end + -end % 512 + 1024


@given(SOURCES.map(lambda found: [file for file in found if file.size < 5000]))
@settings(max_examples=50, deadline=None)
def test_frames_and_contents_are_the_tar_that_was_planned(sources):
    if planned(sources) is None:
        return
    chance = random.Random(1)
    contents = {file.path: chance.randbytes(file.size) for file in sources}
    for layer in plan_layers(sources):
        raw = b""
        for frame, file in frames([placed.file for placed in layer.files]):
            raw += frame + (contents[file.path] if file else b"")
        assert len(raw) == layer.size
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:", encoding="utf-8") as tar:
            entries = tar.getmembers()
        regular = [entry for entry in entries if entry.isreg()]
        assert [(entry.name, entry.offset_data) for entry in regular] == [
            (placed.file.path, placed.offset) for placed in layer.files
        ]
        seen = {""}
        for entry in entries:
            assert entry.name.rpartition("/")[0] in seen  # a directory comes before what is in it
            assert entry.name not in seen  # and once
            seen.add(entry.name)
        assert len(entries) - len(regular) == len(
            {"/".join(entry.name.split("/")[:depth]) for entry in regular
             for depth in range(1, entry.name.count("/") + 1)}
        )  # fmt: skip


def test_each_layer_has_its_own_directories():
    """Layers are unpacked one by one, some of them perhaps not at all."""
    layers = plan_layers(files(("d/a", L), ("d/b", L), ("d/c", 1)))
    assert [layer.files[0].offset for layer in layers] == [1024, 1024, 1024]


def test_bad_paths_are_refused():
    for bad in (["a", "A"], ["../a"], ["a", "a/b"], [".modelpack/chunks.bin"]):
        with pytest.raises(FormatError):
            plan_layers(files(*[(path, 1) for path in bad]))


def test_many_deep_directories_in_little_time():
    deep = "/".join("d" * 120)
    sources = files(*[(f"{n}/{deep}/{m}", 0) for n in range(100) for m in range(20)])
    started = time.perf_counter()
    (layer,) = plan_layers(sources)
    assert time.perf_counter() - started < 10
    assert place([placed.file for placed in layer.files]) == layer
