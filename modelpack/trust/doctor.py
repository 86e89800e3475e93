"""Whether containerd asks its image verifiers: its configuration, read for what switches them off.

Owns reading ``config.toml`` with its imports, and the rules. Leaves out changing anything.

containerd does not say so when it pulls without asking: no directory, an empty one, and any of
several unrelated options let every image in. The rules were tried against containerd 2.1.9, whose CRI
pulls go through the transfer service, which asks, unless an option is set that it does not have.

    for finding in examine(load_config(Path("/etc/containerd/config.toml")), Path("/")):
        print(finding)
"""

import glob
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from modelpack.errors import UsageError
from modelpack.trust.authors import read_bounded

DEFAULT_CONFIG = Path("/etc/containerd/config.toml")
DEFAULT_BIN_DIR = "/opt/containerd/image-verifier/bin"
DEFAULT_MAX_VERIFIERS = 10

_MAX_CONFIG_BYTES = 1024 * 1024
# Real configurations import a directory of a handful of files.
_MAX_FILES = 64
# In this one CRI's pulls first went through the transfer service.
_FIRST = (2, 1)
# Starting, one connection to the registry and a few requests take a second or two.
_SHORT_SECONDS = 5.0

_VERIFIER = "io.containerd.image-verifier.v1.bindir"
_TRANSFER = "io.containerd.transfer.v1.local"
# Version 3 of the configuration, and the plugin that versions 1 and 2 have for the same.
_IMAGES = "io.containerd.cri.v1.images"
_CRI = ("io.containerd.grpc.v1.cri", "cri")
# Options that the transfer service does not have, the value that asks nothing of it, and what to do.
_LOCAL_OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("use_local_image_pull", False, "set it to false"),
    ("disable_snapshot_annotations", True, "leave it out"),
    ("discard_unpacked_layers", False, "leave it out"),
    ("image_pull_with_sync_fs", False, "leave it out"),
    ("max_concurrent_downloads", 3, f"set it in [plugins.'{_TRANSFER}'] instead"),
)
_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

