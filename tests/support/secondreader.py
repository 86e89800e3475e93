"""A second reader of the artifact format, from the text of ``docs/format.md`` alone.

Shares no code with ``modelpack``: the standard library and BLAKE3. Reads a tag of an OCI layout, proves
the chunk index (section 5.3), takes the files out of the layers by it, checks every chunk, and rebuilds
every layer's digest (section 4.2). Slow and simple.

    read_artifact(Path("store"), "v1", Path("out"))
"""

import hashlib
import json
import re
import struct
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

LAYER = "application/vnd.oci.image.layer.v1.tar"
C = 4 * 1024 * 1024
END = bytes(1024)
MODES = {"0644": 0o644, "0755": 0o755}
LAYER_MEMBERS = {"digest", "size"}
FILE_MEMBERS = {"path", "size", "mode", "blake3", "layer", "offset", "chunks"}


class RefusedError(Exception):
    """The artifact breaks a rule of the format; the text names it."""


@dataclass(frozen=True)
class Index:
    layers: list[dict]
    files: list[dict]
    chunks: list[tuple[int, bytes]]


def read_artifact(layout: Path, tag: str, out: Path) -> Index:
    """Write a tag's files below ``out``, verified in every way there is."""
    manifest, index = load(layout, tag)
    first = 0
    for file in index.files:
        layer = blob_path(layout, manifest["layers"][file["layer"]]["digest"])
        target = out / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = blake3()
        with layer.open("rb") as source, target.open("xb") as sink:
            source.seek(file["offset"])
            for length, value in index.chunks[first : first + file["chunks"]]:
                data = source.read(length)
                require(blake3(data).digest() == value, f"chunk of {file['path']} differs")
                whole.update(data)
                sink.write(data)
        require(whole.hexdigest() == file["blake3"], f"{file['path']} differs")
        target.chmod(MODES[file["mode"]])
        first += file["chunks"]
    for number, layer in enumerate(index.layers):
        files = [file for file in index.files if file["layer"] == number]
        require(rebuild(files, out) == layer["digest"], f"layer {number} cannot be rebuilt")
    return index


def load(layout: Path, tag: str) -> tuple[dict, Index]:
    """Return a tag's manifest and proven index."""
    listed = strict_json((layout / "index.json").read_bytes())["manifests"]
    name = "org.opencontainers.image.ref.name"
    (entry,) = [item for item in listed if item.get("annotations", {}).get(name) == tag]
    manifest = strict_json(blob(layout, entry["digest"], 4 * 1024 * 1024))
    layers = manifest["layers"]
    require("artifactType" not in manifest, "artifactType")
    require(all(layer["mediaType"] == LAYER for layer in layers), "a layer's type")
    require(manifest["annotations"]["dev.modelpack.format"] == "1", "format version")
    last = layers[-1]["digest"]
    require(manifest["annotations"]["dev.modelpack.metadata"] == last, "metadata annotation")
    config = strict_json(blob(layout, manifest["config"]["digest"], 4 * 1024 * 1024))
    diff_ids = config["rootfs"]["diff_ids"]
    require(diff_ids == [layer["digest"] for layer in layers], "diff IDs")
    metadata = read_metadata(blob(layout, last, 251_658_256))
    index = read_index(metadata["chunks.bin"])
    promised = [(layer["digest"], layer["size"]) for layer in index.layers]
    require(promised == [(layer["digest"], layer["size"]) for layer in layers[:-1]], "other layers")
    return manifest, index


def read_metadata(raw: bytes) -> dict[str, bytes]:
    """Section 4.3: the only bytes that the files found can stand in."""
    files: dict[str, bytes] = {}
    at = 512
    while raw[at : at + 512].strip(b"\0"):
        name = raw[at : at + 100].rstrip(b"\0").decode().removeprefix(".modelpack/")
        require(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name), "a name in the metadata")
        require(name not in {"lock", "manifest.json", "receipt.json", "staging"}, "a local name")
        require(not files or name > max(files), "order in the metadata")
        size = int(raw[at + 124 : at + 135], 8)
        files[name] = raw[at + 512 : at + 512 + size]
        at += 512 + size + -size % 512
    again = entry(".modelpack/", 0, 0o755, b"5")
    for name, data in files.items():
        again += entry(f".modelpack/{name}", len(data), 0o644, b"0") + data
        again += bytes(-len(data) % 512)
    require(len(files) <= 32 and again + END == raw, "metadata is not canonical")
    return files


def read_index(raw: bytes) -> Index:
    """Sections 5.1 to 5.3, rule by rule but the last."""
    require(len(raw) >= 16 and raw[:8] == b"MPKCHNK\x01", "magic and version")
    head_bytes, count = struct.unpack("<II", raw[8:16])
    require(head_bytes <= 32 * 1024 * 1024 and count <= 4 * 1024 * 1024, "bounds")
    require(len(raw) == 16 + head_bytes + 36 * count, "length")
    head = strict_json(raw[16 : 16 + head_bytes])
    require(isinstance(head, dict) and head.keys() == {"layers", "files"}, "head")
    layers, files = head["layers"], head["files"]
    require(isinstance(layers, list) and isinstance(files, list) and len(layers) <= 99, "lists")
    for layer in layers:
        require(isinstance(layer, dict) and layer.keys() == LAYER_MEMBERS, "a layer's members")
        whole_number(layer["size"])
        pattern = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
        require(
            isinstance(layer["digest"], str) and re.fullmatch(pattern, layer["digest"]), "digest"
        )
    for file in files:
        require(isinstance(file, dict) and file.keys() == FILE_MEMBERS, "a file's members")
        for member in ("size", "layer", "offset", "chunks"):
            whole_number(file[member])
        require(isinstance(file["mode"], str) and file["mode"] in MODES, "mode")
        require(
            isinstance(file["blake3"], str) and re.fullmatch("[0-9a-f]{64}", file["blake3"]), "hash"
        )
    check_paths([file["path"] for file in files])
    chunks = list(struct.iter_unpack("<I32s", raw[16 + head_bytes :]))
    require(sum(file["chunks"] for file in files) == count, "number of chunks")
    require(all(1 <= length <= C for length, _ in chunks), "length of a chunk")
    first = last_layer = 0
    for file in files:
        mine = chunks[first : first + file["chunks"]]
        first += file["chunks"]
        require(sum(length for length, _ in mine) == file["size"], "chunks and size")
        require(last_layer <= file["layer"] < len(layers), "order of layers")
        last_layer = file["layer"]
    for number, layer in enumerate(layers):
        members = [file for file in files if file["layer"] == number]
        at = 0
        for framing, file in framed(members):
            at += len(framing)
            require(file is None or file["offset"] == at, "offset")
            at += file["size"] if file else 0
        require(members and at == layer["size"], "size of a layer")
    return Index(layers, files, chunks)


