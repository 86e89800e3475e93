"""Attacks 1 to 8 of the trust model, on the pull path: exit 5, nothing outside, nothing complete.

Each test names the flaw it stands for.
"""

import contextlib
import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

import modelpack
from modelpack import metadata, tarformat
from modelpack.chunkindex import MAGIC
from modelpack.descriptor import FORMAT_VERSION, METADATA_LAYER, OCI_LAYER_TAR, OCI_LAYER_TAR_GZIP
from modelpack.digest import Digest, chunk_hash
from modelpack.errors import FormatError, IntegrityError, ModelpackError
from tests.support.faultregistry import Fault, FaultRegistry, build_manifest
from tests.support.models import read_tree, write_files
from tests.support.tensorfiles import gguf_raw, safetensors_raw


def expect_refusal(reference: str, out: Path, match: str | None = None) -> ModelpackError:
    """Pull, and require exit 5 in one line, with nothing that looks complete."""
    before = snapshot(out.parent, out)
    with pytest.raises(IntegrityError, match=match) as caught:
        modelpack.pull(reference, out)
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert all(data == b"mine" for _, data in (read_tree(out) if out.exists() else {}).values())
    assert snapshot(out.parent, out) == before
    return caught.value


def snapshot(root: Path, without: Path) -> set[str]:
    """Every path below ``root`` outside ``without`` and the caches."""
    return {
        str(path)
        for path in root.rglob("*")
        if not path.is_relative_to(without) and "cache" not in path.parts
    }


# --- 1: blobs and manifests with other bytes (oras-py 0.2.43 accepts both) -----------------------


@pytest.mark.parametrize("change", ["flip", "short", "long"])
@pytest.mark.parametrize("which", ["weights", "metadata"])
def test_1_blob_bytes_differ_from_their_digest(which, change, published, tmp_path):
    digest = getattr(published, which)
    data = bytearray(published.registry.blob(digest))
    if change == "flip":
        data[len(data) // 2] ^= 1
    elif change == "short":
        del data[-1000:]
    else:
        data += b"x" * 1000
    published.registry.add_blob(bytes(data), digest=digest)
    expect_refusal(published.reference, tmp_path / "out")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.extra_bytes(100, kind="blob"), id="extra-bytes"),
        pytest.param(Fault.replace_body(b"{}", kind="manifest"), id="other-manifest"),
        pytest.param(Fault.oversize(kind="manifest"), id="endless-manifest"),
        pytest.param(Fault.wrong_digest_header(kind="manifest"), id="header-lies"),
    ],
)
def test_1_answers_that_are_not_what_was_asked(fault, published, tmp_path):
    published.registry.faults.add(fault)
    reference = f"{published.registry.host}/team/model@{published.manifest.digest}"
    if "extra" in repr(fault):
        with pytest.raises(ModelpackError):
            modelpack.pull(reference, tmp_path / "out")
        assert not (tmp_path / "out").exists() or read_tree(tmp_path / "out") == {}
    else:
        expect_refusal(reference, tmp_path / "out")


def test_1_manifest_of_another_digest(published, tmp_path):
    other = build_manifest(b"other")
    published.registry.put_manifest("team/model", "x", other)
    raw = json.dumps(other).encode()
    published.registry.faults.add(Fault.replace_body(raw, kind="manifest"))
    expect_refusal(
        f"{published.registry.host}/team/model@{published.manifest.digest}", tmp_path / "out"
    )


# --- 2: a digest used as a path (CVE-2024-3727) --------------------------------------------------


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../etc/passwd",
        "../../x",
        "sha256:" + "A" * 64,
        "sha1:" + "a" * 40,
        "",
        7,
        None,
    ],
)
def test_2_digest_that_is_none(digest, registry, tmp_path):
    layer = {"mediaType": OCI_LAYER_TAR, "digest": digest, "size": 10}
    manifest = build_manifest(b"{}")
    manifest["layers"] = [layer]
    registry.put_manifest("team/model", "v1", manifest)
    expect_refusal(f"{registry.host}/team/model:v1", tmp_path / "out", "digest")


# --- 3: paths that lead elsewhere, in the index and in annotations -------------------------------

