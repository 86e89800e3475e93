"""The image service of the Container Runtime Interface, as a kubelet uses it.

Owns three calls: pull, status, and which snapshotters the images lie in. Leaves out the wire
(``grpcapi.py``).

    cri = CriImages(connection)
    image_id = cri.pull("registry.example/team/model@sha256:...", None)
    assert cri.status(image_id).id == image_id
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelpack.errors import ModelpackError, NetworkError, PolicyError, UsageError
from modelpack.registry.credentials import Credentials
from modelpack.runtime.grpcapi import CALL_SECONDS, Connection

_SERVICE = "runtime.v1.ImageService"
_SNAPSHOTTER_DIRECTORY = "io.containerd.snapshotter.v1."
# Nothing is fetched, but a busy containerd may take a while for the records.
_PULL_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageState:
    """What a kubelet sees of an image."""

    id: str
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    pinned: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Its references."""
        return self.repo_tags + self.repo_digests


@dataclass(frozen=True, slots=True)
class CriImages:
    """The image service behind a runtime's socket."""

    connection: Connection

    def status(self, name: str) -> ImageState | None:
        """Return the image that a reference, digest reference or id names, or None."""
        answer = self._call("ImageStatus", image={"image": name})
        if not answer.HasField("image"):
            return None
        return ImageState(
            id=answer.image.id,
            repo_tags=tuple(answer.image.repo_tags),
            repo_digests=tuple(answer.image.repo_digests),
            pinned=answer.image.pinned,
        )

    def pull(self, name: str, credentials: Credentials | None) -> str:
        """Have the runtime pull an image and return its id.

        Raises:
            PolicyError: an image verifier of the runtime refuses.
            NetworkError: the runtime could not ask the registry.
            ModelpackError: any other reason of the runtime's own.
        """
        fields: dict[str, Any] = {"image": {"image": name}}
        if credentials is not None:
            fields["auth"] = _auth(credentials)
        try:
            return str(self._call("PullImage", timeout=_PULL_SECONDS, **fields).image_ref)
        except ModelpackError as error:
            if "image verifier" in str(error):
                raise PolicyError(str(error)) from error
            if "failed to resolve" in str(error):
                raise NetworkError(
                    f"{error}: containerd itself must reach the registry (hosts.toml, "
                    "credentials); all files are on the node, run again"
                ) from error
            raise

    def snapshotters(self) -> tuple[str, ...]:
        """Return the snapshotters that hold CRI's images, as far as their paths tell."""
        answer = self._call("ImageFsInfo")
        names = [item.fs_id.mountpoint.rpartition("/")[2] for item in answer.image_filesystems]
        return tuple(
            name.removeprefix(_SNAPSHOTTER_DIRECTORY)
            for name in names
            if name.startswith(_SNAPSHOTTER_DIRECTORY)
        )

    def _call(self, method: str, *, timeout: float = CALL_SECONDS, **fields: Any) -> Any:
        try:
            return self.connection.call(_SERVICE, method, fields, timeout=timeout)
        except UsageError as error:
            if "unknown service" not in str(error):
                raise
            raise UsageError(
                "containerd answers without CRI, which kubelets and ImageVolumes need: its "
                "configuration disables the plugin io.containerd.grpc.v1.cri; enable it, or "
                "import into another --namespace"
            ) from error


def _auth(credentials: Credentials) -> Mapping[str, str]:
    if credentials.identity_token is not None:
        return {"identity_token": credentials.identity_token}
    return {"username": credentials.username, "password": credentials.password}