def check_paths(paths: list) -> None:
    """Section 3."""
    spelled: dict[str, str] = {}
    for path in paths:
        require(isinstance(path, str) and not re.search("[\\ud800-\\udfff]", path), "text")
        require(0 < len(path.encode()) <= 3072, "length of a path")
        require(not re.search(r"[\\\x00-\x1f\x7f-\x9f]", path), "characters of a path")
        names = path.split("/")
        require(len(names) <= 128, "parts of a path")
        for name in names:
            require(name not in {"", ".", ".."} and len(name.encode()) <= 255, "a name")
            require(not name.startswith(".wh."), "whiteout")
        require(fold(names[0]) != ".modelpack", "reserved directory")
        require(fold(path) not in spelled, "two of a path")
        spelled[fold(path)] = path
    directories: dict[str, str] = {}
    for path in paths:
        names = path.split("/")
        for depth in range(1, len(names)):
            above = "/".join(names[:depth])
            require(directories.setdefault(fold(above), above) == above, "two of a directory")
            require(fold(above) not in spelled, "file and directory")
    require(len(directories) <= 20_000, "directories")


def fold(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def framed(files: list[dict]):
    """Section 4.2: yield what precedes each file's bytes, and at last the tar's end."""
    pad, had = 0, set()
    for file in files:
        framing = bytes(pad)
        names = file["path"].split("/")
        for depth in range(1, len(names)):
            above = "/".join(names[:depth]) + "/"
            if above not in had:
                framing += entry(above, 0, 0o755, b"5")
                had.add(above)
        yield framing + entry(file["path"], file["size"], MODES[file["mode"]], b"0"), file
        pad = -file["size"] % 512
    yield bytes(pad) + END, None


def rebuild(files: list[dict], out: Path) -> str:
    """Return the digest of the layer that these files make."""
    tar = hashlib.sha256()
    for framing, file in framed(files):
        tar.update(framing)
        if file:
            tar.update((out / file["path"]).read_bytes())
    return "sha256:" + tar.hexdigest()


def entry(name: str, size: int, mode: int, kind: bytes) -> bytes:
    """Section 4.2: a header, with its pax header if it needs one."""
    records = b""
    if len(name.encode()) > 100 or not name.isascii():
        records += record("path", name.encode())
    if size > 8_589_934_591:
        records += record("size", str(size).encode())
        size = 0
    short = "".join(letter if letter.isascii() else "?" for letter in name).encode()[:100]
    if not records:
        return header(short, size, mode, kind)
    pax = header(b"././@PaxHeader", len(records), 0o644, b"x")
    return pax + records + bytes(-len(records) % 512) + header(short, size, mode, kind)


def record(key: str, value: bytes) -> bytes:
    rest = b" " + key.encode() + b"=" + value + b"\n"
    digits = 1
    while len(str(len(rest) + digits)) != digits:
        digits += 1
    return str(len(rest) + digits).encode() + rest


def header(name: bytes, size: int, mode: int, kind: bytes) -> bytes:
    fields = [(0, name), (100, b"%07o\0" % mode), (108, b"0000000\0"), (116, b"0000000\0")]
    fields += [(124, b"%011o\0" % size), (136, b"00000000000\0"), (156, kind)]
    fields += [(257, b"ustar\0" + b"00"), (329, b"0000000\0"), (337, b"0000000\0")]
    block = bytearray(512)
    for at, value in fields:
        block[at : at + len(value)] = value
    block[148:156] = b"%06o\0 " % (sum(block) + 8 * 0x20)
    return bytes(block)


def strict_json(raw: bytes):
    def members(pairs):
        require(len(dict(pairs)) == len(pairs), "a member twice")
        return dict(pairs)

    def constant(name):
        raise RefusedError(name)

    try:
        return json.loads(raw.decode(), object_pairs_hook=members, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise RefusedError("JSON") from error


def whole_number(value) -> None:
    require(type(value) is int and 0 <= value <= 2**53, "a number")


def blob(layout: Path, digest: str, limit: int) -> bytes:
    data = blob_path(layout, digest).read_bytes()
    require(len(data) <= limit, "a blob over its bound")
    require("sha256:" + hashlib.sha256(data).hexdigest() == digest, "a blob's digest")
    return data


def blob_path(layout: Path, digest: str) -> Path:
    require(re.fullmatch("sha256:[0-9a-f]{64}", digest), "digest")
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def require(condition, rule: str) -> None:
    if not condition:
        raise RefusedError(rule)
