"""The real programs: where they are, and how to run one.

Owns the view in which the programs of the unpacked Debian tree run: the machine's own file
system, seen from a private mount namespace in which only ``/usr``, ``/etc`` and ``/run`` are the
tree's. A program therefore meets its own libraries and configuration, and every other path (the
test's ``tmp_path`` above all) means the same inside and outside. The namespace's root is the
machine's root, which runc needs: under a mere chroot it resolves mount targets to other paths.

Leaves out long-running programs (``servers.py``) and containerd (``node.py``).

    programs.run("skopeo", "copy", "--preserve-digests", source, target)
"""

import atexit
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

TREE = Path(os.environ.get("MODELPACK_TEST_TREE", "/var/cache/modelpack-tests/forky"))
GO_BIN = Path(os.environ.get("MODELPACK_TEST_GOBIN", "/var/cache/modelpack-tests/bin"))

# Those that Debian 12 lacks, or has in a version too old for what the tests ask of it.
FROM_TREE = frozenset(
    {
        "conmon",
        "containerd",
        "cosign",
        "crane",
        "crun",
        "ctr",
        "kubectl",
        "oras",
        "podman",
        "runc",
        "skopeo",
    }
)
# `go install` builds them, which a machine with no Go cannot: a test without them is skipped
# even in CI.
FROM_GO = frozenset(
    {
        *("cdi-oracle", "kube-oracle", "nvidia-cdi-hook", "nvidia-ctk"),
        *("fulcio", "rekor-server", "timestamp-server"),  # by tests/support/install-sigstore
    }
)
# In an environment of its own, whose python stands beside the program that the link leads to.
FROM_PYPI = frozenset({"model_signing"})
# Taken out of a package whose services nobody needs.
FROM_PACKAGE = frozenset({"promtool"})

TREE_PATH = "/usr/sbin:/usr/bin"

# /run is empty, so that no program of the tree finds a socket or a lock of the machine's own.
_ENTER_TREE = """
set -e
mount --rbind "$0/etc" /etc
mount -t tmpfs tmpfs /run
mount --rbind "$0/usr" /usr
exec "$@"
"""

# A home without credentials or settings; a test that needs some passes its own HOME.
_home = tempfile.TemporaryDirectory(prefix="modelpack-home-")
atexit.register(_home.cleanup)


class ProgramError(AssertionError):
    """A real program exited with a status that the test did not expect."""


def find_program(name: str) -> Path | None:
    """Return where a real program is, or None where the tests cannot run it."""
    if name in FROM_TREE:
        found = TREE / "usr/bin" / name
        return found if os.geteuid() == 0 and found.exists() else None
    if name in FROM_GO | FROM_PYPI | FROM_PACKAGE and (GO_BIN / name).exists():
        return GO_BIN / name
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None


def command(name: str, *args: str | Path) -> list[str]:
    """Return the argument vector that runs a program, in the tree's view where it needs that."""
    if name in FROM_TREE:
        return in_tree([name, *map(str, args)])
    found = find_program(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; see tests/support/install-programs")
    return [str(found), *map(str, args)]


def in_tree(argv: list[str], *, unshare: tuple[str, ...] = ()) -> list[str]:
    """Return ``argv`` wrapped so that it runs in the tree's view; ``unshare`` adds namespaces.

    Mounts of the machine made later still reach the view where its root is a shared mount; mounts
    made in the view never reach the machine.
    """
    prefix = ["unshare", "--mount", "--propagation", "slave", *unshare]
    return [*prefix, "/bin/sh", "-c", _ENTER_TREE, str(TREE), *argv]


def environment(name: str, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment a program runs with: the caller's, a bare home, then ``env``."""
    inherited = {**os.environ, "HOME": _home.name}
    if name in FROM_TREE:
        inherited["PATH"] = TREE_PATH
    return inherited | dict(env or {})


def run(
    name: str,
    *args: str | Path,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    input: str | None = None,  # noqa: A002 -- as subprocess.run calls it
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return its output.

    Raises:
        ProgramError: it exited with another status than 0 and ``check`` is set; the message
            holds what it printed.
    """
    done = subprocess.run(
        command(name, *args),
        check=False,
        env=environment(name, env),
        cwd=cwd,
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    if check and done.returncode != 0:
        line = shlex.join([name, *map(str, args)])
        raise ProgramError(f"{line}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Podman:
    """Podman with a store of its own below ``directory``, nothing shared with the machine's."""

    def __init__(self, directory: Path):
        self._options = ["--cgroup-manager=cgroupfs", "--events-backend=file"]
        for option in ("root", "runroot", "tmpdir"):
            place = directory / option
            place.mkdir(parents=True, exist_ok=True)
            self._options.append(f"--{option}={place}")

    def run(self, *args: str | Path, **options) -> subprocess.CompletedProcess[str]:
        """Run ``podman ARGS``; ``options`` are those of :func:`run`."""
        return run("podman", *self._options, *args, **options)

    def in_mounted_image(self, image: str, script: str) -> str:
        """Return what a shell script prints that runs at the top of the mounted image.

        A mount lives as long as the private namespace of one command, so mounting and looking
        happen in the same one.
        """
        podman = shlex.join(["podman", *self._options, "image"])
        name = shlex.quote(image)
        whole = f"set -e\ncd $({podman} mount {name})\n{script}\ncd /\n{podman} unmount {name} >&2"
        done = subprocess.run(
            in_tree(["/bin/sh", "-c", whole]),
            check=False,
            env=environment("podman"),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode != 0:
            raise ProgramError(f"{script}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout
