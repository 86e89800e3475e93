import collections
import os
import pickle
import pickletools
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.unsafe import pickles
from modelpack.unsafe.finding import BytesReader
from modelpack.unsafe.pickles import is_pickle, judge


def judged(data):
    return judge(BytesReader(data))


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


class EvilState:
    def __reduce__(self):
        return collections.OrderedDict, (), None, None, iter([("x", Evil())])


PLAIN = {
    "values": {"step": 3, "lr": 1e-3, "names": ["a", "b"], "pair": (1, None), "flag": True},
    "ordered": collections.OrderedDict(a=1, b=2),
    "sets": [{1, 2}, frozenset({3})],
    "counter": collections.Counter("aab"),
    "complex": 1 + 2j,
    "long": 2**200,
    "text": "é\n" * 100,
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_are_harmless(name, protocol):
    value = PLAIN[name]
    judgement = judged(pickle.dumps(value, protocol))
    assert judgement.unsafe == ()
    assert judgement.broken is None
    assert is_pickle(pickle.dumps(value, protocol)[:100], judgement)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_bytes_are_harmless_where_they_are_not_written_as_a_call(protocol):
    assert judged(pickle.dumps([b"raw", b"x" * 1000], protocol)).unsafe == ()


def test_a_state_dict_with_metadata_is_harmless():
    state = collections.OrderedDict(weight=1)
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    for protocol in (2, 4):
        assert judged(pickle.dumps(state, protocol)).unsafe == ()


def torch_storage(number):
    """What torch.save writes for one tensor (protocol 2)."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nBFloat16Storage\n"
        + f"X\x01\x00\x00\x00{number}".encode()
        + b"X\x03\x00\x00\x00cpuK\x10tQK\x00K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    )


TORCH = b"\x80\x02}(X\x01\x00\x00\x00w" + torch_storage(0) + b"u."


def test_torchs_tensors_are_harmless():
    judgement = judged(TORCH)
    assert judgement.unsafe == ()
    assert judgement.broken is None
    assert judgement.calls == 2


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [Evil(), {"a": [Evil()]}, EvilState()], ids=["top", "in", "item"])
def test_a_call_is_found_in_every_protocol(protocol, value):
    assert judged(pickle.dumps(value, protocol)).unsafe == ("names posix.system",)


def text(value):
    return b"\x8c" + bytes([len(value)]) + value


# Each of these would run os.system, or hides a name from a scanner that only looks at GLOBAL.
HIDDEN = {
    "inst": (b"(S'true'\nios\nsystem\n.", "names os.system"),
    "obj": (b"(cos\nsystem\nS'true'\no.", "names os.system"),
    "newobj": (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85\x81.", "names os.system"),
    "newobj-ex": (b"\x80\x04cos\nsystem\n)}\x92.", "names os.system"),
    "stack-global": (b"\x80\x04" + text(b"os") + text(b"system") + b"\x93.", "names os.system"),
    "stack-global-from-memo": (
        b"\x80\x04" + text(b"system") + b"\x940" + text(b"os") + b"h\x00\x93.",
        "names os.system",
    ),
    "stack-global-after-dup": (b"\x80\x04" + text(b"os") + b"2\x93.", "names os.os"),
    "stack-global-of-old-texts": (b"\x80\x02S'os'\nU\x06system\x93.", "names os.system"),
    "stack-global-of-a-result": (
        b"\x80\x04" + text(b"os") + b"ccollections\nOrderedDict\n)R\x93.",
        "names something by a text that is not constant",
    ),
    "dotted-name": (
        b"\x80\x04" + text(b"collections") + text(b"OrderedDict.__init__") + b"\x93.",
        "names collections.OrderedDict.__init__",
    ),
    "submodule": (b"ctorch.hub\nload\n.", "names torch.hub.load"),
    "extension": (b"\x80\x02\x82\x01.", "uses the extension registry, which names anything"),
    "call-of-a-storage-type": (b"ctorch\nFloatStorage\n)R.", "calls torch.FloatStorage"),
    "call-of-a-result": (
        b"ccollections\nOrderedDict\n)R)R.",
        "calls something other than a name",
    ),
    "build-on-a-name": (
        b"ctorch._utils\n_rebuild_tensor_v2\n}b.",
        "sets attributes of something other than a plain container",
    ),
    "build-on-a-tensor": (
        b"ctorch._utils\n_rebuild_tensor_v2\n)R}b.",
        "sets attributes of a torch._utils._rebuild_tensor_v2",
    ),
    "bytes-by-codec": (pickle.dumps(b"x", 2), "names _codecs.encode"),
    "non-ascii-module": (
        b"\x80\x04" + text("\u043es".encode()) + text(b"system") + b"\x93.",
        "names",
    ),
}


@pytest.mark.parametrize(("data", "reason"), HIDDEN.values(), ids=HIDDEN)
def test_hidden_names(data, reason):
    assert any(reason in found for found in judged(data).unsafe)


def test_what_ran_before_a_broken_end_is_judged():
    # Loaders run a stream as they read it; breaking it later only fools scanners.
    judgement = judged(pickle.dumps(Evil(), 4)[:-1] + b"\xff\xff")
    assert judgement.unsafe == ("names posix.system",)
    assert judgement.broken is not None


def test_a_second_pickle_is_judged_too():
    assert judged(pickle.dumps(1) + pickle.dumps(Evil())).unsafe == ("names posix.system",)


def legacy_torch(payload=TORCH, tail=bytes(range(256))):
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    info = pickle.dumps({"little_endian": True}, 2)
    return magic + pickle.dumps(1001, 2) + info + payload + pickle.dumps(["0"], 2) + tail


def test_torchs_old_format_ends_in_raw_tensors():
    assert judged(legacy_torch()).broken is None
    assert judged(legacy_torch()).unsafe == ()
    assert judged(legacy_torch(pickle.dumps(Evil(), 2))).unsafe == ("names posix.system",)
    # Only after the magic number; otherwise nobody knows who reads the rest.
    assert judged(pickle.dumps(1, 2) * 5 + b"\xff").broken is not None


BROKEN = {
    "empty": b"",
    "cut-off": pickle.dumps([1, 2, 3], 4)[:-2],
    "unknown-opcode": b"\x80\x04\xff.",
    "empty-stack": b"\x80\x040.",
    "stop-on-nothing": b".",
    "stop-on-a-mark": b"(.",
    "reduce-on-nothing": b"R.",
    "no-group": b"\x80\x02t.",
    "memo-of-nothing": b"\x80\x02h\x05.",
    "object-of-nothing": b"(o.",
    "trailing-bytes": pickle.dumps(1) + b"\0\0",
    "huge-argument": b"\x80\x04\x8e" + struct.pack("<Q", 2**62),
    "argument-past-the-end": b"\x80\x04B" + struct.pack("<I", 1000) + b"x",
    "negative-length": b"\x80\x02\x8b" + struct.pack("<i", -5),
    "endless-line": b"I" + b"1" * 100_000,
    "not-a-number": b"Ix\n.",
    "name-of-no-text": b"c\xff\nx\n.",
    "no-place-in-the-memo": b"Npx\n.",
    "text-without-quotes": b"Sx\n.",
    "too-many-pickles": pickle.dumps(None, 2) * 100,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_streams(data):
    judgement = judged(data)
    assert judgement.broken is not None
    assert judgement.unsafe == ()


def test_work_is_bounded(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_OPCODES", 1000)
    judgement = judged(b"\x80\x02" + b"N0" * 5000 + b"N.")
    assert "more than 1000 opcodes" in judgement.broken
    start = time.monotonic()
    assert judged(b"\x80\x02" + b"(" * 400_000).broken
    assert time.monotonic() - start < 5


def test_a_reader_is_read_in_bounded_pieces():
    asked = []

    class Watched(BytesReader):
        def read(self, offset, length, /):
            asked.append(length)
            return super().read(offset, length)

    judge(Watched(b"not a pickle" * 100_000))
    assert sum(asked) <= 64 * 1024
    asked.clear()
    judge(Watched(pickle.dumps(list(range(100_000)))))
    assert max(asked) <= 512 * 1024


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"the quick brown fox",
        b"cat\nfoo\nbar\n",
        b"[PAD]\n[UNK]\n",
        b"(see LICENSE)\n",
        b"I am a text\n",
        b"# Llama\n\nN.B. this is text.\n",
        b"GGUF\x03\x00\x00\x00" + struct.pack("<QQ", 46, 3),
        struct.pack("<Q", 0x2E4E) + b"{" + b" " * 0x2E4D,
        b"\x00" * 100,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_other_files_are_no_pickles(data):
    assert not is_pickle(data[:4096], judged(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"\x80\x04" + tail))
def test_any_bytes_are_judged(data):
    judgement = judged(data)
    assert judgement.opcodes <= len(data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.just(Evil())
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.integers(0, 5), st.booleans())
def test_a_call_anywhere_is_found_and_nothing_else_is(value, protocol, optimize):
    data = pickle.dumps(value, protocol)
    if optimize:
        data = pickletools.optimize(data)
    judgement = judged(data)
    assert judgement.broken is None
    assert bool(judgement.unsafe) == (b"posix" in data)
