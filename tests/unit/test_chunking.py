import time
from itertools import accumulate

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.chunking import CHUNK_BYTES, SMALL_TENSOR_BYTES, chunk_lengths
from modelpack.tensors import Tensor, TensorFile, bytes_reader, probe
from tests.support.tensorfiles import STRING, gguf_file, gguf_pair, safetensors_file

C, S = CHUNK_BYTES, SMALL_TENSOR_BYTES


def tensor_file(*extents, header=100, gap=0, tail=0):
    """Describe a file of ``(name, length)``, with ``gap`` bytes of padding after each tensor."""
    at = header
    tensors = []
    for name, length in extents:
        tensors.append(Tensor(name=name, dtype="U8", shape=(length,), offset=at, length=length))
        at += length + gap
    return TensorFile(
        format="gguf" if gap else "safetensors",
        size=at + tail,
        header_length=header,
        tensors=tuple(tensors),
    )


def lengths(file):
    return chunk_lengths(file.size, file)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, []),
        (1, [1]),
        (C - 1, [C - 1]),
        (C, [C]),
        (C + 1, [C, 1]),
        (3 * C + 5, [C, C, C, 5]),
    ],
)
def test_other_files_are_cut_from_their_start(size, expected):
    assert chunk_lengths(size, None) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (tensor_file(), [100]),
        (tensor_file(header=C + 7), [C, 7]),
        (tensor_file(("w", 1)), [100, 1]),
        (tensor_file(("w", S)), [100, S]),
        (tensor_file(("w", C)), [100, C]),
        (tensor_file(("w", 2 * C + 3)), [100, C, C, 3]),
        (tensor_file(("w", 5), header=2 * C + 1), [C, C, 1, 5]),
        # Large tensors share no chunk, not even their ends.
        (tensor_file(("v", C + 1), ("w", C + 2)), [100, C, 1, C, 2]),
        (tensor_file(("v", S), ("w", S)), [100, S, S]),
        # Small neighbours of one block share one.
        (tensor_file(("a.1.x", 10), ("a.1.y", 20), ("a.1.z", 30)), [100, 60]),
        (tensor_file(("x", 10), ("y", 20)), [100, 30]),
        (tensor_file(("conv1.x", 10), ("conv2.x", 20)), [100, 30]),
        (tensor_file(("a.1.x", S - 1), ("a.1.y", S - 1)), [100, 2 * S - 2]),
        # Packs end where the block changes,
        (tensor_file(("a.1.x", 10), ("a.2.x", 20), ("a.2.y", 30)), [100, 10, 50]),
        (tensor_file(("a.1.x", 10), ("b.1.x", 20)), [100, 30]),
        (tensor_file(("a.1.2.x", 10), ("a.1.3.x", 20)), [100, 30]),
        (tensor_file(("a.1.x", 10), ("a.01.x", 20)), [100, 10, 20]),
        (tensor_file(("a.1.x", 10), ("norm", 20)), [100, 10, 20]),
        (tensor_file(("a.x", 10), ("a.²", 20)), [100, 30]),
        # at a large tensor,
        (tensor_file(("x", 10), ("w", S), ("y", 20)), [100, 10, S, 20]),
        # and before they would be longer than a chunk.
        (tensor_file(*[(f"x{n}", S - 1) for n in range(17)]), [100, 16 * (S - 1), S - 1]),
        (tensor_file(*[(f"x{n}", C // 32) for n in range(33)]), [100, C, C // 32]),
        # Tensors without bytes do not count, and do not end a pack.
        (tensor_file(("a.1.x", 10), ("a.2.none", 0), ("a.1.y", 20)), [100, 30]),
        (tensor_file(("none", 0)), [100]),
        # Padding belongs to the tensor before it; so does whatever follows the last.
        (tensor_file(("x", 10), ("w", S), gap=6), [100, 16, S + 6]),
        (tensor_file(("w", C), gap=6), [100, C, 6]),
        (tensor_file(("x", 10), ("y", S - 8), gap=8), [100, 18, S]),
        (tensor_file(("x", 10), tail=C), [100, C, 10]),
    ],
)
def test_the_rule(file, expected):
    assert lengths(file) == expected


def test_padding_before_the_first_tensor_belongs_to_the_header():
    file = TensorFile(
        format="gguf",
        size=200,
        header_length=100,
        tensors=(Tensor(name="x", dtype="U8", shape=(40,), offset=160, length=40),),
    )
    assert lengths(file) == [160, 40]


def test_a_header_of_another_file_is_refused():
    with pytest.raises(ValueError, match="describes 101 bytes"):
        chunk_lengths(100, tensor_file(("x", 1)))


def test_a_terabyte_of_tensors_takes_under_two_seconds():
    file = tensor_file(*[(f"layers.{n // 60}.w{n}", 58_000_001) for n in range(17_242)])
    started = time.perf_counter()
    result = lengths(file)
    assert time.perf_counter() - started < 2  # 0.06 s on an idle core
    assert file.size > 10**12
    assert len(result) == 1 + 17_242 * 14


def test_a_quarter_of_a_million_small_tensors():
    file = tensor_file(*[(f"layers.{n // 100}.w{n}", 4) for n in range(250_000)])
    started = time.perf_counter()
    result = lengths(file)
    assert time.perf_counter() - started < 4  # 0.3 s on an idle core
    assert result == [100] + [400] * 2_500


sizes = st.one_of(
    st.integers(0, 64),
    st.sampled_from([S - 1, S, S + 1, C - 1, C, C + 1, 3 * C + 2]),
    st.integers(0, 2 * C),
)
names = st.builds("{}.{}.{}".format, st.sampled_from("ab"), st.sampled_from("0123x"), st.integers())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(names, sizes), max_size=30),
    st.integers(1, 2 * C),
    st.sampled_from([0, 1, 31]),
    st.integers(0, 40),
)
def test_chunks_cover_the_file_and_respect_its_tensors(extents, header, gap, tail):
    file = tensor_file(*extents, header=header, gap=gap, tail=tail)
    result = lengths(file)
    assert sum(result) == file.size
    assert all(1 <= length <= C for length in result)
    starts = set(accumulate([0, *result]))
    for tensor, after in zip(file.tensors, (*file.tensors, None)[1:], strict=True):
        end = after.offset if after else file.size
        extent = end - tensor.offset
        if extent >= S:
            assert {*range(tensor.offset, end, C), end} <= starts
        assert not any(
            tensor.offset < start < end and (extent < S or (start - tensor.offset) % C)
            for start in starts
        )


