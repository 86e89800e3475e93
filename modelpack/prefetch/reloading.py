"""Which configuration is in force, and following its files.

Owns when files count as changed, and that a bad configuration leaves the former one in force, over a
restart too, with the reason in the status. What cannot change while a daemon runs (its store, where
it listens, its runtime) is refused the same way.

    configuration = Configuration(path, store, gates, environ=os.environ, now=time.time)
    config = configuration.start()
    newer = configuration.poll()
"""

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from modelpack.errors import ModelpackError, UsageError
from modelpack.prefetch.config import DaemonConfig
from modelpack.prefetch.configfile import read_config
from modelpack.prefetch.gates import Gates
from modelpack.prefetch.redaction import redact
from modelpack.prefetch.sources import DiskSource, KeptSource
from modelpack.prefetch.state import Store
from modelpack.prefetch.status import ConfigurationStatus

_logger = logging.getLogger(__name__)

# Finds the store in a file that is bad otherwise, so that the last good configuration is found.
_STORE = re.compile(r"^store:[ \t]*[\"']?(/[^\s\"'#]+)", re.MULTILINE)

# A bad configuration whose own files did not change is read again after so long.
_TRY_AGAIN = 15.0

_FIXED = {
    "store": "store",
    "listen": "listen",
    "control_socket": "controlSocket",
    "runtime": "runtime",
}
"""What needs a restart: the attribute, and its name in the file."""


def find_store(path: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the store that a configuration names, even if the rest of it is bad.

    Raises:
        UsageError, NotFoundError: it is bad, and names none.
    """
    try:
        return read_config(path, DiskSource(), environ).store
    except ModelpackError:
        try:
            documents = DiskSource().files(path)
        except ModelpackError:
            documents = []
        for _, raw in documents:
            found = _STORE.search(raw.decode(errors="replace"))
            if found:
                return Path(found[1])
        raise


class Configuration:
    """The configuration of one daemon, and what became of newer ones; for one thread."""

    def __init__(
        self,
        path: Path,
        store: Store,
        gates: Gates,
        *,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], float],
    ) -> None:
        """Prepare to read ``path``; ``now`` is the wall clock."""
        self._path = path.absolute()
        self._store = store
        self._gates = gates
        self._environ = environ
        self._now = now
        self._source = DiskSource()
        self._tried_at = 0.0
        self._config: DaemonConfig | None = None
        self._loaded_at = 0.0
        self._generation = 0
        self._error: str | None = None
        self.failed_reloads = 0

    @property
    def status(self) -> ConfigurationStatus:
        """What is in force, and why nothing newer is."""
        trouble = self._gates.trouble
        return ConfigurationStatus(
            path=str(self._path),
            loaded_at=self._loaded_at,
            generation=self._generation,
            error=self._error or (None if trouble is None else f"policy: {redact(trouble)}"),
        )

    def start(self) -> DaemonConfig:
        """Return the configuration to begin with: the files', or else the last good one.

        Raises:
            UsageError, NotFoundError: the files are bad, and there is no good one before.
        """
        try:
            config = self._read()
        except ModelpackError as error:
            before = self._last_good()
            if before is None:
                raise
            self._refuse(error)
            self._take(before)
            return before
        self._accept(config)
        return config

    def poll(self) -> DaemonConfig | None:
        """Return a newer configuration that has come into force, None if none has."""
        # What is wrong may be mended elsewhere: a policy's key, a time zone of the machine.
        waited = self._error is not None and abs(self._now() - self._tried_at) >= _TRY_AGAIN
        if waited or self._source.has_changed():
            return self.reload()
        if self._gates.refresh():
            _logger.info("the policy has changed")
            return self._config
        return None

    def reload(self) -> DaemonConfig | None:
        """Read the files whether they changed or not; see ``poll``."""
        self._tried_at = self._now()
        try:
            config = self._read()
            self._check_fixed(config)
        except ModelpackError as error:
            self._refuse(error)
            return None
        self._accept(config)
        return config

    def _read(self) -> DaemonConfig:
        """Read the files, twice if they change meanwhile: a half-swapped set is none."""
        for _ in range(3):
            source = DiskSource()
            self._source = source
            config = read_config(self._path, source, self._environ)
            self._gates.load(config)
            if not source.has_changed():
                return config
        raise UsageError(f"{self._path} keeps changing while it is read")

    def _last_good(self) -> DaemonConfig | None:
        kept = self._store.load_configuration()
        if kept is None or kept.get("path") != str(self._path):
            return None
        try:
            config = read_config(self._path, KeptSource(kept), self._environ)
        except ModelpackError as error:
            _logger.warning("the configuration that was kept cannot be read: %s", error)
            return None
        return config

    def _check_fixed(self, config: DaemonConfig) -> None:
        for attribute, name in _FIXED.items():
            if getattr(config, attribute) != getattr(self._config, attribute):
                raise UsageError(
                    f"{self._path}: {name} cannot change while the daemon runs; restart it"
                )

    def _accept(self, config: DaemonConfig) -> None:
        if self._error is not None:
            _logger.info("the configuration is good again")
        self._error = None
        self._take(config)
        try:
            self._store.save_configuration({"path": str(self._path), **self._source.to_json()})
        except (ModelpackError, UnicodeDecodeError) as error:
            _logger.warning("a restart may not find this configuration: %s", error)

    def _take(self, config: DaemonConfig) -> None:
        trouble = self._gates.use(config)
        if trouble is not None:
            _logger.error("the policy cannot be read, so nothing is let through: %s", trouble)
        self._config = config
        self._generation += 1
        self._loaded_at = self._now()

    def _refuse(self, error: ModelpackError) -> None:
        said = redact(str(error))
        if said == self._error:
            return
        self._error = said
        self.failed_reloads += 1
        _logger.error("the configuration is bad, the former one stays in force: %s", error)