BAD_PATHS = {
    "parent": "../evil",
    "deep-parent": "a/../../evil",
    "absolute": "/tmp/evil",
    "backslash": "..\\evil",
    "nul": "a\0b",
    "newline": "a\nb",
    "empty-part": "a//b",
    "dot": "./a",
    "whiteout": ".wh.config.json",
    "reserved": ".modelpack/receipt.json",
    "reserved-case": ".ModelPack/x",
    "too-long": "x" * 256,
}
BAD_SETS = {
    "twice": ["a", "a"],
    "case": ["Model.bin", "model.bin"],
    "unicode": ["caf\u00e9", "cafe\u0301"],
    "file-and-directory": ["a", "a/b"],
    "directory-case": ["A/x", "a/y"],
}


def publish_index(registry: FaultRegistry, files: list[dict], **head) -> str:
    """Put an artifact at the registry whose index lists ``files``, however wrong."""
    data = b"evil"
    layer = tar_of([(str(entry["path"]), data) for entry in files])
    listed = [
        {
            "path": entry["path"],
            "size": len(data),
            "mode": "0644",
            "blake3": chunk_hash(data).hex(),
            "layer": 0,
            "offset": 512 + 1024 * number,
            "chunks": 1,
            **entry,
        }
        for number, entry in enumerate(files)
    ]
    value = {
        "layers": [{"digest": str(Digest.of(layer)), "size": len(layer)}],
        "files": listed,
        **head,
    }
    raw_head = json.dumps(value).encode()
    table = b"".join(len(data).to_bytes(4, "little") + chunk_hash(data) for _ in files)
    index = MAGIC + len(raw_head).to_bytes(4, "little") + len(files).to_bytes(4, "little")
    return publish_metadata(registry, layer, {metadata.CHUNKS: index + raw_head + table})


def publish_metadata(registry: FaultRegistry, layer: bytes, files: dict[str, bytes]) -> str:
    return publish_layers(registry, [layer, metadata.build_metadata_layer(files)])


def publish_layers(registry: FaultRegistry, layers: list[bytes]) -> str:
    manifest = build_manifest(*layers)
    for entry in manifest["layers"]:
        entry["mediaType"] = OCI_LAYER_TAR
    manifest["annotations"] = {
        FORMAT_VERSION: "1",
        METADATA_LAYER: str(Digest.of(layers[-1])),
    }
    for layer in (*layers, b"{}"):
        registry.add_blob(layer)
    registry.put_manifest("team/model", "v1", manifest)
    return f"{registry.host}/team/model:v1"


def tar_of(files: list[tuple[str, bytes]]) -> bytes:
    out = b""
    for path, data in files:
        name = path.replace("\0", "?")
        out += tarformat.file_header(name, size=len(data), mode=0o644) + data
        out += bytes(tarformat.padding(len(data)))
    return out + tarformat.END_OF_ARCHIVE


@pytest.mark.parametrize("path", BAD_PATHS.values(), ids=BAD_PATHS.keys())
def test_3_index_path_that_leads_elsewhere(path, registry, tmp_path):
    reference = publish_index(registry, [{"path": path}])
    expect_refusal(reference, tmp_path / "out", "path")
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("paths", BAD_SETS.values(), ids=BAD_SETS.keys())
def test_3_index_paths_that_collide(paths, registry, tmp_path):
    reference = publish_index(registry, [{"path": path} for path in paths])
    expect_refusal(reference, tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"size": -1}, id="negative-size"),
        pytest.param({"size": 2**63}, id="huge-size"),
        pytest.param({"size": 5}, id="size-not-the-chunks"),
        pytest.param({"offset": 0}, id="offset-in-header"),
        pytest.param({"offset": 10**9}, id="offset-outside"),
        pytest.param({"layer": 1}, id="layer-outside"),
        pytest.param({"layer": -1}, id="layer-negative"),
        pytest.param({"mode": "4755"}, id="setuid"),
        pytest.param({"mode": 420}, id="mode-number"),
        pytest.param({"chunks": 2}, id="too-many-chunks"),
        pytest.param({"chunks": 0}, id="too-few-chunks"),
        pytest.param({"blake3": "00"}, id="short-hash"),
        pytest.param({"blake3": None}, id="no-hash"),
        pytest.param({"link": "/etc/passwd"}, id="unknown-member"),
        pytest.param({"path": 7}, id="path-number"),
        pytest.param({"size": True}, id="size-bool"),
        pytest.param({"size": 4.0}, id="size-float"),
    ],
)
def test_3_index_entry_that_cannot_be(change, registry, tmp_path):
    reference = publish_index(registry, [{"path": "a", **change}])
    expect_refusal(reference, tmp_path / "out")


