"""A real systemd as the first process of namespaces of its own: what it makes of a unit is tried.

It sees the machine's file system, with ``/etc``, ``/usr/local`` and ``/opt`` as copies that it may
change, and ``/run`` and ``/var/lib`` empty; what it changes there is gone with it. Only the units
that a test writes exist. Needs root.

    with Systemd(tmp_path) as systemd:
        systemd.write("/etc/systemd/system/hello.service", "[Service]\\nExecStart=/bin/true\\n")
        systemd.sh("systemctl daemon-reload && systemctl start hello")
"""

import os
import shlex
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Self

from tests.support.command import PROGRAM
from tests.support.node import Node
from tests.support.programs import ProgramError
from tests.support.servers import STOP_SECONDS, Server, wait_until

# What a node of its own has where the tests have it elsewhere: containerd, Python, this package.
_DROP_IN = """
[Service]
ReadWritePaths={root}
BindPaths={directory}
BindReadOnlyPaths={prefix} {checkout}
ProtectHome=tmpfs
"""
_COPIES = ("/etc/", "/usr/local/", "/opt/")
# Those that services depend on, with nothing in them: nothing of the machine is started.
_TARGETS = "sysinit basic multi-user network-online shutdown"

# cgroup2 is mounted after the namespace of cgroups was made, in a group that this run made: what
# systemd makes there lies in that group.
_ENTER = """
set -e
mount --make-rprivate /
for place in etc usr/local opt; do
  mkdir -p "$0/$place/upper" "$0/$place/work"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$0/$place/upper,workdir=$0/$place/work" "/$place"
done
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd /etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs /etc/systemd/system
for target in $1; do
  printf '[Unit]\nDefaultDependencies=no\n' > "/etc/systemd/system/$target.target"
done
export container=test SYSTEMD_UNIT_PATH=/etc/systemd/system SYSTEMD_LOG_TARGET=console
exec /lib/systemd/systemd --system --unit=multi-user.target --show-status=no
"""


class Systemd(Server):
    """systemd, and commands that run beside its services; a context manager."""

    def __init__(self, directory: Path):
        """``directory`` holds what it changes."""
        self._changes = directory / "systemd"
        self._changes.mkdir()
        # Overlays want a file system that takes their attributes, which a tmp_path has.
        self._cgroup = _cgroup2() / f"modelpack-test-{uuid.uuid4()}"
        join = f'echo $$ > {self._cgroup}/cgroup.procs; exec "$0" "$@"'
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts"]
        inside = ["/bin/sh", "-c", _ENTER, str(self._changes), _TARGETS]
        super().__init__(
            "systemd",
            ["/bin/sh", "-c", join, *unshare, "--ipc", "--mount-proc", *inside],
            log=directory / "systemd.log",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def __enter__(self) -> Self:
        self._cgroup.mkdir()
        try:
            self.start(ready=self._is_up)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Its end is that of everything in its PID namespace.
        self.stop(signal.SIGKILL)
        wait_until(lambda: _removed(self._cgroup), seconds=STOP_SECONDS)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file that only systemd and what it starts see; below /etc, /usr/local or /opt."""
        assert path.startswith(_COPIES), path
        self.sh(f'mkdir -p "{Path(path).parent}"; cat > "{path}"; chmod {mode:o} "{path}"', text)

    def add_program(self, name: str, *argv: str) -> None:
        """Make a command in /usr/local/bin of a longer one."""
        text = f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n'
        self.write(f"/usr/local/bin/{name}", text, 0o755)

    def add_modelpack(self, node: Node) -> None:
        """Have modelpack where its unit expects it, and let the unit reach a node of the tests."""
        self.add_program("modelpack", str(PROGRAM))
        places = {"root": node.root, "directory": node.directory}
        text = _DROP_IN.format(prefix=sys.base_prefix, checkout=PROGRAM.parents[2], **places)
        self.write("/etc/systemd/system/modelpack-daemon.service.d/tests.conf", text)

    def sh(self, script: str, stdin: str = "", *, check: bool = True, timeout: float = 60) -> str:
        """Run a shell script where systemd is, and return what it printed.

        Raises:
            ProgramError: it exited with another status than 0 and ``check`` is set.
        """
        first = self._first()
        if first is None:
            return ""
        enter = ["nsenter", f"--target={first}", "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        done = subprocess.run(
            [*enter, "/bin/bash", "-euc", script],
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            cwd="/",
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise ProgramError(f"{script}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _is_up(self) -> bool:
        return self.sh("systemctl is-system-running", check=False).strip() in {
            "running",
            "degraded",
        }

    def _first(self) -> int | None:
        """Return systemd's process id, None before it is there."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else None


def _cgroup2() -> Path:
    """Return where the machine has the unified hierarchy."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(point)
    raise ProgramError("the machine has no cgroup2 hierarchy")


def _removed(group: Path) -> bool:
    """Remove a group and those below it; tell whether nothing is left of it."""
    if not group.exists():
        return True
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:  # its last process is still ending
            return False
    return True