# From here on: what the rule is for. Models of real bytes, and exactly which chunks change.


def random_bytes(seed, length):
    return np.random.default_rng(seed).bytes(length)


def a_model(layers=6):
    """Names and bytes of a small language model: large, medium and small tensors."""
    tensors = {
        "model.embed_tokens.weight": random_bytes(1, 2 * C + 1000),
        "model.norm.weight": random_bytes(2, 2048),
        "lm_head.weight": random_bytes(3, C + 8),
    }
    for n in range(layers):
        for m, (name, length) in enumerate(
            [
                ("input_layernorm.weight", 2048),
                ("mlp.down_proj.weight", 600_000),
                ("mlp.down_proj.weight_scale", 512),
                ("mlp.up_proj.bias", 4096),
                ("mlp.up_proj.weight", S + 12),
                ("post_attention_layernorm.weight", 2048),
                ("self_attn.q_proj.bias", 1024),
            ]
        ):
            tensors[f"model.layers.{n}.{name}"] = random_bytes(1000 + 10 * n + m, length)
    return tensors


def write(tensors, metadata=None):
    """Write a safetensors file as the library does: in the order of the names."""
    return safetensors_file(
        [(name, "U8", (len(data),), data) for name, data in sorted(tensors.items())], metadata
    )


def chunks(data):
    """Return the hashes of a file's chunks, in order; the header's are first."""
    view = memoryview(data)
    ends = list(accumulate(chunk_lengths(len(data), probe("", bytes_reader(data), len(data)))))
    return [
        blake3(view[start:end]).hexdigest() for start, end in zip([0, *ends], ends, strict=False)
    ]


def hash_of(*parts):
    return blake3(b"".join(parts)).hexdigest()


MODEL = a_model()
BASE = chunks(write(MODEL))


def changed(tensors, metadata=None):
    """Return the chunks that the changed file has and the base lacks, without the header's."""
    found = chunks(write(tensors, metadata))
    assert found[0] != BASE[0]  # the header itself always differs
    return set(found[1:]) - set(BASE[1:]), set(BASE[1:]) - set(found[1:])


