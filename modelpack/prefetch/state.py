"""The daemon's own files in its store: what it remembers, and the lock that makes it the only one.

Owns writing so that a crash at any instant leaves the old or the new file whole, and reading what a
crash or a failing disk has left. Leaves out what is kept (``progress.py``).

    with Store(Path("/var/lib/modelpack")) as store:
        state = store.load()
        store.save(state)
"""

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any, Self

from modelpack.errors import FormatError, ModelpackError, UsageError
from modelpack.prefetch.progress import State
from modelpack.stores.files import (
    locked,
    make_directory,
    mapped_errors,
    remove_leftovers,
    sync_directory,
    write_atomically,
)

_logger = logging.getLogger(__name__)

VERSION = 1
# A thousand models with full histories take some 2 MB.
_MAX_BYTES = 64 * 1024 * 1024
_STATE = "state.json"
_BEFORE = "state.before.json"
_CONFIGURATION = "configuration.json"
_LOCK = "lock"
# Of each name; older ones have been looked at or never will be.
_MAX_DAMAGED = 8


class Store:
    """A daemon's directory, locked while it is open; all methods are for one thread."""

    def __init__(self, path: Path) -> None:
        """Open a store, which is made if need be.

        Raises:
            UsageError: another daemon has it.
            ModelpackError: it cannot be written.
        """
        self.path = path / "daemon"
        self.warnings: list[str] = []
        """What was found damaged, a line each."""
        self._held = contextlib.ExitStack()
        with mapped_errors(f"cannot use the store {path}"):
            make_directory(self.path)
            os.chmod(self.path, 0o700)
            try:
                self._held.enter_context(locked(self.path / _LOCK, wait=False))
            except BlockingIOError:
                raise UsageError(
                    f"another modelpack daemon runs with the store {path}; stop it first, or give "
                    "this one a store of its own"
                ) from None
            remove_leftovers(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another daemon have the store."""
        self._held.close()

    def load(self) -> State:
        """Return what was saved last, or before, or nothing: never an error for damage.

        A damaged file is set aside under another name, with a warning.
        """
        for name in (_STATE, _BEFORE):
            try:
                value = self._read(name)
                if value is not None:
                    return State.from_json(value)
            except FormatError as error:
                self._set_aside(name, error)
        if self.warnings:
            self._warn(
                "nothing is remembered any more: models here that are wanted are taken up again, "
                "others that this daemon brought it leaves alone; remove those by hand"
            )
        return State()

    def save(self, state: State) -> None:
        """Replace what is kept, durably; the file before is kept once.

        Raises:
            SpaceError, ModelpackError: as the system says; what was kept is untouched.
        """
        self._write(_STATE, state.to_json(), keep=True)

    def load_configuration(self) -> dict[str, Any] | None:
        """Return the last good configuration, if one was kept and can be read."""
        try:
            value = self._read(_CONFIGURATION)
        except FormatError as error:
            self._set_aside(_CONFIGURATION, error)
            return None
        return value if isinstance(value, dict) else None

    def save_configuration(self, value: dict[str, Any]) -> None:
        """Keep a configuration that is good; raises as ``save``."""
        self._write(_CONFIGURATION, value)

    def _read(self, name: str) -> Any:
        path = self.path / name
        try:
            with path.open("rb") as file:
                raw = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:  # a failing disk
            raise FormatError(str(error.strerror)) from error
        if len(raw) > _MAX_BYTES:
            raise FormatError(f"larger than {_MAX_BYTES} bytes")
        try:
            document = json.loads(raw)
            version, value = document["version"], document["value"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"not what a daemon writes: {error!r:.100}") from error
        if version != VERSION:
            raise FormatError(f"of version {version!r:.20}; this modelpack knows {VERSION}")
        return value

    def _write(self, name: str, value: Any, *, keep: bool = False) -> None:
        path = self.path / name
        raw = json.dumps({"version": VERSION, "value": value}).encode()
        if keep:
            self._keep(path)
        write_atomically(path, raw, mode=0o600)

    def _keep(self, path: Path) -> None:
        """Give the present file a second name; losing the older one in a crash does no harm."""
        before = self.path / _BEFORE
        with mapped_errors(f"cannot write {before}"):
            before.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.link(path, before)

    def _set_aside(self, name: str, error: FormatError) -> None:
        path = self.path / name
        aside = next(
            (
                self.path / f"{name}.damaged-{number}"
                for number in range(_MAX_DAMAGED)
                if not (self.path / f"{name}.damaged-{number}").exists()
            ),
            self.path / f"{name}.damaged-{_MAX_DAMAGED - 1}",
        )
        message = f"{path} is damaged ({error}) and was set aside as {aside.name}"
        try:
            with mapped_errors(message):
                os.replace(path, aside)
                sync_directory(self.path)
        except ModelpackError as trouble:
            message = str(trouble)
        self._warn(message)

    def _warn(self, message: str) -> None:
        _logger.warning("%s", message)
        self.warnings.append(message)
