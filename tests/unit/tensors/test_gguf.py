import struct
import time
import tracemalloc

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import FormatError
from modelpack.tensors import ArraySummary, bytes_reader, parse_gguf
from modelpack.tensors.dtypes import GGML_FILE_TYPES, GGML_TYPES
from modelpack.tensors.gguf import MAX_WALKED_STRINGS
from tests.support import tensorfiles as raw
from tests.support.tensorfiles import gguf_file, gguf_pair, gguf_raw, gguf_string, gguf_tensor

F32, F16, Q4_0, Q4_K = 0, 1, 2, 12


def parse(data):
    return parse_gguf(bytes_reader(data), len(data))


def write(path, build, endianess=gguf.GGUFEndian.LITTLE):
    """Have the gguf package write a file."""
    writer = gguf.GGUFWriter(path, "llama", endianess=endianess)
    build(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def model(writer):
    writer.add_name("Tiny")
    writer.add_file_type(2)
    writer.add_context_length(2048)
    writer.add_rope_freq_base(10000.0)
    writer.add_languages(["en", "de"])
    writer.add_token_list([f"token{i}" for i in range(1000)])
    writer.add_token_scores([0.5] * 1000)
    writer.add_add_bos_token(True)
    writer.add_tensor("token_embd.weight", np.arange(96, dtype=np.float32).reshape(3, 32))
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(7, np.float32))
    writer.add_tensor(
        "blk.0.attn_q.weight", np.zeros((4, 36), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q4_0
    )
    writer.add_tensor("blk.0.half", np.zeros((2, 3, 5), np.float16))


def test_values_of_a_file_written_by_the_gguf_package(tmp_path):
    path = tmp_path / "model.gguf"
    data = write(path, model)

    parsed = parse(data)

    reader = gguf.GGUFReader(path)
    assert parsed.format == "gguf"
    assert parsed.format_version == 3
    assert parsed.byte_order == "little"
    assert parsed.header_length == reader.data_offset
    assert [(t.name, t.dtype, t.shape, t.offset, t.length, t.elements) for t in parsed.tensors] == [
        (
            t.name,
            t.tensor_type.name,
            tuple(reversed([int(n) for n in t.shape])),
            t.data_offset,
            t.n_bytes,
            t.n_elements,
        )
        for t in sorted(reader.tensors, key=lambda t: t.data_offset)
    ]
    assert parsed.parameters_by_dtype == {"F16": 30, "F32": 103, "Q4_0": 4 * 64}
    assert parsed.metadata == {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "general.file_type": 2,
        "llama.context_length": 2048,
        "llama.rope.freq_base": 10000.0,
        "general.languages": ("en", "de"),
        "tokenizer.ggml.tokens": ArraySummary(element_type="string", length=1000),
        "tokenizer.ggml.scores": ArraySummary(element_type="float32", length=1000),
        "tokenizer.ggml.add_bos_token": True,
    }


def test_a_big_endian_file_reads_the_same(tmp_path):
    little = parse(write(tmp_path / "little.gguf", model))
    big = parse(write(tmp_path / "big.gguf", model, gguf.GGUFEndian.BIG))
    assert big.byte_order == "big"
    assert big.tensors == little.tensors
    assert big.metadata == little.metadata


def test_another_alignment(tmp_path):
    def build(writer):
        writer.add_custom_alignment(256)
        model(writer)

    data = write(tmp_path / "aligned.gguf", build)
    parsed = parse(data)
    assert parsed.header_length % 256 == 0
    assert all(tensor.offset % 256 == 0 for tensor in parsed.tensors)


def test_type_tables_are_those_of_the_gguf_package():
    known = {
        kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType
    }
    assert {number: tuple(each) for number, each in GGML_TYPES.items()} == known | {
        42: ("Q2_0", 64, 18)  # in ggml, not yet in the package
    }
    file_types = {
        kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_")
        for kind in gguf.LlamaFileType
        if kind.name != "GUESSED"
    }
    assert file_types | {41: "Q2_0"} == GGML_FILE_TYPES


ALL_KINDS = [
    ("u8", raw.U8, 255),
    ("i8", raw.I8, -1),
    ("u16", raw.U16, 65535),
    ("i16", raw.I16, -2),
    ("u32", raw.U32, 2**32 - 1),
    ("i32", raw.I32, -3),
    ("f32", raw.F32, 0.5),
    ("bool", raw.BOOL, True),
    ("string", raw.STRING, "größe\n"),
    ("u64", raw.U64, 2**64 - 1),
    ("i64", raw.I64, -(2**63)),
    ("f64", raw.F64, 0.1),
]


@pytest.mark.parametrize("version", [2, 3])
def test_every_value_type(version):
    pairs = [gguf_pair(key, kind, value) for key, kind, value in ALL_KINDS]
    parsed = parse(gguf_raw(pairs, version=version))
    assert parsed.format_version == version
    assert parsed.metadata == {key: value for key, _, value in ALL_KINDS}
    assert type(parsed.metadata["bool"]) is bool
    assert parsed.tensors == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((raw.U8, []), ()),
        ((raw.I32, [1, -2]), (1, -2)),
        ((raw.BOOL, [True, False]), (True, False)),
        ((raw.U8, [7] * 64), (7,) * 64),
        ((raw.U8, [7] * 65), ArraySummary(element_type="uint8", length=65)),
        ((raw.STRING, ["a"] * 65), ArraySummary(element_type="string", length=65)),
        ((raw.ARRAY, [(raw.STRING, ["a"])]), ArraySummary(element_type="array", length=1)),
        ((raw.ARRAY, [(raw.ARRAY, [(raw.U8, [1])])]), ArraySummary(element_type="array", length=1)),
    ],
    ids=["empty", "ints", "bools", "64", "65", "65-strings", "nested", "nested-twice"],
)
def test_arrays_are_kept_when_short_and_summarised_when_not(value, expected):
    pairs = [gguf_pair("a", raw.ARRAY, value), gguf_pair("after", raw.U8, 1)]
    assert parse(gguf_raw(pairs)).metadata == {"a": expected, "after": 1}