Level = Literal["open", "closed", "note", "good"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something in the configuration, and what it means."""

    level: Level
    """``open``: images are pulled without asking; ``closed``: nothing can be pulled; ``note``."""
    what: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the form that ``--json`` prints."""
        return {"level": self.level, "what": self.what, "advice": self.advice}


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerdConfig:
    """The configuration, imports included."""

    path: Path
    plugins: Mapping[str, Any] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()

    def plugin(self, name: str) -> Mapping[str, Any]:
        """Return a plugin's table, empty if it has none."""
        found = self.plugins.get(name, {})
        return found if isinstance(found, dict) else {}


def load_config(path: Path) -> ContainerdConfig:
    """Read a configuration with everything that it imports; a missing file is an empty one.

    containerd itself starts with its defaults where the file is not there.

    Raises:
        UsageError: it cannot be read or is not TOML.
    """
    plugins: dict[str, Any] = {}
    disabled: set[str] = set()
    pending, seen = [path], set[Path]()
    while pending:
        current = pending.pop(0)
        if current in seen:
            continue
        seen.add(current)
        if len(seen) > _MAX_FILES:
            raise UsageError(f"{path} imports more than {_MAX_FILES} files")
        value = _read(current) if current.exists() or current != path else {}
        for name, table in _table(value.get("plugins")).items():
            plugins[name] = _merged(plugins.get(name), table)
        disabled |= {name for name in _list(value.get("disabled_plugins")) if isinstance(name, str)}
        pending += _imports(current, value)
    return ContainerdConfig(path=path, plugins=plugins, disabled=frozenset(disabled))


def examine(
    config: ContainerdConfig, *, version: tuple[int, int] | None = None, root: Path = Path("/")
) -> list[Finding]:
    """Return what the configuration means for verifiers; ``root`` is where the node's files are.

    ``version`` is containerd's own, where it is known.
    """
    return [
        *_plugins(config, version),
        *_local_pulls(config),
        *_directory(config, root),
    ]


def asks(findings: list[Finding]) -> bool:
    """Tell whether CRI pulls are decided by a verifier of modelpack's."""
    return all(finding.level not in ("open", "closed") for finding in findings)


def parse_version(text: str) -> tuple[int, int] | None:
    """Return (major, minor) from what ``containerd --version`` prints."""
    match = re.search(r"\bv?([0-9]+)\.([0-9]+)(?:\.|\b)", text)
    return (int(match[1]), int(match[2])) if match else None


def _plugins(config: ContainerdConfig, version: tuple[int, int] | None) -> Iterator[Finding]:
    if version is not None and version < _FIRST:
        yield Finding(
            level="open",
            what=f"containerd {version[0]}.{version[1]} asks no verifier about a kubelet's pulls",
            advice=f"use containerd {_FIRST[0]}.{_FIRST[1]} or later",
        )
    for name in (_VERIFIER, _TRANSFER):
        if name in config.disabled:
            yield Finding(
                level="closed",
                what=f"disabled_plugins holds {name}, without which CRI does not start",
                advice="take it out of the list",
            )


def _local_pulls(config: ContainerdConfig) -> Iterator[Finding]:
    """Yield the options by which CRI pulls images by itself, past the transfer service."""
    older = next((config.plugin(name) for name in _CRI if name in config.plugins), {})
    snapshots = _table(older.get("containerd"))
    images = {**snapshots, **older, **config.plugin(_IMAGES)}
    for name, harmless, advice in _LOCAL_OPTIONS:
        # True is 1 in Python, and neither is the other in TOML.
        if name in images and repr(images[name]) != repr(harmless):
            yield _local(f"{name} = {_toml(images[name])}", advice)
    registry = {**_table(older.get("registry")), **_table(config.plugin(_IMAGES).get("registry"))}
    for name in ("mirrors", "configs", "auths"):
        if registry.get(name):
            yield _local(f"registry.{name}", "use hosts.toml files and registry.config_path")


def _local(what: str, advice: str) -> Finding:
    return Finding(
        level="open", what=f"{what}: CRI pulls images itself, and asks no verifier", advice=advice
    )


def _directory(config: ContainerdConfig, root: Path) -> Iterator[Finding]:
    table = config.plugin(_VERIFIER)
    place = str(table.get("bin_dir", DEFAULT_BIN_DIR))
    most = table.get("max_verifiers", DEFAULT_MAX_VERIFIERS)
    directory = root / place.lstrip("/")
    try:
        # containerd calls them in this order, whatever they are.
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise UsageError(f"{directory} cannot be read: {error.strerror}") from error
    if not names:
        state = "is empty" if directory.is_dir() else "does not exist"
        yield Finding(
            level="open",
            what=f"bin_dir {place} {state}, which lets every image in",
            advice="put a script there that runs modelpack containerd-verifier",
        )
        return
    called = names if not isinstance(most, int) or most < 0 else names[:most]
    ours = [name for name in names if _is_ours(directory / name)]
    if not ours:
        yield Finding(
            level="open",
            what=f"bin_dir {place} holds no script that runs modelpack containerd-verifier",
            advice="put one there; others may be there, too",
        )
    elif not any(name in called for name in ours):
        yield Finding(
            level="open",
            what=f"max_verifiers is {most}, and {ours[0]} is not among the first",
            advice="raise it, or give the script a name that sorts first",
        )
    else:
        yield Finding(level="good", what=f"{place}/{ours[0]} is asked about every pull by CRI")
    yield from _entries(directory, place, called)
    seconds = _seconds(table.get("per_verifier_timeout", "10s"))
    if seconds is not None and seconds < _SHORT_SECONDS:
        yield Finding(
            level="note",
            what=f"per_verifier_timeout is {seconds:g} s; a slower verifier is ended and the pull "
            "refused",
            advice="10s and more leave time for the registry",
        )


def _entries(directory: Path, place: str, called: list[str]) -> Iterator[Finding]:
    for name in called:
        path = directory / name
        try:
            mode = os.stat(path).st_mode
        except OSError:
            mode = 0
        if not stat.S_ISREG(mode) or not mode & 0o111:
            yield Finding(
                level="closed",
                what=f"{place}/{name} cannot be run, so that every pull fails",
                advice="remove it, or make it executable",
            )
        elif mode & 0o022:
            yield Finding(
                level="note",
                what=f"{place}/{name} can be written by others than its owner",
                advice="chmod go-w",
            )


def _is_ours(path: Path) -> bool:
    """Tell whether an entry runs this program's verifier, as far as can be told from its text."""
    try:
        with path.open("rb") as file:
            return b"containerd-verifier" in file.read(64 * 1024)
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any]:
    raw = read_bounded(path, _MAX_CONFIG_BYTES, "containerd configuration")
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _imports(path: Path, value: Mapping[str, Any]) -> list[Path]:
    """Return the files that a configuration imports; a pattern may name none."""
    found: list[Path] = []
    for text in _list(value.get("imports")):
        pattern = str(text)
        absolute = pattern if pattern.startswith("/") else str(path.parent / pattern)
        found += [Path(name) for name in sorted(glob.glob(absolute))]
    return found


def _merged(old: Any, new: Any) -> Any:
    """Join tables; what is imported later wins, as in containerd."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)[:60]


def _seconds(value: Any) -> float | None:
    """Return a Go duration in seconds; None for what is none, of which containerd complains."""
    if not isinstance(value, str):
        return None
    parts = list(_DURATION.finditer(value))
    if "".join(part[0] for part in parts) != value or not parts:
        return None
    return sum(float(part["number"]) * _UNITS[part["unit"]] for part in parts)
