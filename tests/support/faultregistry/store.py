"""What a registry holds: blobs, manifests, tags, uploads in progress.

Owns the dictionaries and the lock. Leaves out every rule about what may be put in
(``manifests.py``, ``pushes.py``): tests fill a store with whatever they like.

One store may serve several registries and blob hosts.
"""

import hashlib
import json
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.faultregistry.contents import PIECE_BYTES, Content
from tests.support.faultregistry.routes import is_digest
from tests.support.faultregistry.wire import Hangup


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredManifest:
    """A manifest as it was given."""

    digest: str
    media_type: str
    data: bytes

    def json(self) -> dict[str, Any]:
        """Return the JSON object; an empty one if the bytes are none."""
        try:
            value = json.loads(self.data)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def referrer_of(self, subject: str) -> dict[str, Any] | None:
        """Return the descriptor that the referrers API lists, if the subject is this one."""
        value = self.json()
        named = value.get("subject")
        if not isinstance(named, dict) or named.get("digest") != subject:
            return None
        descriptor: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.data),
        }
        config = value.get("config")
        artifact_type = value.get("artifactType") or (
            config.get("mediaType") if isinstance(config, dict) else None
        )
        if artifact_type:
            descriptor["artifactType"] = artifact_type
        if value.get("annotations"):
            descriptor["annotations"] = value["annotations"]
        return descriptor