def test_the_base_model_has_the_chunks_expected():
    embed = MODEL["model.embed_tokens.weight"]
    layer = {name: MODEL[f"model.layers.0.{name}"] for name in (
        "input_layernorm.weight", "mlp.down_proj.weight", "mlp.down_proj.weight_scale",
        "mlp.up_proj.bias", "mlp.up_proj.weight", "post_attention_layernorm.weight",
        "self_attn.q_proj.bias",
    )}  # fmt: skip
    assert BASE[1:10] == [
        hash_of(MODEL["lm_head.weight"][:C]),
        hash_of(MODEL["lm_head.weight"][C:]),
        hash_of(embed[:C]),
        hash_of(embed[C : 2 * C]),
        hash_of(embed[2 * C :]),
        hash_of(layer["input_layernorm.weight"]),
        hash_of(layer["mlp.down_proj.weight"]),
        hash_of(layer["mlp.down_proj.weight_scale"], layer["mlp.up_proj.bias"]),
        hash_of(layer["mlp.up_proj.weight"]),
    ]
    assert len(set(BASE)) == len(BASE)


def test_a_grown_header_changes_the_header_alone():
    assert changed(MODEL, {"note": "x" * 10_000}) == (set(), set())


def test_a_header_grown_past_one_chunk_changes_the_header_alone():
    data = write(MODEL, {"note": "x" * (C + 5)})
    assert chunks(data)[2:] == BASE[1:]


def renamed(old, new):
    model = dict(MODEL)
    model[new] = model.pop(old)
    return model


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.layers.3.mlp.down_proj.weight", "model.layers.3.mlp.down_proj.w"),
        ("model.layers.3.input_layernorm.weight", "model.layers.3.input_layernorm.w"),
        ("model.layers.3.mlp.up_proj.bias", "model.layers.3.mlp.up_proj.b"),
        ("lm_head.weight", "model.output.weight"),
    ],
    ids=["large", "small", "packed", "large-first-to-last"],
)
def test_a_renamed_tensor_changes_the_header_alone(old, new):
    after = renamed(old, new)
    assert sorted(after) != sorted(MODEL)
    assert changed(after) == (set(), set())


def test_taking_away_what_stood_between_two_packs_makes_them_one():
    prefix = "model.layers.5."
    added, lost = changed(renamed(prefix + "mlp.down_proj.weight", "moved.to.the.end"))
    norm = MODEL[prefix + "input_layernorm.weight"]
    pack = MODEL[prefix + "mlp.down_proj.weight_scale"] + MODEL[prefix + "mlp.up_proj.bias"]
    assert lost == {hash_of(norm), hash_of(pack)}
    assert added == {hash_of(norm, pack)}


def test_a_packed_tensor_renamed_to_another_place_changes_the_packs_it_leaves_and_joins():
    bias = MODEL["model.layers.3.mlp.up_proj.bias"]
    scale = MODEL["model.layers.3.mlp.down_proj.weight_scale"]
    norm = MODEL["model.layers.3.input_layernorm.weight"]
    added, lost = changed(renamed("model.layers.3.mlp.up_proj.bias", "model.layers.3.a"))
    assert lost == {hash_of(scale, bias), hash_of(norm)}
    assert added == {hash_of(scale), hash_of(bias, norm)}


def test_a_changed_prefix_changes_the_header_alone():
    renamed = {f"language_model.{name}": data for name, data in MODEL.items()}
    assert changed(renamed) == (set(), set())


def test_one_changed_byte_of_a_large_tensor_changes_one_chunk():
    embed = bytearray(MODEL["model.embed_tokens.weight"])
    before = hash_of(embed[C : 2 * C])
    embed[C + 17] ^= 1
    # The header stays the same here, so compare whole lists.
    after = chunks(write(MODEL | {"model.embed_tokens.weight": bytes(embed)}))
    assert set(after) - set(BASE) == {hash_of(embed[C : 2 * C])}
    assert set(BASE) - set(after) == {before}


def test_a_changed_small_tensor_changes_its_pack_alone():
    name = "model.layers.2.mlp.up_proj.bias"
    neighbour = MODEL["model.layers.2.mlp.down_proj.weight_scale"]
    after = chunks(write(MODEL | {name: bytes(4096)}))
    assert set(after) - set(BASE) == {hash_of(neighbour, bytes(4096))}
    assert set(BASE) - set(after) == {hash_of(neighbour, MODEL[name])}