def test_values_across_the_edges_of_the_read_window():
    """1 MiB windows: a long array, a string longer than a window, many short strings."""
    pairs = [
        gguf_pair("skipped", raw.ARRAY, (raw.U64, [1] * 400_000)),
        gguf_pair("text", raw.STRING, "x" * 3_000_000),
        gguf_pair("tokens", raw.ARRAY, (raw.STRING, [b"y" * (n % 31) for n in range(100_000)])),
        gguf_pair("long", raw.ARRAY, (raw.STRING, [b"z" * 700_000] * 65)),
        gguf_pair("after", raw.STRING, "end"),
    ]
    metadata = parse(gguf_raw(pairs)).metadata
    assert len(metadata["text"]) == 3_000_000
    assert metadata["tokens"] == ArraySummary(element_type="string", length=100_000)
    assert metadata["after"] == "end"


def test_tensors_out_of_order_gaps_and_trailing_bytes_are_accepted():
    tensors = [gguf_tensor("second", [8], F32, 128), gguf_tensor("first", [8], F32, 0)]
    parsed = parse(gguf_raw((), tensors, bytes(128 + 32 + 1000)))
    assert [tensor.name for tensor in parsed.tensors] == ["first", "second"]


@pytest.mark.parametrize(
    ("extents", "shape", "length"),
    [([], (), 4), ([5], (5,), 20), ([5, 3], (3, 5), 60), ([0], (0,), 0), ([2, 3, 4, 5], (5, 4, 3, 2), 480)],
    ids=str,
)  # fmt: skip
def test_shapes(extents, shape, length):
    (tensor,) = parse(gguf_file([("x", extents, F32, bytes(length))])).tensors
    assert (tensor.shape, tensor.length) == (shape, length)