def test_3_index_of_other_layers(registry, tmp_path):
    reference = publish_index(
        registry, [{"path": "a"}], layers=[{"digest": str(Digest.of(b"x")), "size": 2048}]
    )
    expect_refusal(reference, tmp_path / "out", "other layers")


def test_3_index_head_of_deep_nesting(registry, tmp_path):
    raw = b"[" * 200_000
    index = MAGIC + len(raw).to_bytes(4, "little") + bytes(4) + raw
    reference = publish_metadata(registry, tar_of([("a", b"x")]), {metadata.CHUNKS: index})
    expect_refusal(reference, tmp_path / "out", "JSON|nested")


def test_3_index_of_a_newer_version(registry, tmp_path):
    index = MAGIC[:7] + b"\x02" + bytes(8)
    reference = publish_metadata(registry, tar_of([("a", b"x")]), {metadata.CHUNKS: index})
    expect_refusal(reference, tmp_path / "out", "version 2.*update")


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", "a/../../evil", "a\0b"])
def test_3_title_annotation_that_leads_elsewhere(path, registry, tmp_path):
    manifest = build_manifest(b"evil")
    manifest["layers"][0]["annotations"] = {"org.opencontainers.image.title": path}
    registry.add_blob(b"evil")
    registry.put_manifest("team/model", "v1", manifest)
    expect_refusal(f"{registry.host}/team/model:v1", tmp_path / "out", "path")


# --- 4: tars of other tools (CVE-2026-50163 and its kin) -----------------------------------------


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


TARS = {
    "parent": [tarfile.TarInfo("../evil")],
    "sibling-prefix": [tarfile.TarInfo("../out-evil/file")],
    "absolute": [tarfile.TarInfo("/tmp/evil")],
    "symlink": [special("link", tarfile.SYMTYPE, "/etc/passwd")],
    "symlink-then-write": [special("d", tarfile.SYMTYPE, "/tmp"), tarfile.TarInfo("d/evil")],
    "hardlink": [special("link", tarfile.LNKTYPE, "/etc/passwd")],
    "character-device": [special("null", tarfile.CHRTYPE)],
    "block-device": [special("sda", tarfile.BLKTYPE)],
    "fifo": [special("pipe", tarfile.FIFOTYPE)],
    "whiteout": [tarfile.TarInfo(".wh.config.json")],
    "opaque-whiteout": [tarfile.TarInfo("sub/.wh..wh..opq")],
    "twice": [tarfile.TarInfo("a"), tarfile.TarInfo("a")],
    "case": [tarfile.TarInfo("A"), tarfile.TarInfo("a")],
    "file-then-directory": [tarfile.TarInfo("a"), tarfile.TarInfo("a/b")],
}


def publish_tar(registry: FaultRegistry, raw: bytes, media_type: str = OCI_LAYER_TAR) -> str:
    manifest = build_manifest(raw)
    manifest["layers"][0]["mediaType"] = media_type
    registry.add_blob(raw)
    registry.put_manifest("team/model", "v1", manifest)
    return f"{registry.host}/team/model:v1"


@pytest.mark.parametrize("entries", TARS.values(), ids=TARS.keys())
@pytest.mark.parametrize("compressed", [False, True], ids=["tar", "gzip"])
def test_4_tar_entry_that_is_refused(entries, compressed, registry, tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry in entries:
            archive.addfile(entry)
    raw = gzip.compress(out.getvalue()) if compressed else out.getvalue()
    reference = publish_tar(registry, raw, OCI_LAYER_TAR_GZIP if compressed else OCI_LAYER_TAR)
    expect_refusal(reference, tmp_path / "out")
    assert not Path("/tmp/evil").exists()


def test_4_sparse_file(registry, tmp_path):
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "big",
               "GNU.sparse.realsize": str(2**50)}  # fmt: skip
    entry = tarfile.TarInfo("big")
    entry.pax_headers = records
    content = b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)
    entry.size = len(content)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(entry, io.BytesIO(content))
    expect_refusal(publish_tar(registry, out.getvalue()), tmp_path / "out")


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        pytest.param(b"not a tar at all" * 100, OCI_LAYER_TAR, id="no-tar"),
        pytest.param(tar_of([("a", b"x" * 5000)])[:3000], OCI_LAYER_TAR, id="truncated-tar"),
        pytest.param(gzip.compress(tar_of([("a", b"x")]))[:-8], OCI_LAYER_TAR_GZIP, id="cut-gzip"),
        pytest.param(b"\x1f\x8b" + bytes(100), OCI_LAYER_TAR_GZIP, id="bad-gzip"),
        pytest.param(bytes(100), OCI_LAYER_TAR + "+zstd", id="bad-zstd"),
        pytest.param(b"x", "application/x-unknown", id="unknown-type"),
    ],
)
def test_4_layer_that_cannot_be_unpacked(raw, media_type, registry, tmp_path):
    expect_refusal(publish_tar(registry, raw, media_type), tmp_path / "out")