def test_an_added_layer_adds_its_own_chunks_alone():
    added, lost = changed(a_model(layers=7))
    prefix = "model.layers.6."
    new = {name.removeprefix(prefix): data for name, data in a_model(7).items() if prefix in name}
    assert lost == set()
    assert added == {
        hash_of(new["input_layernorm.weight"]),
        hash_of(new["mlp.down_proj.weight"]),
        hash_of(new["mlp.down_proj.weight_scale"], new["mlp.up_proj.bias"]),
        hash_of(new["mlp.up_proj.weight"]),
        hash_of(new["post_attention_layernorm.weight"], new["self_attn.q_proj.bias"]),
    }


def test_an_added_small_tensor_changes_the_pack_it_joins_alone():
    added, lost = changed(MODEL | {"model.layers.4.mlp.down_proj.zero": bytes(8)})
    scale = MODEL["model.layers.4.mlp.down_proj.weight_scale"]
    bias = MODEL["model.layers.4.mlp.up_proj.bias"]
    assert lost == {hash_of(scale, bias)}
    assert added == {hash_of(scale, bytes(8), bias)}


def test_a_removed_large_tensor_takes_its_chunks_alone():
    kept = {name: data for name, data in MODEL.items() if name != "lm_head.weight"}
    data = MODEL["lm_head.weight"]
    assert changed(kept) == (set(), {hash_of(data[:C]), hash_of(data[C:])})


def shards(count):
    """Cut the model into shards by layer, in the order of the layers, as savers do."""
    files = [{} for _ in range(count)]
    for name, data in MODEL.items():
        parts = name.split(".")
        layer = int(parts[2]) if parts[1] == "layers" else (0 if "embed" in name else 5)
        files[layer * count // 6][name] = data
    return files


def test_re_sharding_from_two_to_three_files_changes_the_headers_alone():
    two = [chunks(write(part)) for part in shards(2)]
    three = [chunks(write(part)) for part in shards(3)]
    assert {h for part in two for h in part[1:]} == {h for part in three for h in part[1:]}
    assert {h for part in two for h in part[1:]} == set(BASE[1:])
    assert {part[0] for part in two}.isdisjoint(part[0] for part in three)


def test_re_sharding_many_small_tensors_changes_the_headers_alone():
    """Nothing but small tensors, one after the other: only the block separates the packs."""
    model = {f"m.{n}.t{m:02}": random_bytes(100 * n + m, 700) for n in range(24) for m in range(50)}

    def cut(count):
        files = [{} for _ in range(count)]
        for name, data in model.items():
            files[int(name.split(".")[1]) * count // 24][name] = data
        return [chunks(write(part)) for part in files]

    two, three = cut(2), cut(3)
    assert {h for part in two for h in part[1:]} == {h for part in three for h in part[1:]}
    assert sum(len(part) - 1 for part in three) == 24


GGUF_MODEL = [
    ("token_embd.weight", random_bytes(1, C + 4000)),
    ("blk.0.attn_norm.weight", random_bytes(2, 2044)),
    ("blk.0.attn_q.weight", random_bytes(3, 600_004)),
    ("blk.1.attn_norm.weight", random_bytes(4, 2044)),
    ("output_norm.weight", random_bytes(5, 2044)),
]


def write_gguf(tensors, *pairs):
    return gguf_file([(name, (len(data) // 4,), 0, data) for name, data in tensors], pairs)


def padded(data):
    return data + bytes(-len(data) % 32)


def test_gguf_chunks_are_the_tensors_with_their_padding():
    assert chunks(write_gguf(GGUF_MODEL))[1:] == [
        hash_of(GGUF_MODEL[0][1][:C]),
        *(
            hash_of(padded(data))
            for data in (GGUF_MODEL[0][1][C:], *(d for _, d in GGUF_MODEL[1:]))
        ),
    ]


@pytest.mark.parametrize("length", [1, 30, 5000])
def test_a_grown_gguf_header_changes_the_header_alone(length):
    grown = write_gguf(GGUF_MODEL, gguf_pair("general.name", STRING, "x" * length))
    assert chunks(grown)[1:] == chunks(write_gguf(GGUF_MODEL))[1:]


def test_a_gguf_model_split_in_two_changes_the_headers_alone():
    parts = [chunks(write_gguf(GGUF_MODEL[:3])), chunks(write_gguf(GGUF_MODEL[3:]))]
    assert parts[0][1:] + parts[1][1:] == chunks(write_gguf(GGUF_MODEL))[1:]