def one_tensor(extents=(8,), kind=F32, offset=0, data=bytes(32), name="x"):
    return gguf_raw((), [gguf_tensor(name, extents, kind, offset)], data)


BAD = {
    "empty": (b"", "too short"),
    "magic-only": (b"GGUF", "too short"),
    "wrong-magic": (b"GGML" + bytes(40), "does not begin"),
    "version-1": (gguf_raw(version=1), "version 1 "),
    "version-4": (gguf_raw(version=4), "version 4 "),
    "big-endian-version-2": (gguf_raw(version=2, order=">"), "not supported"),
    "pairs-missing": (gguf_raw(pair_count=1), "more than fit"),
    "tensors-missing": (gguf_raw(tensor_count=1), "more than fit"),
    "cut-pair": (gguf_raw([gguf_pair("key", raw.STRING, "v" * 99)])[:-30], "are left"),
    "empty-key": (gguf_raw([gguf_pair("", raw.STRING, "value")]), "is empty"),
    "duplicate-key": (gguf_raw([gguf_pair("k", raw.U8, 1)] * 2), "'k' is there twice"),
    "key-not-utf-8": (gguf_raw([gguf_pair(b"\xff", raw.STRING, "value")]), "not UTF-8"),
    "key-too-long": (gguf_raw([gguf_pair("k" * 65_536, raw.U8, 1)]), "over the limit"),
    "value-not-utf-8": (gguf_raw([gguf_pair("k", raw.STRING, b"\xff")]), "not UTF-8"),
    "unknown-value-type": (
        gguf_raw([gguf_string("k") + struct.pack("<I", 13) + bytes(8)]),
        "unknown value type 13",
    ),
    "unknown-array-type": (
        gguf_raw([gguf_string("k") + struct.pack("<IIQ", 9, 13, 0)]),
        "unknown type 13",
    ),
    "bool-of-2": (
        gguf_raw([gguf_string("flag") + struct.pack("<IB", raw.BOOL, 2)]),
        "where a bool",
    ),
    "alignment-0": (gguf_raw([gguf_pair("general.alignment", raw.U32, 0)]), "power of two"),
    "alignment-48": (gguf_raw([gguf_pair("general.alignment", raw.U32, 48)]), "power of two"),
    "alignment-u64": (gguf_raw([gguf_pair("general.alignment", raw.U64, 32)]), "power of two"),
    "alignment-string": (
        gguf_raw([gguf_pair("general.alignment", raw.STRING, "32")]),
        "power of two",
    ),
    "deep-arrays": (
        gguf_raw(
            [gguf_string("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5 + bytes(12)]
        ),
        "nests arrays",
    ),
    "unknown-tensor-type": (one_tensor(kind=4), "unknown type 4"),
    "future-tensor-type": (one_tensor(kind=4_000_000), "unknown type"),
    "five-dimensions": (one_tensor((1, 1, 1, 1, 1)), "5 dimensions"),
    "partial-block": (one_tensor((33,), Q4_0), "not a multiple"),
    "partial-block-in-rows": (one_tensor((128, 2), Q4_K), "not a multiple"),
    "scalar-of-blocks": (one_tensor((), Q4_0), "not a multiple"),
    "unaligned": (one_tensor(offset=8, data=bytes(64)), "not aligned to 32"),
    "name-too-long": (one_tensor(name="n" * 1025), "over the limit"),
    "duplicate-tensor": (
        gguf_raw((), [gguf_tensor("x", [8], F32, 0), gguf_tensor("x", [8], F32, 32)], bytes(64)),
        "'x' is there twice",
    ),
    "overlap": (
        gguf_raw((), [gguf_tensor("x", [16], F32, 0), gguf_tensor("y", [8], F32, 32)], bytes(64)),
        "'y' overlaps",
    ),
    "same-bytes": (
        gguf_raw((), [gguf_tensor("x", [8], F32, 0), gguf_tensor("y", [8], F32, 0)], bytes(64)),
        "overlaps",
    ),
    "cut-data": (one_tensor(data=bytes(31)), "past the end"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_files_are_refused_with_one_line(data, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        parse(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


# The flaws: a count or length that wraps around when it is multiplied or added to, in 64 bits, and
# then passes a comparison with the file's size.
OVERFLOWS = {
    "tensor-count-2**63": (gguf_raw(tensor_count=2**63), "claims .* tensors, over the limit"),
    "tensor-count-wraps": (gguf_raw(tensor_count=2**64 // 24 + 1), "tensors, over the limit"),
    "tensor-count-over-limit": (
        gguf_raw(tensor_count=250_001) + bytes(24 * 250_001),
        "tensors, over the limit",
    ),
    "pair-count-2**64-1": (gguf_raw(pair_count=2**64 - 1), "pairs, over the limit"),
    "key-length-2**64-1": (
        gguf_raw([struct.pack("<Q", 2**64 - 1) + bytes(20)]),
        "key of .* over the limit",
    ),
    "string-length-2**64-8": (
        gguf_raw([gguf_string("k") + struct.pack("<IQ", raw.STRING, 2**64 - 8) + bytes(20)]),
        "value of 'k' .* over the limit",
    ),
    "string-over-limit": (
        gguf_raw(
            [gguf_string("k") + struct.pack("<IQ", raw.STRING, 17 * 2**20)], data=bytes(18 * 2**20)
        ),
        "value of 'k' .* over the limit",
    ),
    "array-length-wraps": (
        gguf_raw([gguf_string("k") + struct.pack("<IIQ", 9, raw.U64, 2**61 + 1) + bytes(20)]),
        "more than fit",
    ),
    "array-of-strings-2**64-1": (
        gguf_raw([gguf_string("k") + struct.pack("<IIQ", 9, raw.STRING, 2**64 - 1) + bytes(20)]),
        "more than fit",
    ),
    "string-in-array-2**64-8": (
        gguf_raw(
            [
                gguf_string("k")
                + struct.pack("<IIQ", 9, raw.STRING, 65)
                + struct.pack("<Q", 2**64 - 8) * 65
            ]
        ),
        "are left",
    ),
    "elements-wrap-to-8": (one_tensor((2**32, 2**32, 8)), "shape that overflows"),
    "elements-wrap-to-0": (one_tensor((2**32, 2**32)), "shape that overflows"),
    "elements-2**63": (one_tensor((2**63,)), "shape that overflows"),
    "zero-hides-the-overflow": (one_tensor((2**32, 2**32, 0)), "shape that overflows"),
    "bytes-wrap-to-32": (one_tensor((2**62 + 8,)), "past the end"),
    "offset-2**64-32": (one_tensor(offset=2**64 - 32), "past the end"),
    "offset-plus-size-wraps-to-0": (one_tensor((2**60,), offset=2**64 - 2**62), "past the end"),
    "offset-past-the-end": (one_tensor(offset=2**20), "past the end"),
    "alignment-2**31": (
        gguf_raw(
            [gguf_pair("general.alignment", raw.U32, 2**31)],
            [gguf_tensor("x", [8], F32, 0)],
            bytes(32),
        ),
        "past the end",
    ),
}


@pytest.mark.parametrize(("data", "reason"), OVERFLOWS.values(), ids=OVERFLOWS.keys())
def test_attack_7_counts_and_sizes_that_overflow(data, reason):
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=reason):
            parse(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000  # nothing was allocated from a claim


def test_attack_7_sizes_that_sum_past_64_bits():
    """Tensors that fit one by one, and whose sizes wrap around when they are added up."""
    tensors = [gguf_tensor(f"t{n}", [2**61 - 8], F32, n * 2**32) for n in range(3)]
    with pytest.raises(FormatError, match="past the end"):
        parse(gguf_raw((), tensors, bytes(64)))


def test_too_many_strings_to_walk_are_refused_in_bounded_time():
    count = MAX_WALKED_STRINGS // 4
    strings = gguf_string("k%d") + struct.pack("<IIQ", 9, raw.STRING, count) + bytes(8 * count)
    data = gguf_raw([strings.replace(b"%d", b"%02d" % n) for n in range(5)])
    started = time.perf_counter()
    with pytest.raises(FormatError, match="over 4000000 strings"):
        parse(data)
    assert time.perf_counter() - started < 20  # under 1 s on an idle core


def test_too_many_arrays_within_arrays_are_refused():
    pair = gguf_string("k") + struct.pack("<IIQ", 9, 9, 100_001) + bytes(12 * 100_001)
    with pytest.raises(FormatError, match="over 100000 arrays"):
        parse(gguf_raw([pair]))


def test_100_000_tensors_take_bounded_time():
    tensors = [gguf_tensor(f"blk.{n}.w", [8], F32, 32 * n) for n in range(100_000)]
    data = gguf_raw((), tensors, bytes(3_200_000))
    started = time.perf_counter()
    assert len(parse(data).tensors) == 100_000
    assert time.perf_counter() - started < 10  # 0.5 s on an idle core


def test_only_the_header_and_a_window_are_read():
    data = gguf_file([("x", [1 << 20], F32, bytes(1 << 22))])
    asked = []

    def read(offset, length):
        asked.append((offset, length))
        return data[offset : offset + length]

    parse_gguf(read, len(data))
    assert asked == [(0, 8), (8, 1 << 20)]


def test_a_file_that_shrinks_while_it_is_read():
    data = gguf_file([("x", [8], F32, bytes(32))])
    with pytest.raises(FormatError, match="ends at byte 40"):
        parse_gguf(bytes_reader(data[:40]), len(data))


described = st.lists(
    st.tuples(
        st.text(st.characters(min_codepoint=33, max_codepoint=0x17F), min_size=1, max_size=8),
        st.sampled_from(["float32", "float16", "int8", "int64", "float64"]),
        st.lists(st.integers(1, 5), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda each: each[0],
)


@settings(max_examples=40, deadline=None)
@given(described)
def test_any_valid_file_agrees_with_the_gguf_package(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"

    def build(writer):
        for name, dtype, shape in tensors:
            writer.add_tensor(name, np.zeros(shape, dtype))

    data = write(path, build)
    reader = gguf.GGUFReader(path)
    assert [(t.name, t.shape, t.offset, t.length) for t in parse(data).tensors] == [
        (t.name, tuple(int(n) for n in reversed(t.shape)), t.data_offset, t.n_bytes)
        for t in reader.tensors
    ]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_give_a_value_or_the_error(data, with_head):
    if with_head:
        data = b"GGUF\x03\0\0\0" + data
    try:
        parse(data)
    except FormatError:
        return


SEED = gguf_file(
    [("x", [32], Q4_0, bytes(18)), ("y", [4, 2], F16, bytes(16))],
    [
        gguf_pair("general.architecture", raw.STRING, "llama"),
        gguf_pair("a", raw.ARRAY, (raw.STRING, ["p", "q"])),
        gguf_pair("n", raw.ARRAY, (raw.ARRAY, [(raw.U16, [1])])),
    ],
)


@settings(max_examples=500, deadline=None)
@given(
    st.integers(0, len(SEED) - 9), st.sampled_from([1, 2, 4, 8]), st.binary(min_size=8, max_size=8)
)
def test_a_damaged_file_gives_consistent_values_or_the_error(at, width, value):
    data = SEED[:at] + value[:width] + SEED[at + width :]
    try:
        parsed = parse(data)
    except FormatError:
        return
    reached = parsed.header_length
    for tensor in parsed.tensors:
        assert reached <= tensor.offset
        reached = tensor.offset + tensor.length
    assert reached <= len(data)