@dataclass(kw_only=True, slots=True)
class _Repository:
    blobs: set[str] = field(default_factory=set)
    manifests: dict[str, StoredManifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Upload:
    """One upload session: the bytes so far, and the Location's state that goes with them.

    Whoever acts on it claims it first. A request that is still reading from a dead connection
    then finds that the upload is no longer its own, so bytes cannot turn up behind a client that
    has asked how far it got.
    """

    def __init__(self, repo: str):
        self.id = str(uuid.uuid4())
        self.repo = repo
        self.last_chunk: int | None = None
        self.data = bytearray()
        self._lock = threading.Lock()
        self._owner = 0
        self._states = {self.state}

    @property
    def size(self) -> int:
        """How many bytes have arrived."""
        return len(self.data)

    @property
    def state(self) -> str:
        """The opaque part of the Location, another one for each size."""
        return hashlib.sha256(f"{self.id} {len(self.data)}".encode()).hexdigest()[:16]

    def claim(self) -> int:
        """Take the upload over from whoever has it, as far as it is; return the proof."""
        with self._lock:
            self._owner += 1
            self._states.add(self.state)
            return self._owner

    def append(self, owner: int, piece: bytes) -> None:
        """Add bytes.

        Raises:
            Hangup: someone else has claimed the upload.
        """
        with self._lock:
            if owner != self._owner:
                raise Hangup
            self.data += piece

    def settle(self, owner: int, size: int | None = None) -> None:
        """End a chunk: cut back to ``size`` if given, and make the new state known."""
        with self._lock:
            if owner == self._owner:
                if size is not None:
                    del self.data[size:]
                self._states.add(self.state)

    def knows(self, state: str | None) -> bool:
        """Return whether some Location of this upload had this state."""
        with self._lock:
            return state in self._states


class Store:
    """All repositories of one registry. Thread-safe; digests are strings."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._blobs: dict[str, Content] = {}
        self._everywhere: set[str] = set()
        self._repositories: dict[str, _Repository] = {}
        self._uploads: dict[str, Upload] = {}

    # Blobs

    def add_blob(self, digest: str, content: Content, repo: str | None) -> None:
        """Hold a blob in one repository, or (None) in all."""
        with self._lock:
            self._blobs[digest] = content
            if repo is None:
                self._everywhere.add(digest)
            else:
                self._open(repo).blobs.add(digest)

    def blob(self, digest: str, repo: str | None = None) -> Content | None:
        """Return a blob, if the repository (None: any) has it."""
        with self._lock:
            held = repo is None or digest in self._everywhere
            if held or digest in self._repositories.get(repo or "", _Repository()).blobs:
                return self._blobs.get(digest)
            return None

    def mount_blob(self, digest: str, source: str | None, target: str) -> bool:
        """Give a repository a blob of another (None: any); return whether that has it."""
        with self._lock:
            if self.blob(digest, source) is None:
                return False
            self._open(target).blobs.add(digest)
            return True

    def delete_blob(self, digest: str, repo: str) -> bool:
        """Take a blob away from a repository; return whether it was there."""
        with self._lock:
            if self.blob(digest, repo) is None:
                return False
            self._everywhere.discard(digest)
            self._open(repo).blobs.discard(digest)
            return True

    # Manifests

    def put_manifest(self, repo: str, tag: str | None, manifest: StoredManifest) -> None:
        """Hold a manifest, and point a tag at it."""
        with self._lock:
            repository = self._open(repo)
            repository.manifests[manifest.digest] = manifest
            if tag is not None:
                repository.tags[tag] = manifest.digest

    def manifest(self, repo: str, reference: str) -> StoredManifest | None:
        """Return the manifest at a tag or digest."""
        with self._lock:
            repository = self._repositories.get(repo, _Repository())
            digest = reference if is_digest(reference) else repository.tags.get(reference, "")
            return repository.manifests.get(digest)

    def delete_manifest(self, repo: str, reference: str) -> bool:
        """Take a tag away, or a manifest with its tags; return whether it was there."""
        with self._lock:
            repository = self._repositories.get(repo, _Repository())
            if not is_digest(reference):
                return repository.tags.pop(reference, None) is not None
            for tag, digest in list(repository.tags.items()):
                if digest == reference:
                    del repository.tags[tag]
            return repository.manifests.pop(reference, None) is not None

    def tags(self, repo: str) -> list[str] | None:
        """Return all tags in lexical order, or None if there is no such repository."""
        with self._lock:
            repository = self._repositories.get(repo)
            if repository is None:
                return None
            return sorted(repository.tags, key=lambda tag: (tag.lower(), tag))

    def referrers(self, repo: str, subject: str) -> list[dict[str, Any]]:
        """Return the descriptors of the manifests that have this subject, oldest first."""
        with self._lock:
            manifests = self._repositories.get(repo, _Repository()).manifests.values()
            listed = [manifest.referrer_of(subject) for manifest in manifests]
        return [descriptor for descriptor in listed if descriptor is not None]

    def snapshot(self) -> Mapping[str, Mapping[str, str]]:
        """Return every tag with its digest, by repository."""
        with self._lock:
            return {name: dict(held.tags) for name, held in self._repositories.items()}

    # Uploads

    def open_upload(self, repo: str) -> Upload:
        """Begin an upload."""
        upload = Upload(repo)
        with self._lock:
            self._uploads[upload.id] = upload
        return upload

    def upload(self, upload_id: str, repo: str) -> Upload | None:
        """Return an upload in progress."""
        with self._lock:
            upload = self._uploads.get(upload_id)
        return upload if upload is not None and upload.repo == repo else None

    def uploads(self) -> list[Upload]:
        """Return every upload in progress."""
        with self._lock:
            return list(self._uploads.values())

    def end_upload(self, upload: Upload) -> None:
        """Forget an upload."""
        with self._lock:
            self._uploads.pop(upload.id, None)

    def _open(self, repo: str) -> _Repository:
        return self._repositories.setdefault(repo, _Repository())


def digest_of(content: Content, algorithm: str = "sha256") -> str:
    """Return a content's digest, reading all of it."""
    size = content.size
    assert size is not None, "an endless content has no digest"
    hasher = hashlib.new(algorithm)
    for offset in range(0, size, PIECE_BYTES):
        hasher.update(content.read(offset, min(PIECE_BYTES, size - offset)))
    return f"{algorithm}:{hasher.hexdigest()}"