# --- 5: a symlink already in the destination -----------------------------------------------------


@pytest.mark.parametrize(
    "where",
    ["model.safetensors", "sub", ".modelpack", ".modelpack/staging", ".modelpack/receipt.json"],
)
def test_5_symlink_in_the_destination_is_not_followed(where, published, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_bytes(b"keep")
    out = tmp_path / "out"
    (out / where).parent.mkdir(parents=True, exist_ok=True)
    (out / where).symlink_to(outside if "." not in Path(where).suffix else outside / "keep")
    with contextlib.suppress(ModelpackError):  # refused, or replaced without being followed
        modelpack.pull(published.reference, out)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"keep": b"keep"}


def test_5_symlink_below_the_destination_exits_5(published, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "outside").mkdir()
    (out / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(IntegrityError, match="symlink"):
        modelpack.pull(published.reference, out)
    assert list((tmp_path / "outside").iterdir()) == []


def test_5_symlink_put_there_during_the_pull(published, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "outside").mkdir()
    done = []

    def swap(_event):
        if not done and (out / ".modelpack").exists():
            done.append(True)
            (out / "sub").symlink_to(tmp_path / "outside")

    with pytest.raises(IntegrityError, match="symlink"):
        modelpack.pull(published.reference, out, observer=swap)
    assert list((tmp_path / "outside").iterdir()) == []


# --- 7 and 8: model files whose headers lie ------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param(
            "m.gguf", gguf_raw()[:8] + (2**60).to_bytes(8, "little") + bytes(8), id="gguf-count"
        ),
        pytest.param("m.safetensors", safetensors_raw(b"{}", length=2**62), id="st-length"),
        pytest.param(
            "m.safetensors",
            safetensors_raw(
                {
                    "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                    "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]},
                },
                bytes(6),
            ),
            id="st-overlap",
        ),
    ],
)
def test_7_and_8_lying_headers_are_refused_on_push(name, data, tmp_path):
    model = write_files(tmp_path / "model", {name: data})
    with pytest.raises(FormatError, match=name):
        modelpack.push(model, f"oci:{tmp_path / 'store'}:v1")


# --- manifests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'{"schemaVersion":1}', id="schema-1"),
        pytest.param(b'{"schemaVersion":2,"layers":[],"manifests":[],"config":{}}', id="ambiguous"),
        pytest.param(b'{"schemaVersion":2,"schemaVersion":2}', id="duplicate-key"),
        pytest.param(b"{" * 100_000, id="deep"),
        pytest.param(b"\xff\xfe{}", id="not-utf8"),
        pytest.param(b'{"schemaVersion":2,"config":{},"layers":[]}', id="no-config"),
        pytest.param(b'{"schemaVersion":NaN}', id="nan"),
    ],
)
def test_manifest_that_is_none(raw, registry, tmp_path):
    registry.put_manifest(
        "team/model", "v1", raw, media_type="application/vnd.oci.image.manifest.v1+json"
    )
    expect_refusal(f"{registry.host}/team/model:v1", tmp_path / "out")


def test_staging_is_closed_to_others(published, tmp_path):
    """Attack 11, CVE-2026-4137: nobody can swap a file between its verification and its use."""
    seen = []
    out = tmp_path / "out"

    def look(_event):
        staging = out / ".modelpack" / "staging"
        if staging.exists():
            seen.append(staging.stat().st_mode & 0o777)

    old = os.umask(0)
    try:
        modelpack.pull(published.reference, out, observer=look)
    finally:
        os.umask(old)
    assert set(seen) == {0o700}
    assert {mode for mode, _ in read_tree(out).values()} == {0o644}
    assert out.stat().st_mode & 0o022 == 0o022  # the user's umask decides about DEST itself
