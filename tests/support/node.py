"""A real node without Kubernetes: containerd, driven through CRI as a kubelet drives it.

containerd runs in the tree's view of the machine (``programs.py``) and in a PID namespace of its
own, so that ending one process ends every shim and container with it. Its data lie below the
node's directory under the same paths inside and outside; sandboxes use the host's network, so no
CNI is needed. Needs root.

    with Node(tmp_path, registry) as node:
        node.pull_image(f"{registry.host}/team/model:v1")
        node.run_with_image_volume(f"{registry.host}/team/model:v1", "/models", ["ls", "/models"])
"""

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import grpc

from tests.support import images, programs
from tests.support.cri import Cri
from tests.support.registries import DockerRegistry
from tests.support.servers import Server

NAMESPACE = "k8s.io"  # containerd's, for all that comes through CRI
MAX_SOCKET_PATH = 107  # Linux's bound on a Unix socket's path
_NAMESPACES = {"network": "NODE", "pid": "CONTAINER", "ipc": "POD"}

# Plain Debian defaults but for the paths, and:
# - snapshotters and NRI that need what a test machine lacks are off;
# - restrict_oom_score_adj: without CAP_SYS_RESOURCE runc could not lower the score and would die;
# - certs_d is where a test writes hosts.toml files.
_CONFIG = """
version = 3
root = '{directory}/root'
state = '{directory}/state'
disabled_plugins = [
  'io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.erofs',
  'io.containerd.snapshotter.v1.zfs', 'io.containerd.nri.v1.nri',
]
[grpc]
address = '{directory}/containerd.sock'
[plugins.'io.containerd.cri.v1.images']
pinned_images.sandbox = '{pause}'
registry.config_path = '{directory}/certs.d'
[plugins.'io.containerd.transfer.v1.local']
config_path = '{directory}/certs.d'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
enable_cdi = true
cdi_spec_dirs = ['{directory}/etc-cdi', '{directory}/run-cdi']
[plugins.'io.containerd.image-verifier.v1.bindir']
bin_dir = '{directory}/verifiers'
"""


