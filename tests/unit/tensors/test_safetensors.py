import json
import struct
import time
import tracemalloc

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from modelpack.errors import FormatError
from modelpack.tensors import MAX_TENSORS, bytes_reader, parse_safetensors
from modelpack.tensors.dtypes import SAFETENSORS_BITS
from modelpack.tensors.safetensors import MAX_METADATA_ENTRIES
from tests.support.tensorfiles import safetensors_file, safetensors_raw


def parse(data):
    return parse_safetensors(bytes_reader(data), len(data))


def entry(dtype="U8", shape=(1,), offsets=(0, 1)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def oracle(data):
    """What the reference implementation reads: name -> (dtype, shape, bytes)."""
    return {
        name: (found["dtype"], tuple(found["shape"]), bytes(found["data"]))
        for name, found in safetensors.deserialize(data)
    }


def ours(data):
    return {
        each.name: (each.dtype, each.shape, data[each.offset : each.offset + each.length])
        for each in parse(data).tensors
    }


def test_values_of_a_file_written_by_the_reference_library():
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    data = save({"b.weight": weight, "a.bias": np.zeros(3, np.float16)}, {"format": "np"})

    parsed = parse(data)

    header = int.from_bytes(data[:8], "little")
    assert parsed.format == "safetensors"
    assert parsed.size == len(data)
    assert parsed.header_length == 8 + header
    assert parsed.metadata == {"format": "np"}
    assert [(t.name, t.dtype, t.shape, t.length) for t in parsed.tensors] == [
        ("b.weight", "F32", (3, 4), 48),
        ("a.bias", "F16", (3,), 6),
    ]
    first = parsed.tensors[0]
    assert first.offset == parsed.header_length
    assert data[first.offset : first.offset + first.length] == weight.tobytes()
    assert parsed.parameters == 15
    assert parsed.parameters_by_dtype == {"F16": 3, "F32": 12}


@pytest.mark.parametrize("dtype", sorted(SAFETENSORS_BITS))
def test_every_dtype_agrees_with_the_reference(dtype):
    length = 8 * SAFETENSORS_BITS[dtype] // 8
    data = safetensors_file([("x", dtype, (2, 4), bytes(length))])
    assert ours(data) == oracle(data) == {"x": (dtype, (2, 4), bytes(length))}


def test_all_dtypes_of_the_reference_are_known():
    """An unknown dtype makes the reference list those it knows."""
    with pytest.raises(safetensors.SafetensorError) as caught:
        safetensors.deserialize(safetensors_raw({"x": entry("NEW")}, b"x"))
    for known in SAFETENSORS_BITS:
        assert f"`{known}`" in str(caught.value)
    assert str(caught.value).split("expected one of", 1)[1].count("`") == 2 * len(SAFETENSORS_BITS)


GOOD = {
    "no-tensors": safetensors_raw({}),
    "only-metadata": safetensors_raw({"__metadata__": {"a": "b"}}),
    "empty-metadata": safetensors_raw({"__metadata__": {}}),
    "null-metadata": safetensors_raw(b'{"__metadata__":null}'),
    "metadata-last": safetensors_raw(
        b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{"k":"v"}}', b"x"
    ),
    "padded-header": safetensors_raw(b'{"x":' + json.dumps(entry()).encode() + b"}   ", b"x"),
    "spaces-everywhere": safetensors_raw(
        b'{ "x" : { "dtype" : "U8" ,\n"shape" : [ 1 , 1 ] , "data_offsets" : [ 0 , 1 ] } } ', b"x"
    ),
    "unusual-member-order": safetensors_raw(
        b'{"x":{"data_offsets":[0,2],"shape":[2],"dtype":"U8"}}', b"xy"
    ),
    "scalar": safetensors_raw({"x": entry("F32", (), (0, 4))}, b"abcd"),
    "no-elements": safetensors_raw({"x": entry("F32", (0, 3), (0, 0))}),
    "no-elements-beside-others": safetensors_raw(
        {"y": entry("U8", (2,), (0, 2)), "x": entry("F32", (0,), (2, 2))}, b"ab"
    ),
    "header-not-in-data-order": safetensors_raw(
        {"y": entry("U8", (2,), (1, 3)), "x": entry("U8", (1,), (0, 1))}, b"abc"
    ),
    "empty-name": safetensors_raw({"": entry()}, b"x"),
    "escaped-name": safetensors_raw(
        rb'{"a\"\u00e9\n":' + json.dumps(entry()).encode() + b"}", b"x"
    ),
    "non-ascii-name": safetensors_raw(
        '{"größe":'.encode() + json.dumps(entry()).encode() + b"}", b"x"
    ),
    "half-byte-type": safetensors_raw({"x": entry("F4", (2, 3), (0, 3))}, b"abc"),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_good_files_agree_with_the_reference(data):
    assert ours(data) == oracle(data)


def twice(name):
    one = json.dumps({name: entry()}).encode()[1:-1]
    return safetensors_raw(b"{" + one + b"," + one + b"}", b"x")


BAD = {
    "empty": (b"", "too short"),
    "seven-bytes": (b"1234567", "too short"),
    "no-header": (safetensors_raw(b""), "does not begin"),
    "header-over-limit": (safetensors_raw(b"{}", length=100_000_001), "over the limit"),
    "header-length-2**63": (safetensors_raw(b"{}", length=2**63), "over the limit"),
    "header-past-end": (safetensors_raw(b"{}", length=3), "longer than the file"),
    "leading-space": (safetensors_raw(b" {}"), "does not begin"),
    "array": (safetensors_raw(b"[]"), "does not begin"),
    "cut-json": (safetensors_raw(b'{"x":'), "not the JSON"),
    "trailing-comma": (safetensors_raw(b'{"__metadata__":{},}'), "not the JSON"),
    "trailing-nul": (safetensors_raw(b"{}\0"), "after its JSON"),
    "two-objects": (safetensors_raw(b"{}{}"), "after its JSON"),
    "bad-utf-8": (
        safetensors_raw(b'{"\xff":' + json.dumps(entry()).encode() + b"}", b"x"),
        "string",
    ),
    "lone-surrogate": (
        safetensors_raw(b'{"\\ud800":' + json.dumps(entry()).encode() + b"}", b"x"),
        "malformed string",
    ),
    "raw-control-character": (
        safetensors_raw(b'{"__metadata__":{"a":"\x01"}}'),
        "other than strings",
    ),
    "number-in-metadata": (safetensors_raw(b'{"__metadata__":{"a":1}}'), "other than strings"),
    "list-as-metadata": (safetensors_raw(b'{"__metadata__":[]}'), "not an object"),
    "duplicate-tensor": (twice("x"), "'x' twice"),
    "duplicate-metadata-key": (safetensors_raw(b'{"__metadata__":{"a":"","a":""}}'), "'a' twice"),
    "duplicate-metadata": (
        safetensors_raw(b'{"__metadata__":{},"__metadata__":{}}'),
        "'__metadata__' twice",
    ),
    "tensor-as-metadata": (safetensors_raw({"__metadata__": entry()}, b"x"), "other than strings"),
    "duplicate-through-escape": (
        safetensors_raw(
            b'{"x":'
            + json.dumps(entry()).encode()
            + b',"\\u0078":'
            + json.dumps(entry()).encode()
            + b"}",
            b"x",
        ),
        "'x' twice",
    ),
    "unknown-dtype": (safetensors_raw({"x": entry("C128")}, b"x"), "unknown dtype 'C128'"),
    "negative-dimension": (safetensors_raw({"x": entry(shape=(-1,))}, b"x"), "not readable"),
    "fractional-dimension": (safetensors_raw({"x": entry(shape=(1.0,))}, b"x"), "not readable"),
    "bool-dimension": (safetensors_raw({"x": entry(shape=(True,))}, b"x"), "wrong type"),
    "too-many-dimensions": (safetensors_raw({"x": entry(shape=(1,) * 65)}, b"x"), "65 dimensions"),
    "three-offsets": (safetensors_raw({"x": entry(offsets=(0, 1, 1))}, b"x"), "wrong type"),
    "reversed-offsets": (safetensors_raw({"x": entry(offsets=(1, 0))}, b"x"), "impossible"),
    "offset-over-64-bits": (safetensors_raw({"x": entry(offsets=(0, 2**64))}, b"x"), "impossible"),
    "extra-member": (safetensors_raw({"x": entry() | {"more": 1}}, b"x"), "exactly"),
    "missing-member": (safetensors_raw({"x": {"dtype": "U8", "shape": [1]}}, b"x"), "exactly"),
    "nested-object": (safetensors_raw({"x": {"dtype": {"dtype": "U8"}}}, b"x"), "not the JSON"),
    "shape-too-small": (
        safetensors_raw({"x": entry("F32", (1,), (0, 8))}, bytes(8)),
        "need 4 bytes",
    ),
    "partial-byte": (safetensors_raw({"x": entry("F4", (3,), (0, 2))}, bytes(2)), "whole bytes"),
    "appended-bytes": (safetensors_raw({"x": entry()}, b"xy"), "something appended"),
    "cut-data": (safetensors_raw({"x": entry("U8", (2,), (0, 2))}, b"x"), "cut short"),
    "no-elements-inside-another": (
        safetensors_raw({"y": entry("U8", (2,), (0, 2)), "x": entry("F32", (0,), (1, 1))}, b"ab"),
        "overlaps",
    ),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_files_are_refused_with_one_line(data, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        parse(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


# Where the reference is more lenient than the format's own text, or than a file to be trusted may be.
STRICTER_THAN_THE_REFERENCE = {
    "leading-space",
    "duplicate-tensor",
    "duplicate-metadata-key",
    "duplicate-through-escape",
    "extra-member",
    "too-many-dimensions",
}


@pytest.mark.parametrize("case", sorted(BAD.keys()))
def test_the_reference_refuses_the_same_files(case):
    if case in STRICTER_THAN_THE_REFERENCE:
        safetensors.deserialize(BAD[case][0])
    else:
        with pytest.raises(safetensors.SafetensorError):
            safetensors.deserialize(BAD[case][0])


OVERLAPS = {
    "same-bytes": ((0, 4), (0, 4), 4),
    "partly": ((0, 4), (2, 6), 6),
    "inside": ((0, 8), (2, 6), 8),
    "gap": ((0, 4), (6, 10), 10),
    "gap-at-the-start": ((2, 6), (6, 10), 10),
    "past-the-end": ((0, 4), (4, 2**40), 8),
}


@pytest.mark.parametrize(("first", "second", "length"), OVERLAPS.values(), ids=OVERLAPS.keys())
def test_attack_8_overlaps_gaps_and_offsets_outside_the_file(first, second, length):
    data = safetensors_raw(
        {
            "x": entry("U8", (first[1] - first[0],), first),
            "y": entry("U8", (second[1] - second[0],), second),
        },
        bytes(length),
    )
    with pytest.raises(FormatError, match=r"overlaps|leaves a gap|cut short"):
        parse(data)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.deserialize(data)


@pytest.mark.parametrize(
    "shape", [(2**63 - 1, 3), (2**63 - 1, 3, 0), (2**32, 2**32), (2**62, 4)], ids=str
)
def test_attack_8_shapes_that_overflow_64_bits(shape):
    with pytest.raises(FormatError, match="overflows"):
        parse(safetensors_raw({"x": entry("U8", shape, (0, 0))}))


def many_tensors(count):
    return safetensors_file([(f"layers.{i}.w", "U8", (1,), b"x") for i in range(count)])


def test_attack_8_100_000_entries_take_bounded_time():
    data = many_tensors(100_000)
    started = time.perf_counter()
    parsed = parse(data)
    took = time.perf_counter() - started
    assert len(parsed.tensors) == 100_000
    assert took < 10  # 0.7 s on an idle core; the bound is for a loaded machine


def test_too_many_tensors_are_refused():
    one = b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(one % i for i in range(MAX_TENSORS + 1)) + b"}"
    with pytest.raises(FormatError, match="more than 250000 tensors"):
        parse(safetensors_raw(header))


def test_too_much_metadata_is_refused():
    metadata = {str(i): "" for i in range(MAX_METADATA_ENTRIES + 1)}
    with pytest.raises(FormatError, match="entries"):
        parse(safetensors_raw({"__metadata__": metadata}))


FLOODS = {
    "lists": b'{"x":{"shape":[' + b"[]," * 1_000_000,
    "objects": b'{"x":' + b'{"a":' * 500_000,
    "depth": b'{"x":{"shape":' + b"[" * 3_000_000,
    "escapes": b'{"' + b"\\n" * 1_500_000,
    "quotes": b'{"__metadata__":{"' + b'\\"' * 1_500_000,
    "spaces": b'{"x":{"dtype":"U8"' + b" " * 3_000_000,
    "ones": b'{"x":{"dtype":"U8","shape":[' + b"1," * 1_500_000,
    "closed-shape": b'{"x":{"dtype":"U8","shape":['
    + b"1," * 1_500_000
    + b'1],"data_offsets":[0,1]}}',
    "digits": b'{"x":{"dtype":"U8","shape":[' + b"1" * 3_000_000,
}


@pytest.mark.parametrize("header", FLOODS.values(), ids=FLOODS.keys())
def test_hostile_json_takes_little_time_and_memory(header):
    data = safetensors_raw(header)
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(FormatError):
            parse(data)
        took = time.perf_counter() - started
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < 3
    assert peak < 5 * len(data)


def test_a_huge_claimed_header_is_not_read():
    asked = []

    def read(offset, length):
        asked.append(length)
        return struct.pack("<Q", 99_999_999)[offset : offset + length]

    with pytest.raises(FormatError):
        parse_safetensors(read, 5_000)
    assert asked == [8]


def test_nothing_but_the_header_is_read():
    data = many_tensors(3)
    header = 8 + int.from_bytes(data[:8], "little")

    def read(offset, length):
        assert offset + length <= header
        return data[offset : offset + length]

    assert len(parse_safetensors(read, len(data)).tensors) == 3


def test_a_file_that_shrinks_while_it_is_read():
    data = many_tensors(3)
    with pytest.raises(FormatError, match="ends after"):
        parse_safetensors(bytes_reader(data[:20]), len(data))


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda name: name != "__metadata__"
)
tensors = st.lists(
    st.tuples(
        names,
        st.sampled_from(["U8", "I16", "F32", "F64", "F4"]),
        st.lists(st.integers(0, 4), max_size=4),
    ),
    max_size=6,
    unique_by=lambda each: each[0],
)


def build(described, metadata):
    rows = []
    for name, dtype, shape in described:
        elements = int(np.prod(shape, dtype=object)) if shape else 1
        whole = "U8" if dtype == "F4" and elements % 2 else dtype
        rows.append((name, whole, shape, bytes(elements * SAFETENSORS_BITS[whole] // 8)))
    return safetensors_file(rows, metadata)


@settings(max_examples=100, deadline=None)
@given(tensors, st.dictionaries(names, st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_valid_file_agrees_with_the_reference(described, metadata):
    data = build(described, metadata)
    parsed = parse(data)
    assert parsed.metadata == metadata
    assert ours(data) == oracle(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_value_or_the_error(data):
    try:
        parse(data)
    except FormatError:
        return


@settings(max_examples=400, deadline=None)
@given(
    tensors,
    st.integers(0, 400),
    st.sampled_from([b"", b"0", b"1", b'"', b"[", b"{", b",", b"\\", b" ", b"-", b"\xff", b"F4"]),
    st.integers(0, 3),
)
def test_whatever_passes_here_passes_the_reference(described, at, inserted, removed):
    """Damage a header somewhere: what is still accepted must mean the same to the reference."""
    data = build(described, {"k": "v"})
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length]
    at %= length + 1
    damaged = safetensors_raw(header[:at] + inserted + header[at + removed :], data[8 + length :])
    try:
        result = ours(damaged)
    except FormatError:
        return
    assert result == oracle(damaged)
