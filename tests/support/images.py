"""Stock OCI images made from a few files, without any code of the project under test.

layout = write_image(tmp_path / "layout", [{"weights.bin": b"..."}])
digest = push_image(layout, f"{registry.host}/team/model:v1")
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import programs

TAG = "latest"  # the one reference name inside a written layout

# What containers in these tests call; each is a link to the one static program.
_APPLETS = (
    "cat",
    "env",
    "find",
    "id",
    "ls",
    "mkdir",
    "mount",
    "sh",
    "sha256sum",
    "sleep",
    "stat",
    "touch",
)

Files = Mapping[str, bytes | Path]


def write_image(
    layout: Path,
    layers: Sequence[Files],
    *,
    links: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
    compressed: bool = False,
) -> Path:
    """Write an OCI image layout with one image in it; return ``layout``.

    A file given as bytes has mode 0644, one given as a path keeps its mode; ``links`` are
    symbolic links in the first layer. The same input gives the same bytes.
    """
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    descriptors, diff_ids = [], []
    for number, files in enumerate(layers):
        tar = _tar(files, links or {} if number == 0 else {})
        diff_ids.append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
        media_type = "application/vnd.oci.image.layer.v1.tar"
        if compressed:
            media_type += "+gzip"
            tar = gzip.compress(tar, mtime=0)
        descriptors.append(_add(blobs, media_type, tar))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command)},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _add(blobs, "application/vnd.oci.image.config.v1+json", _json(config)),
        "layers": descriptors,
    }
    top = _add(blobs, manifest["mediaType"], _json(manifest))
    top["annotations"] = {"org.opencontainers.image.ref.name": TAG}
    (layout / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [top]}))
    (layout / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return layout


def write_busybox(layout: Path) -> Path:
    """Write an image of static busybox: a pause container and a shell in one."""
    busybox = programs.find_program("busybox")
    assert busybox is not None, "busybox is not installed; see tests/support/install-programs"
    links = {f"bin/{name}": "busybox" for name in _APPLETS}
    return write_image(
        layout, [{"bin/busybox": busybox}], links=links, command=["/bin/sleep", "1000000"]
    )


def push_image(layout: Path, reference: str, *options: str) -> str:
    """Push the image of a written layout with skopeo; return the digest of its manifest."""
    programs.run(
        "skopeo",
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        *options,
        f"oci:{layout}:{TAG}",
        f"docker://{reference}",
    )
    return json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]


def _tar(files: Files, links: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        names = [*files, *links]
        for directory in sorted({str(parent) for n in names for parent in Path(n).parents} - {"."}):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o644 if isinstance(content, bytes) else content.stat().st_mode & 0o777
            data = content if isinstance(content, bytes) else content.read_bytes()
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for name, target in sorted(links.items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


def _add(blobs: Path, media_type: str, content: bytes) -> dict:
    encoded = hashlib.sha256(content).hexdigest()
    (blobs / encoded).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{encoded}", "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
