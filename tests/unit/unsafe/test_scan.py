import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.unsafe.finding import BytesReader, Finding
from modelpack.unsafe.pickles import Effort
from modelpack.unsafe.scan import scan


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


BAD = pickle.dumps({"w": Evil()}, 2)
OLD = pickle.dumps({"w": Evil()}, 0)
GOOD = pickle.dumps({"w": [1, 2]}, 2)


def zipped(files, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def torch(data_pkl=GOOD, **files):
    return zipped(
        {"m/data.pkl": data_pkl, "m/version": b"3\n", "m/data/0": b"\x80\x02" + bytes(99), **files}
    )


def tarred(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def array(value, **options):
    out = io.BytesIO()
    np.save(out, value, **options)
    return out.getvalue()


def arrays(**values):
    out = io.BytesIO()
    np.savez_compressed(out, **values)
    return out.getvalue()


def keras(architecture, **files):
    config = json.dumps(architecture).encode()
    weights = {"model.weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(100)}
    return zipped({"metadata.json": b"{}", "config.json": config, **weights, **files})


LAMBDA = {"class_name": "Lambda", "module": "keras.layers", "config": {}}
DENSE = {"class_name": "Dense", "module": "keras.layers", "config": {}}
OBJECTS = array(np.array([Evil()], dtype=object), allow_pickle=True)
BAD_CRC = torch(BAD).replace(b"posix", b"posiy")

FOUND = {
    "pickle": ("m.bin", BAD, "pickle", "unsafe"),
    "pickle-of-protocol-0": ("m.pkl", OLD, "pickle", "unsafe"),
    "wrong-name": ("README.md", BAD, "pickle", "unsafe"),
    "wrong-name-protocol-0": ("tokenizer.json", OLD, "pickle", "unsafe"),
    "no-name": ("weights", BAD, "pickle", "unsafe"),
    "harmless-pickle": ("m.bin", GOOD, "pickle", "note"),
    "broken-pickle": ("m.bin", GOOD[:-3], "pickle", "unscannable"),
    "runs-then-breaks": ("m.txt", BAD[:-2] + b"\xff", "pickle", "unsafe"),
    "named-like-one": ("m.pkl", b"hello", "pickle", "unscannable"),
    "torch": ("m.pt", torch(), "pickle", "note"),
    "torch-evil": ("m.pt", torch(BAD), "pickle", "unsafe"),
    "torch-evil-wrong-name": ("m.safetensors", torch(BAD), "pickle", "unsafe"),
    "torch-evil-renamed-inside": (
        "m.pt",
        zipped({"m/notes.txt": BAD, "m/version": b"3"}),
        "pickle",
        "unsafe",
    ),
    "torch-evil-compressed": (
        "m.pt",
        zipped({"m/data.pkl": BAD}, zipfile.ZIP_DEFLATED),
        "pickle",
        "unsafe",
    ),
    "torch-bad-crc": ("m.pt", BAD_CRC, "archive", "unsafe"),
    "torch-encrypted-flag": (
        "m.pt",
        torch(BAD)[:6] + b"\x01" + torch(BAD)[7:],
        "archive",
        "unsafe",
    ),
    "torch-behind-a-prefix": ("m.pt", b"\x7fELF" + torch(BAD), "archive", "unsafe"),
    "pickle-before-a-zip": ("m.pt", GOOD + torch(BAD), "archive", "unsafe"),
    "nested-zip": ("m.pt", torch(**{"m/extra": torch(BAD)}), "archive", "unscannable"),
    "nested-tar": ("m.pt", torch(**{"m/extra": tarred({"x": BAD})}), "archive", "unscannable"),
    "torchscript": ("m.pt", torch(**{"m/code/net.py": b"x"}), "archive", "unscannable"),
    "tar": ("m.nemo", tarred({"weights.ckpt": BAD}), "archive", "unscannable"),
    "7z": ("m.pt", b"7z\xbc\xaf\x27\x1c" + bytes(50), "archive", "unscannable"),
    "7z-wrong-name": ("notes.txt", b"7z\xbc\xaf\x27\x1c" + bytes(50), "archive", "unscannable"),
    "zstd": ("m.bin", b"\x28\xb5\x2f\xfd" + bytes(50), "archive", "unscannable"),
    "lz4": ("m.joblib", b"\x04\x22\x4d\x18" + bytes(50), "archive", "unscannable"),
    "gzip": ("notes.txt.gz", gzip.compress(BAD), "archive", "unscannable"),
    "gzip-tar": ("notes.gz", gzip.compress(tarred({"a": b""})), "archive", "unscannable"),
    "xz": ("m.joblib", lzma.compress(GOOD), "archive", "unscannable"),
    "bzip2": ("notes", bz2.compress(BAD), "archive", "unscannable"),
    "bzip2-too-large-to-peek": ("n", bz2.compress(os.urandom(90_000)), "archive", "unscannable"),
    "zlib": ("m.z", zlib.compress(BAD), "archive", "unscannable"),
    "numpy-objects": ("a.npy", OBJECTS, "pickle", "unsafe"),
    "numpy-objects-wrong-name": ("a.bin", OBJECTS, "pickle", "unsafe"),
    "numpy-escaped-header": (
        "a.npy",
        OBJECTS.replace(b"'|O'", b"'\\x4f'").replace(b"   \n", b" \n"),
        "pickle",
        "unsafe",
    ),
    "numpy-fields-of-objects": (
        "a.npy",
        array(np.array([(1, Evil())], dtype=[("a", "i4"), ("b", "O")]), allow_pickle=True),
        "pickle",
        "unsafe",
    ),
    "numpy-broken": ("a.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "pickle", "unscannable"),
    "npz-objects": ("a.npz", zipped({"x.npy": OBJECTS}), "pickle", "unsafe"),
    "hdf5": ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "hdf5", "unscannable"),
    "hdf5-after-a-user-block": (
        "m.dat",
        bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(100),
        "hdf5",
        "unscannable",
    ),
    "keras-lambda": ("m.keras", keras(LAMBDA), "keras", "unsafe"),
    "keras-lambda-wrong-name": ("m.zip", keras(LAMBDA), "keras", "unsafe"),
    "keras-json": ("model.json", json.dumps(LAMBDA).encode(), "keras", "unsafe"),
    "keras-with-a-pickle": ("m.keras", keras(DENSE, x=BAD), "pickle", "unsafe"),
    "auto-map": ("config.json", b'{"auto_map": {}}', "remote-code", "note"),
    "python": ("modeling.py", b"import os\n", "remote-code", "note"),
    "jinja": ("chat_template.jinja", b"{{ x }}", "chat-template", "note"),
}


@pytest.mark.parametrize(("path", "data", "kind", "danger"), FOUND.values(), ids=FOUND)
def test_what_is_found(path, data, kind, danger):
    found = scan(path, BytesReader(data))
    assert (kind, danger) in [(finding.kind, finding.danger) for finding in found], found
    worst = {"note": 0, "unscannable": 1, "unsafe": 2}
    assert max(worst[finding.danger] for finding in found) == worst[danger]
    assert all(finding.path.startswith(path) for finding in found)


def safetensors():
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


NOTHING = {
    "safetensors": ("m.safetensors", safetensors()),
    "gguf": ("m.gguf", b"GGUF" + struct.pack("<IQQ", 3, 290, 20) + bytes(200)),
    "onnx": ("m.onnx", b"\x08\x07\x12\x07pytorch" + bytes(64)),
    "config": ("config.json", b'{"architectures": ["Llama"]}'),
    "vocabulary": ("vocab.txt", b"cat\nfoo\nR\n(x\n"),
    "readme": ("README.md", b"# Model\n\n(c) us. N.B.\n"),
    "raw-bin": ("openvino.bin", b"\x00\x3c" * 500),
    "raw-bin-like-an-extension": ("openvino.bin", b"\x82\x01\xff\x07" * 500),
    "empty": ("empty.pkl", b""),
    "gzip-text": ("vocab.gz", gzip.compress(b"hello\nworld\n" * 200)),
    "npy": ("a.npy", array(np.arange(6.0).reshape(2, 3))),
    "npz": ("a.npz", arrays(a=np.ones(5), b=np.arange(3))),
    "keras": ("m.keras", keras(DENSE)),
    "x-text": ("x.txt", b"x marks the spot"),
}


@pytest.mark.parametrize(("path", "data"), NOTHING.values(), ids=NOTHING)
def test_what_is_nothing(path, data):
    assert scan(path, BytesReader(data)) == ()


def test_json_form():
    [finding] = scan("m.bin", BytesReader(BAD))
    assert finding.to_json() == {
        "path": "m.bin",
        "kind": "pickle",
        "danger": "unsafe",
        "detail": "a pickle that names posix.system",
    }


def test_the_entry_is_named():
    found = scan("m.pt", BytesReader(torch(BAD)))
    assert [finding.path for finding in found] == ["m.pt!m/data.pkl"]


def test_tensors_are_not_read():
    data = torch(**{"m/data/1": bytes(5_000_000)})

    class Counting(BytesReader):
        total = 0

        def read(self, offset, length, /):
            Counting.total += length
            return super().read(offset, length)

    assert all(finding.danger == "note" for finding in scan("m.pt", Counting(data)))
    assert Counting.total < 500_000


def test_a_flood_of_findings_is_cut_short():
    found = scan("m.zip", BytesReader(zipped({f"{number}": BAD for number in range(500)})))
    assert len(found) <= 66


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["m.bin", "m.pt", "a.npy", "m.keras", "config.json", "x"]),
    st.binary(max_size=150)
    | st.tuples(
        st.sampled_from([b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY\x01\x00", b"x\x9c", b"BZh9"]),
        st.binary(max_size=80),
    ).map(b"".join),
)
def test_any_file_is_judged(path, data):
    assert all(isinstance(finding, Finding) for finding in scan(path, BytesReader(data)))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(torch(BAD)) - 1), st.binary(min_size=1, max_size=3))
def test_no_change_of_an_archive_makes_it_look_harmless(position, noise):
    data = torch(BAD)
    data = data[:position] + noise + data[position + len(noise) :]
    found = scan("m.pt", BytesReader(data))
    still_there = BAD in data and data.startswith(b"PK\x03\x04")
    assert not still_there or any(finding.danger != "note" for finding in found)


def test_the_files_of_a_model_share_what_may_be_spent():
    effort = Effort(opcodes=30)
    assert [one.danger for one in scan("a.pkl", BytesReader(GOOD), effort)] == ["note"]
    found = [scan(f"{number}.pkl", BytesReader(GOOD), effort) for number in range(5)]
    assert [one.danger for one in found[-1]] == ["unscannable"]
    assert "together" in found[-1][0].detail
