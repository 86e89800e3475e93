"""The judgement against the real unpicklers: what they look up, it has named."""

import contextlib
import io
import pickle
import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpack.unsafe.finding import BytesReader
from modelpack.unsafe.pickles import _CALLED, _MAX_REASONS, _NAMED, judge

ALLOWED = {f"{module}.{name}" for module, name in _NAMED | _CALLED}


def looked_up(data, unpickler, **options):
    """Return every name that an unpickler asks for; each call gives something harmless."""
    found = set()

    class Recording(unpickler):
        def find_class(self, module, name):
            found.add(f"{module}.{name}")
            return lambda *_: []

        def persistent_load(self, _):
            return []

    # Whatever the stream is, it must end in an error of the unpickler's or in a value.
    with contextlib.suppress(Exception):
        Recording(io.BytesIO(data), **options).load()
    return found


def short(text):
    return b"\x8c" + bytes([len(text)]) + text


def frame(length):
    return b"\x95" + struct.pack("<Q", length)


PIECES = st.integers(0, 40).map(frame) | st.sampled_from(
    [
        *(
            b"N",
            b"0",
            b"2",
            b"(",
            b"1",
            b"t",
            b"l",
            b"d",
            b")",
            b"]",
            b"}",
            b"\x8f",
            b"\x85",
            b"\x94",
        ),
        *(b"R", b"b", b"o", b"\x81", b"\x92", b"\x93", b"s", b"u", b"a", b"e", b"Q", b"\x91", b"."),
        *(b"cos\nsystem\n", b"ios\nsystem\n", b"ccollections\nOrderedDict\n", b"Pid\n"),
        *(short(b"os"), short(b"system"), short(b"collections"), short(b"OrderedDict")),
        *(
            b"p0\n",
            b"g0\n",
            b"q\x00",
            b"h\x00",
            b"p1\0x\n",
            b"g1\0y\n",
            b"h\x01",
            b"g-1\n",
            b"p 1\n",
        ),
        *(b"I0x1\n", b"I 7\n", b"I1\0 x\n", b"I01\n", b"L1L\n", b"L0x1L\n", b"F1e5\n", b"Finf\n"),
        *(
            b"S'os'\n",
            b'S"system"\n',
            b"S'\\x6fs'\n",
            b"S'a' \n",
            b"Vos\n",
            b"V\\u006fs\n",
            b"S'\xff'\n",
        ),
        *(
            b"\x80\x02",
            b"\x80\x04",
            b"\x97",
            b"\x98",
        ),
        *(
            b"X\x02\0\0\0os",
            b"T\x02\0\0\0os",
            b"U\x06system",
            b"C\x02os",
            b"\x8a\x01\x05",
            b"J\0\0\0\0",
        ),
        *(b"G" + struct.pack(">d", 1.5), b"K\x01", b"M\x01\x00", b"\x88", b"\x82\x01"),
    ]
)


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=25).map(b"".join))
@example(b"I1\0 x\n0cos\nsystem\n.")
@example(frame(4) + b"ccollections\nOrderedDict\n.")
@example(frame(10) + frame(20) + b"Ncos\nsystem\n" + b"N" * 20)
@example(b"Np1\0x\n0cos\nsystem\nq\x02h\x01R.")
def test_no_unpickler_looks_up_a_name_that_is_not_named(data):
    judgement = judge(BytesReader(data))
    if len(judgement.unsafe) >= _MAX_REASONS:
        return
    named = {reason.removeprefix("names ") for reason in judgement.unsafe}
    uncertain = any("not constant" in one or "a frame" in one for one in judgement.unsafe)
    for unpickler in (pickle.Unpickler, pickle._Unpickler):
        for encoding in ("ASCII", "latin-1", "bytes"):
            for name in looked_up(data, unpickler, encoding=encoding, fix_imports=False):
                assert name in ALLOWED or name in named or uncertain, (name, judgement)
