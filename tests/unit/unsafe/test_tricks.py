"""Files that a loader opens and a scanner could take for nothing.

Each is shown to be what it says: the loaders at hand run what is inside.
"""

import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from modelpack.unsafe.finding import BytesReader
from modelpack.unsafe.scan import scan

# Calls len, which stands for anything.
RUNS = b"cbuiltins\nlen\n(S'abc'\ntR."
CALL = "builtins.len"


def zipped(files, before=b"", after=b""):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return before + out.getvalue() + after


def danger(path, data):
    found = scan(path, BytesReader(data))
    return max(
        (one.danger for one in found), key=["note", "unscannable", "unsafe"].index, default=""
    )


# Opcodes that pickletools does not read, and the unpicklers do.
PRELUDES = {
    "hexadecimal": b"I0x1\n0",
    "octal": b"I0o17\n0",
    "long-hexadecimal": b"L0x1L\n0",
    "number-before-a-nul": b"I1\0 and more\n0",
    "float-before-a-nul": b"F1.5\0x\n0",
    "padded-number": b"I" + b" " * 100_000 + b"1\n0",
    "long-line": b"S'" + b"a" * 100_000 + b"'\n0",
    "long-text": b"X" + struct.pack("<I", 17 << 20) + b"a" * (17 << 20) + b"0",
    "memo-before-a-nul": b"Np1\0x\n0g1\0y\n0",
}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.dat", "README.md"])
@pytest.mark.parametrize("prelude", PRELUDES.values(), ids=PRELUDES)
def test_what_only_unpicklers_read_hides_nothing(name, prelude):
    data = prelude + RUNS
    assert pickle.loads(data) == 3
    [finding] = scan(name, BytesReader(data))
    assert (finding.kind, finding.danger) == ("pickle", "unsafe")
    assert CALL in finding.detail


def test_a_text_in_an_encoding_of_the_loaders_choice():
    data = b"S'\xff'\n0" + RUNS
    assert pickle.loads(data, encoding="latin-1") == 3
    assert danger("m.bin", data) == "unsafe"


def test_a_frame_that_ends_within_an_opcode():
    """C's unpickler drops what is left of the frame: here "1" of "12", so it fetches another text."""
    texts = b"".join(
        b"\x8c" + bytes([len(text)]) + text + put
        for text, put in (
            (b"builtins", b"p2\n0"), (b"len", b"p3\n0"), (b"collections", b"p12\n0"),
            (b"OrderedDict", b"p13\n0"),
        )
    )  # fmt: skip
    two = b"\x95" + struct.pack("<Q", 2)
    data = b"\x80\x04" + texts + two + b"g12\n" + two + b"g13\n\x93."
    assert pickle.load(io.BytesIO(data)) is len
    assert danger("m.bin", data) == "unsafe"
    assert danger("m.dat", data[2:]) == "unsafe"


def test_more_opcodes_than_are_followed(monkeypatch):
    monkeypatch.setattr("modelpack.unsafe.pickles.MAX_OPCODES", 1000)
    data = b"N0" * 600 + RUNS
    assert pickle.loads(data) == 3
    assert danger("m.bin", data) == danger("notes.txt", data) == "unscannable"


def array_of(descr, *, body=RUNS):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (3,), }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


@pytest.mark.parametrize(
    "descr",
    ["'|O'", "'O'", "'object'", "'O8'", "'i4,O'", "'obj' 'ect'", "'\\x4f'", "[('a', 'O')]",
     "[('a', '<i4'), ('b', [('c', 'O')])]", "('O', (1,))", "[('a', 'O', (2,))]"],
)  # fmt: skip
def test_every_spelling_of_objects(descr):
    # numpy returns what the pickle makes, which is no array here.
    assert np.load(io.BytesIO(array_of(descr)), allow_pickle=True) == 3
    assert danger("a.npy", array_of(descr)) == "unsafe"