class Container:
    """One running container of a node; ``exec`` runs commands in it."""

    def __init__(self, node: "Node", container_id: str):
        self._node = node
        self.id = container_id

    def exec(
        self, command: Sequence[str], *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Raises:
            ProgramError: it exited with another status than 0 and ``check`` is set.
        """
        done = self._node.cri.runtime("ExecSync", container_id=self.id, cmd=command, timeout=60)
        stdout, stderr = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        if check and done.exit_code != 0:
            raise programs.ProgramError(f"{command}\nexit {done.exit_code}\n{stdout}{stderr}")
        return subprocess.CompletedProcess(list(command), done.exit_code, stdout, stderr)


class Node(Server):
    """containerd with a CRI client; a context manager."""

    def __init__(self, directory: Path, registry: DockerRegistry):
        """``registry`` serves the busybox image that sandboxes and containers run."""
        self.directory = directory
        self.socket = directory / "containerd.sock"
        assert len(f"{self.socket}.ttrpc") <= MAX_SOCKET_PATH, f"{directory} is too long a path"
        self.root = directory / "root"  # content store and snapshots
        self.etc_cdi = directory / "etc-cdi"
        self.run_cdi = directory / "run-cdi"  # wins over etc_cdi
        self.certs_d = directory / "certs.d"
        self.verifiers = directory / "verifiers"
        self.busybox = f"{registry.host}/modelpack-tests/busybox:v1"
        for place in (self.etc_cdi, self.run_cdi, self.certs_d, self.verifiers):
            place.mkdir()
        images.push_image(images.write_busybox(directory / "busybox"), self.busybox)
        self._config = directory / "config.toml"
        self._config.write_text(_CONFIG.format(directory=directory, pause=self.busybox))
        self.log_level = "info"
        self._cri: Cri | None = None
        # The view outlives containerd, so that a restart finds its mounts again. Its first process
        # takes all others with it when it ends; until then it reaps what the shims leave behind.
        self._view = Server(
            "node view",
            programs.in_tree(
                ["sh", "-c", "echo ready; sleep infinity & wait"],
                unshare=("--pid", "--fork", "--kill-child", "--mount-proc"),
            ),
            log=directory / "view.log",
            env=programs.environment("containerd"),
        )
        super().__init__("containerd", [], log=directory / "containerd.log")

    @property
    def cri(self) -> Cri:
        """The client of the running containerd."""
        assert self._cri is not None, "the node is not running"
        return self._cri

    def start(self) -> None:
        """Start containerd, or start it again over the same data."""
        if not self._view.alive:
            self._view.start(ready=lambda: "ready" in self._view.logs())
        inside = _first_child(self._view.pid)
        self.argv = [
            "nsenter", f"--mount=/proc/{inside}/ns/mnt", f"--pid=/proc/{inside}/ns/pid",
            "containerd", "--config", str(self._config), "--log-level", self.log_level,
        ]  # fmt: skip
        self.env = programs.environment("containerd")
        self._cri = Cri(self.socket)
        super().start(ready=self._answers)
        self.pull_image(self.busybox)

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End containerd, with SIGKILL as after a crash if asked, and start it again.

        Running containers go on, as they do on a node.
        """
        self._end_containerd(how)
        self.start()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Remove all sandboxes and end everything; idempotent."""
        if self.alive:
            with contextlib.suppress(grpc.RpcError):
                self._remove_sandboxes()
        if self._cri is not None:
            self._end_containerd(how)
        # Signals of politeness end neither unshare nor the first process of a PID namespace.
        self._view.stop(signal.SIGKILL)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Images

    def pull_image(self, reference: str, *, username: str = "", password: str = "") -> str:
        """Pull an image as a kubelet does; return its id."""
        auth = {"username": username, "password": password} if username else None
        return self.cri.images("PullImage", image={"image": reference}, auth=auth).image_ref

    def image_status(self, reference: str):
        """Return CRI's Image message (``id``, ``repo_digests``, ``size``, ``pinned``) or None."""
        answer = self.cri.images("ImageStatus", image={"image": reference})
        return answer.image if answer.HasField("image") else None

    def remove_image(self, reference: str) -> None:
        """Remove an image; idempotent."""
        self.cri.images("RemoveImage", image={"image": reference})

    # Containers

    @contextlib.contextmanager
    def container(
        self,
        *,
        image_volumes: dict[str, str] | None = None,
        devices: Sequence[str] = (),
        annotations: dict[str, str] | None = None,
    ) -> Iterator[Container]:
        """Run a busybox container that sleeps, and remove it with its sandbox at the end.

        ``image_volumes`` maps mount paths to image references or ids, as an ImageVolume does;
        ``devices`` are CDI names as ``vendor.com/class=name``.
        """
        name = f"test-{uuid.uuid4()}"
        sandbox_config = {
            "metadata": {"name": name, "uid": name, "namespace": "tests"},
            "linux": {"security_context": {"namespace_options": _NAMESPACES}},
        }
        mounts = [
            {"container_path": path, "image": {"image": reference}, "readonly": True}
            for path, reference in (image_volumes or {}).items()
        ]
        config = {
            "metadata": {"name": "main"},
            "image": {"image": self.busybox},
            "command": ["/bin/sleep", "1000000"],
            "mounts": mounts,
            "annotations": annotations or {},
            "CDI_devices": [{"name": device} for device in devices],
            "linux": {"security_context": {"namespace_options": _NAMESPACES}},
        }
        sandbox = self.cri.runtime("RunPodSandbox", config=sandbox_config).pod_sandbox_id
        try:
            container = self.cri.runtime(
                "CreateContainer",
                pod_sandbox_id=sandbox,
                config=config,
                sandbox_config=sandbox_config,
            ).container_id
            self.cri.runtime("StartContainer", container_id=container)
            yield Container(self, container)
        finally:
            self._remove_sandbox(sandbox)

    def run_with_image_volume(
        self, image: str, mount_path: str, command: Sequence[str], *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container that has the image mounted at ``mount_path``."""
        with self.container(image_volumes={mount_path: image}) as container:
            return container.exec(command, check=check)

    def run_with_cdi(
        self, devices: Sequence[str], command: Sequence[str], *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container that was given these CDI devices."""
        with self.container(devices=devices) as container:
            return container.exec(command, check=check)

    def ctr(self, *args: str) -> str:
        """Return what ``ctr ARGS`` prints, in CRI's namespace: containerd's own view of things."""
        return programs.run(
            "ctr", f"--address={self.socket}", f"--namespace={NAMESPACE}", *args
        ).stdout

    def _remove_sandboxes(self) -> None:
        for sandbox in self.cri.runtime("ListPodSandbox").items:
            self._remove_sandbox(sandbox.id)

    def _remove_sandbox(self, sandbox: str) -> None:
        self.cri.runtime("StopPodSandbox", pod_sandbox_id=sandbox)
        self.cri.runtime("RemovePodSandbox", pod_sandbox_id=sandbox)

    def _answers(self) -> bool:
        try:
            status = self.cri.runtime("Status", timeout=1).status
        except grpc.RpcError:
            return False
        return any(one.type == "RuntimeReady" and one.status for one in status.conditions)

    def _end_containerd(self, how: signal.Signals) -> None:
        self.cri.close()
        self._cri = None
        super().stop(how)

    def _signal(self, which: signal.Signals) -> None:
        # The process started here is nsenter, which waits for containerd and passes nothing on.
        containerd = _first_child(self.pid)
        if containerd is not None:
            os.kill(containerd, which)


def _first_child(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None
