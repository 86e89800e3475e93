"""Pulling a model into Podman's store, by Podman's own import.

Owns an OCI layout on disk, built by the parallel, verified, resumable engine of every pull, and
the podman commands that take it in and name it. Podman checks every layer's SHA-256 as it unpacks
it, and writes every byte a second time: unlike containerd it cannot be handed unpacked layers.
The layout is removed at the end.

    result = import_model("registry.example/team/model:v1")
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from modelpack.artifact import Artifact, load_artifact
from modelpack.cache import cache_home
from modelpack.connect import open_repository
from modelpack.errors import IntegrityError, ModelpackError, SpaceError, UsageError
from modelpack.events import Observer, Planned, Warned, ignore
from modelpack.filling import fill_staging
from modelpack.manifest import Index
from modelpack.metadata import build_metadata_layer
from modelpack.plan import ChunkMap, PullPlan
from modelpack.pulling import VERIFY_LEVELS, Gate, PullResult, plan_connections
from modelpack.reference import Reference, RegistryReference, parse_reference
from modelpack.registry.options import ConnectionOptions
from modelpack.runtime.blobs import FramedChunks, blob_index
from modelpack.runtime.options import ImportResult
from modelpack.runtime.source import Warnings, fetch_image
from modelpack.storage import Repository
from modelpack.stores.files import locked, mapped_errors, sync_directory, write_atomically
from modelpack.stores.staging import Staging

_OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
# Unpacking a terabyte takes hours; this bounds a podman that hangs.
_PODMAN_SECONDS = 24 * 3600.0


def import_model(
    reference: str | Reference,
    *,
    seeds: Sequence[Path] = (),
    verify: str = "chunks",
    connection: ConnectionOptions | None = None,
    gate: Gate | None = None,
    observer: Observer = ignore,
) -> ImportResult:
    """Bring a model into the store of this user's podman, under its reference.

    Idempotent, and an interrupted import goes on where it stopped. A normal return proves that
    podman has the image with the config that the manifest names, and that it has checked the
    SHA-256 of every layer that it did not have before.

    Raises:
        UsageError: there is no podman, or the image is not one that can be imported.
        NotFoundError, AuthError, IntegrityError, PolicyError: as the registry and its bytes say.
        NetworkError, SpaceError: try again; what is verified is kept.
    """
    if verify not in VERIFY_LEVELS:
        raise UsageError(f"--verify takes {' or '.join(VERIFY_LEVELS)}, not {verify!r}")
    name = parse_reference(reference) if isinstance(reference, str) else reference
    if not isinstance(name, RegistryReference):
        raise UsageError(f"{name} lies on this machine already: podman pull {name}")
    options = connection or ConnectionOptions()
    warnings = Warnings(observer)
    with open_repository(name, options, observer=observer) as repository:
        manifest, config = fetch_image(repository, gate, warnings)
        artifact = load_artifact(repository, manifest)
        job = _Import(name, repository, artifact, config, tuple(seeds), options, warnings)
        return job.run()


class _Import:
    """One import; the layout lies in the user's cache."""

    def __init__(
        self,
        name: RegistryReference,
        repository: Repository,
        artifact: Artifact,
        config: bytes,
        seeds: Sequence[Path],
        connection: ConnectionOptions,
        observer: Warnings,
    ) -> None:
        self._name = name
        self._repository = repository
        self._artifact = artifact
        self._config = config
        self._seeds = seeds
        self._connection = connection
        self._observer = observer
        self._received = 0
        self._content = 0

    def run(self) -> ImportResult:
        """Import, name and report."""
        image_id = self._artifact.manifest.config.digest.hex
        imported = 0
        with self._directory() as directory:
            if not _podman_has(image_id):
                self._build_layout(directory)
                self._take_in(directory, image_id)
                imported = self._artifact.index.total_bytes
            self._tag(image_id)
            with mapped_errors(f"cannot remove {directory}"):
                shutil.rmtree(directory)
        return self._result(image_id, imported)

    def _take_in(self, directory: Path, image_id: str) -> None:
        """Have podman import the layout; one that turns out to be damaged is given up."""
        try:
            taken = _podman("pull", "--quiet", f"oci:{directory}").split()
        except IntegrityError:
            with mapped_errors(f"cannot remove {directory}"):
                shutil.rmtree(directory)
            raise
        if image_id not in taken:
            raise IntegrityError(
                f"podman took {self._name} up as {' '.join(taken)}, not {image_id}"
            )

    @contextmanager
    def _directory(self) -> Iterator[Path]:
        """Lend the layout's directory, to one process at a time."""
        home = cache_home() / "podman"
        directory = home / self._artifact.manifest.digest.hex[:32]
        with mapped_errors(f"cannot use {home}"):
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(home / "lock"):
            with mapped_errors(f"cannot use {directory}"):
                directory.mkdir(mode=0o700, exist_ok=True)
            yield directory

    def _build_layout(self, directory: Path) -> None:
        """Fetch what the layout lacks; blobs under their names are complete."""
        manifest = self._artifact.manifest
        blobs = directory / "blobs" / "sha256"
        with mapped_errors(f"cannot use {blobs}"):
            blobs.mkdir(parents=True, exist_ok=True)
        self._build_layers(directory / "staging", blobs)
        layer = manifest.layers[-1].digest
        write_atomically(blobs / layer.hex, build_metadata_layer(self._artifact.metadata))
        write_atomically(blobs / manifest.config.digest.hex, self._config)
        write_atomically(blobs / manifest.digest.hex, manifest.raw)
        write_atomically(directory / "index.json", Index.build([manifest.descriptor()]).raw)
        write_atomically(directory / "oci-layout", _OCI_LAYOUT)

    def _build_layers(self, staging_path: Path, blobs: Path) -> None:
        index, framing = blob_index(self._artifact.index)
        missing = [n for n, file in enumerate(index.files) if not (blobs / file.path).exists()]
        wanted = {index.hash_of(chunk) for n in missing for chunk in index.files[n].chunks}
        chunk_map = ChunkMap.of(index)
        key = hashlib.sha256(b"blobs" + self._artifact.manifest.raw).digest()
        local = FramedChunks(wanted, framing)
        staging = Staging(
            staging_path, key=key, chunk_map=chunk_map, files=missing, observer=self._observer
        )
        try:
            for seed in self._seeds:
                local.add_directory(seed)
            self._received = fill_staging(
                self._repository,
                replace(self._artifact, index=index),
                chunk_map=chunk_map,
                staging=staging,
                local=local,
                announce=self._announce,
                observer=self._observer,
                connections=self._connection.max_connections or plan_connections(),
                max_connections=self._connection.max_connections,
                limit_rate=self._connection.limit_rate,
            )
        finally:
            local.close()
            staging.close()
        with mapped_errors(f"cannot write to {blobs}"):
            for number in missing:
                os.rename(staging.path(number), blobs / index.files[number].path)
            sync_directory(blobs)
        self._content = staging.fetched_bytes
        staging.remove()

    def _announce(self, work: PullPlan) -> None:
        layers = self._artifact.data_layers
        total = sum(layer.size for layer in layers)
        self._observer(
            Planned(
                total_bytes=total,
                reused_bytes=total - work.fetch_bytes,
                items=tuple((layer.digest.hex, layer.size) for layer in layers),
            )
        )

    def _tag(self, image_id: str) -> None:
        if self._name.tag is not None and self._name.digest is None:
            _podman("tag", image_id, str(self._name))
        else:
            self._observer(
                Warned(message=f"podman names no image by digest; this one is {image_id}")
            )

    def _result(self, image_id: str, imported: int) -> ImportResult:
        artifact = self._artifact
        total = artifact.index.total_bytes
        pull = PullResult(
            reference=str(self._name),
            digest=str(artifact.manifest.digest),
            files=len(artifact.index.files),
            bytes=total,
            fetched_bytes=artifact.fetched_bytes + len(self._config) + self._received,
            reused_bytes=total - self._content,
            removed=0,
            verified="full",
            warnings=tuple(self._observer.messages),
        )
        return ImportResult(
            pull=pull,
            image_id=f"sha256:{image_id}",
            snapshots=len(artifact.manifest.layers),
            imported_bytes=imported,
        )


def _podman_has(image_id: str) -> bool:
    return _run("image", "exists", image_id).returncode == 0


def _podman(*arguments: str) -> str:
    """Run podman and return what it prints.

    Raises:
        IntegrityError: bytes are not what their digest says.
        SpaceError, ModelpackError: its own reason.
    """
    done = _run(*arguments)
    if done.returncode == 0:
        return done.stdout
    reason = next(
        (line for line in reversed(done.stderr.splitlines()) if "level=warning" not in line),
        f"exit status {done.returncode}",
    )
    if "igest did not match" in reason:
        raise IntegrityError(f"podman {arguments[0]}: {reason}; run again")
    if "no space left on device" in reason:
        raise SpaceError(f"podman {arguments[0]}: {reason}; free some space and run again")
    raise ModelpackError(f"podman {arguments[0]}: {reason}")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["podman", *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PODMAN_SECONDS,
        )
    except FileNotFoundError as error:
        raise UsageError("podman is not installed, or not on the PATH") from error
    except subprocess.TimeoutExpired as error:
        raise ModelpackError(f"podman {arguments[0]} does not end; it was stopped") from error