@pytest.mark.parametrize(
    "dtype",
    ["?", "<i8", ">f4", "<f2", "|u1", "<c16", "<U10", "|S3", "|V8", "<M8[ns]", "<m8[25us]",
     [("a", "<f4"), ("b", "<i2", (2, 2))], [("p", [("x", "<f4"), ("y", "<f8")])]],
    ids=str,
)  # fmt: skip
def test_arrays_without_objects_are_nothing(dtype):
    out = io.BytesIO()
    np.save(out, np.zeros(3, dtype))
    assert scan("a.npy", BytesReader(out.getvalue())) == ()


@pytest.mark.parametrize("header", [b"{", b"[]", b"{}", b"1" * 200, b"[" * 2000, b"\0"], ids=repr)
def test_a_header_that_is_none(header):
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    assert danger("a.npy", data) == "unscannable"


def test_torchs_names_for_tensors_mean_nothing_elsewhere():
    data = zipped({"data/0": array_of("'|O'", body=pickle.dumps([len], 4))})
    assert np.load(io.BytesIO(data), allow_pickle=True)["data/0"] == [len]
    assert danger("a.npz", data) == "unsafe"
    # Nor does any other name.
    assert danger("a.npz", zipped({"code.py": array_of("'|O'")})) == "unsafe"
    assert danger("a.zip", zipped({"code.py": b"import os"})) == ""
    # Not even beside a pickle that is called like torch's.
    harmless = pickle.dumps({}, 2)
    assert danger("a.npz", zipped({"data.pkl": harmless, "data/0": RUNS})) == "unsafe"


def torch(files):
    return zipped({"m/version": b"3\n", **files})


def with_byte(data, position, value):
    return data[:position] + bytes([value]) + data[position + 1 :]


def system(module, name):
    return f"c{module}\n{name}\n(S'x'\ntR.".encode()


SCANNERS = {
    "CVE-2025-1716 a package manager": ("m.pkl", system("pip", "main")),
    "CVE-2025-1889 another extension": ("m.dat", system("os", "system")),
    "CVE-2025-10155 torch's extension": ("m.bin", system("os", "system")),
    "CVE-2025-1944 two names": (
        "m.pt", torch({"m/data.pkl": RUNS}).replace(b"m/data.pkl", b"m/xxxx.pkl", 1),
    ),
    "CVE-2025-1945 encrypted": ("m.pt", with_byte(torch({"m/data.pkl": RUNS}), 6, 1)),
    "CVE-2025-10156 bad CRC": ("m.pt", torch({"m/data.pkl": RUNS}).replace(b"'abc'", b"'abd'")),
    "CVE-2025-10157 a submodule": ("m.pkl", system("asyncio.unix_events", "run")),
}  # fmt: skip


@pytest.mark.parametrize(("path", "data"), SCANNERS.values(), ids=SCANNERS)
def test_9_what_other_scanners_missed(path, data):
    assert danger(path, data) == "unsafe"


@pytest.mark.parametrize(
    "value",
    [
        {"class_name": "run", "module": "os", "config": {}},
        {"class_name": "function", "module": "keras.utils", "config": "get_file"},
        {
            "class_name": "function",
            "module": "keras.config",
            "config": "enable_unsafe_deserialization",
        },
    ],
    ids=["CVE-2025-1550 any module", "CVE-2025-8747 a utility", "CVE-2025-9906 a switch"],
)
def test_10_what_keras_itself_missed(value):
    assert danger("m.keras", zipped({"config.json": json.dumps(value)})) == "unsafe"


LAMBDA = json.dumps({"class_name": "Lambda", "module": "keras.layers", "config": {}})


def opens(data, name="config.json"):
    """Tell whether Python finds the file in the archive, as Keras asks."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return json.loads(archive.read(name))["class_name"] == "Lambda"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-8-sig"])
def test_a_configuration_in_another_encoding(encoding):
    data = zipped({"config.json": LAMBDA.encode(encoding)})
    assert opens(data)
    assert danger("m.keras", data) == "unsafe"


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"X", b""), (b"", b"Y"), (b"X", b"Y"), (b"X", b"Y" * 60_000)],
    ids=["before", "behind", "both", "far behind"],
)
def test_an_archive_among_other_bytes(before, after):
    data = zipped({"config.json": LAMBDA}, before, after)
    assert opens(data)
    assert danger("m.keras", data) == "unsafe"


def test_a_configuration_too_large_to_be_read():
    data = zipped({"config.json": " " * (17 << 20) + LAMBDA})
    assert opens(data)
    assert danger("m.keras", data) == "unscannable"
    large = b" " * (17 << 20) + b"{}"
    assert danger("config.json", large) == "unscannable"
    for name in ("tokenizer.json", "sub/tokenizer_2.json", "model.safetensors.index.json"):
        assert danger(name, large) == ""


def test_a_second_name_inside_an_archive():
    """Info-ZIP's field, by which some readers call an entry something else."""
    field = struct.pack("<HHBI", 0x7075, 5 + 11, 1, zlib.crc32(b"data/0")) + b"config.json"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("data/0")
        info.extra = field
        archive.writestr(info, LAMBDA)
    assert danger("m.keras", out.getvalue()) == "unsafe"


@pytest.mark.parametrize(
    "value",
    [
        {"class_name": "function", "module": "keras", "config": "utils.get_file"},
        {"class_name": "utils.get_file", "module": "keras", "config": {}},
        {"class_name": "TorchModuleWrapper", "module": "keras.layers", "config": {"module": "x"}},
        {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "/x"}},
        {"class_name": "JaxLayer", "module": "keras.layers", "config": {}},
        {"class_name": "StringLookup", "module": "keras.layers",
         "config": {"vocabulary": "/etc/passwd"}},
    ],
    ids=["function", "dotted class", "torch module", "saved model", "jax", "vocabulary"],
)  # fmt: skip
def test_10_layers_of_keras_that_load_something_else(value):
    assert danger("m.keras", zipped({"config.json": json.dumps(value)})) == "unsafe"


def oldest_tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("pickle")
        info.size = len(RUNS)
        archive.addfile(info, io.BytesIO(RUNS))
    data = bytearray(out.getvalue())
    data[257:265] = bytes(8)  # no "ustar"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def test_a_tar_without_a_mark():
    with tarfile.open(fileobj=io.BytesIO(oldest_tar())) as archive:
        assert archive.getnames() == ["pickle"]
    assert danger("pytorch_model.bin", oldest_tar()) == "unscannable"
    assert danger("m.bin", bytes(1024)) == ""


@pytest.mark.parametrize("offset", [512, 4096, 1 << 20, 2 << 20])
def test_hdf5_behind_a_user_block(offset):
    data = bytes(offset) + b"\x89HDF\r\n\x1a\n" + bytes(100)
    assert danger("weights.dat", data) == "unscannable"
    assert danger("m.h5", bytes(100)) == "unscannable"


def small_window(data):
    compressor = zlib.compressobj(wbits=9)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    "data",
    [
        lzma.compress(RUNS, format=lzma.FORMAT_ALONE),
        small_window(RUNS),
        gzip.compress(b"S'" + b"a" * 3000 + b"'\n0" + RUNS),
        gzip.compress(b"S'" + b"a" * 300_000 + b"'\n0" + RUNS),
        gzip.compress(gzip.compress(RUNS)),
        b"\x50\x2a\x4d\x18\x01\0\0\0x\x28\xb5\x2f\xfd" + bytes(20),
        b"\x1f\x9d\x90" + bytes(20),
    ],
    ids=["lzma", "zlib", "gzip", "gzip-far", "twice", "zstd-skippable", "compress"],
)
def test_compressed_pickles_by_any_name(data):
    for name in ("m.pkl.gz", "m.dat", "m.bin"):
        assert danger(name, data) == "unscannable"


@pytest.mark.parametrize(
    "text",
    ["In short\nVery long\n" * 9000, "the of and\n" * 9000, '"vocab" 1\n' * 20, "V\nP\n(c)\n"],
)
def test_compressed_texts_are_nothing(text):
    assert scan("vocab.txt.gz", BytesReader(gzip.compress(text.encode()))) == ()
