"""The programs that are timed: how each pulls or pushes, and whether it is here."""

import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tests.support.programs import command, environment, find_program

MODELPACK = str(Path(sysconfig.get_path("scripts")) / "modelpack")
_FLOOR_CONNECTIONS = "4"
_CONNECTIONS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A model at a registry."""

    host: str
    """Where to pull from: a registry or a proxy before it."""
    repository: str
    tag: str
    blobs: tuple[tuple[str, int], ...]
    """Digest and size of the data layers."""
    ca_file: Path | None = None

    @property
    def reference(self) -> str:
        """``HOST/REPOSITORY:TAG``."""
        return f"{self.host}/{self.repository}:{self.tag}"

    def url(self, digest: str) -> str:
        """Return a blob's address."""
        scheme = "https" if self.ca_file else "http"
        return f"{scheme}://{self.host}/v2/{self.repository}/blobs/{digest}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """One way to bring a model to a directory, or to a registry."""

    name: str
    program: str
    """What must be installed: a program, or ``python:MODULE``."""
    argv: Callable[[Published, Path], list[str]]
    verifies: bool = True
    own_clock: bool = False
    """It prints its own seconds, which count instead."""
    env: dict[str, str] = field(default_factory=dict)

    @property
    def is_here(self) -> bool:
        """Whether it can be run."""
        kind, _, module = self.program.partition(":")
        if kind == "python":
            return find_spec(module) is not None
        return shutil.which(self.program) is not None or find_program(self.program) is not None

    def environment(self) -> dict[str, str]:
        """Return its environment."""
        if self.program.startswith("python:"):
            return self.env
        return environment(self.program, self.env)


def pullers() -> dict[str, Contestant]:
    """Return every way to pull, by name."""
    found = [
        Contestant(name="modelpack", program="python:modelpack", argv=_modelpack_pull),
        Contestant(
            name="modelpack --no-page-cache", program="python:modelpack", argv=_modelpack_direct
        ),
        Contestant(
            name="bare floor",
            program="python:benchmarks",
            argv=_floor,
            verifies=False,
            own_clock=True,
        ),
        Contestant(name="oras", program="oras", argv=_oras_pull),
        Contestant(name="skopeo", program="skopeo", argv=_skopeo_pull),
        Contestant(name="podman", program="podman", argv=_podman_pull),
        Contestant(name="oras-py", program="python:oras", argv=_oras_py_pull, verifies=False),
        Contestant(name="aria2c", program="aria2c", argv=_aria2_pull, verifies=False),
        Contestant(name="curl x4", program="curl", argv=_curl_pull, verifies=False),
    ]
    found += [
        Contestant(
            name=f"modelpack, {count}", program="python:modelpack", argv=_modelpack_with(count)
        )
        for count in _CONNECTIONS
    ]
    return {contestant.name: contestant for contestant in found}


def starters() -> dict[str, Contestant]:
    """Return what start-up is compared with, by name."""
    found = [
        Contestant(
            name="modelpack", program="python:modelpack", argv=lambda *_: [MODELPACK, "--help"]
        ),
        Contestant(
            name="python -c pass",
            program="python:sys",
            argv=lambda *_: [sys.executable, "-c", "pass"],
        ),
    ]
    return {contestant.name: contestant for contestant in found}


def pushers(model: Path) -> dict[str, Contestant]:
    """Return every way to push ``model``, by name."""

    def ours(target: Published, _: Path) -> list[str]:
        return [MODELPACK, "push", str(model), target.reference, "-q", "--no-cache"]

    def again(target: Published, _: Path) -> list[str]:
        return [MODELPACK, "push", str(model), target.reference, "-q"]

    def oras(target: Published, _: Path) -> list[str]:
        names = sorted(path.name for path in model.iterdir())
        plain = command("oras", "push", "--plain-http", "--no-tty", target.reference, *names)
        return ["/bin/sh", "-c", 'cd "$0" && exec "$@"', str(model), *plain]

    found = [
        Contestant(name="modelpack", program="python:modelpack", argv=ours),
        Contestant(name="modelpack, unchanged", program="python:modelpack", argv=again),
        Contestant(name="oras", program="oras", argv=oras),
    ]
    return {contestant.name: contestant for contestant in found}


def _modelpack_pull(model: Published, destination: Path) -> list[str]:
    trust = ["--ca-file", str(model.ca_file)] if model.ca_file else []
    return [MODELPACK, "pull", model.reference, str(destination), "-q", *trust]


def _modelpack_direct(model: Published, destination: Path) -> list[str]:
    return [*_modelpack_pull(model, destination), "--no-page-cache"]


def _modelpack_with(connections: int) -> Callable[[Published, Path], list[str]]:
    def argv(model: Published, destination: Path) -> list[str]:
        return [*_modelpack_pull(model, destination), "--max-connections", str(connections)]

    return argv


def _floor(model: Published, destination: Path) -> list[str]:
    blobs = [f"{digest}:{size}" for digest, size in model.blobs]
    head = [sys.executable, "-m", "benchmarks.floor", model.host, model.repository]
    return [*head, str(destination), _FLOOR_CONNECTIONS, *blobs]


def _oras_pull(model: Published, destination: Path) -> list[str]:
    trust = ["--from-ca-file", str(model.ca_file)] if model.ca_file else ["--from-plain-http"]
    target = f"{destination}:{model.tag}"
    return command("oras", "copy", "--no-tty", *trust, model.reference, "--to-oci-layout", target)


def _skopeo_pull(model: Published, destination: Path) -> list[str]:
    source = f"docker://{model.reference}"
    return command("skopeo", "copy", "-q", "--src-tls-verify=false", source, f"dir:{destination}")


def _podman_pull(model: Published, destination: Path) -> list[str]:
    place = ["--root", f"{destination}/root", "--runroot", f"{destination}/run"]
    return command("podman", *place, "pull", "-q", "--tls-verify=false", model.reference)


def _oras_py_pull(model: Published, destination: Path) -> list[str]:
    code = (
        "import sys, oras.client\n"
        "client = oras.client.OrasClient(insecure=True)\n"
        "container = client.get_container(sys.argv[1])\n"
        "for digest in sys.argv[3:]:\n"
        "    client.download_blob(container, digest, f'{sys.argv[2]}/{digest[7:]}')\n"
    )
    digests = [digest for digest, _ in model.blobs]
    return [sys.executable, "-c", code, model.reference, str(destination), *digests]


def _aria2_pull(model: Published, destination: Path) -> list[str]:
    urls = [model.url(digest) for digest, _ in model.blobs]
    fast = ["-x16", "-s16", "-k4M", "-j4", "--file-allocation=none", "--check-certificate=false"]
    script = 'printf "%s\\n" "$@" >"$0/urls"; exec aria2c -q -i "$0/urls" -d "$0" ' + " ".join(fast)
    return ["/bin/sh", "-c", script, str(destination), *urls]


def _curl_pull(model: Published, destination: Path) -> list[str]:
    argv = ["curl", "-sSfk", "--parallel", "--parallel-max", "4"]
    for digest, _ in model.blobs:
        argv += ["-o", f"{destination}/{digest[7:]}", model.url(digest)]
    return argv
