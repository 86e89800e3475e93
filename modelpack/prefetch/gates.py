"""The trust policy that every model must pass before it is visible, kept up to date.

Owns loading it and noticing that its files changed. A policy that cannot be read lets nothing
through: not knowing what is trusted is not trusting everything. Leaves out deciding
(``modelpack.trust``).

    gates = Gates(os.environ)
    gates.use(config)
    gate = gates.open()
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modelpack.errors import ModelpackError, PolicyError
from modelpack.manifest import Index, Manifest
from modelpack.prefetch.config import DaemonConfig
from modelpack.prefetch.nodes.resolving import connection_options
from modelpack.prefetch.performing import Asked
from modelpack.reference import Reference
from modelpack.trust.places import policy_path

if TYPE_CHECKING:
    from modelpack.trust.policies import LoadedPolicy


class Gates:
    """Opens a gate for each transfer; thread-safe once in use, since what is held is replaced."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Look for policies where ``environ`` says, if a configuration names none."""
        self._environ = environ
        self._config: DaemonConfig | None = None
        self._loaded: LoadedPolicy | None = None
        self._trouble: str | None = None
        self._stamps: object = None

    def load(self, config: DaemonConfig) -> "LoadedPolicy | None":
        """Return the policy that a configuration puts in force, None if there is none.

        Raises:
            NotFoundError, UsageError: it is not there, or is no policy.
        """
        path = policy_path(config.policy, self._environ)
        if path is None:
            return None
        from modelpack.trust.policies import load_policy  # noqa: PLC0415  # loads sigstore

        return load_policy(path)

    def use(self, config: DaemonConfig) -> str | None:
        """Take a configuration; return what is wrong with its policy, None if nothing is."""
        self._config = config
        try:
            self._loaded, self._trouble = self.load(config), None
        except ModelpackError as error:
            self._loaded, self._trouble = None, str(error)
        self._stamps = self._stamped(config)
        return self._trouble

    def refresh(self) -> bool:
        """Load the policy again if its files have changed; tell whether there is another now."""
        config, before = self._config, self._trouble
        if config is None:
            return False
        if before is not None:
            # Which files matter cannot be told; whether it can be read now can.
            return self.use(config) != before
        if self._stamped(config) == self._stamps:
            return False
        self.use(config)
        return True

    @property
    def trouble(self) -> str | None:
        """What is wrong with the policy in force, None if nothing is."""
        return self._trouble

    def open(self) -> Asked | None:
        """Return a gate for one transfer, None if there is no policy.

        Raises:
            PolicyError: the policy cannot be read, so that nothing is let through.
        """
        trouble, loaded, config = self._trouble, self._loaded, self._config
        if trouble is not None:
            raise PolicyError(f"the policy cannot be read, so nothing is let through: {trouble}")
        if loaded is None or config is None:
            return None
        return _Gate(loaded, config)

    def _stamped(self, config: DaemonConfig) -> object:
        """Return what changes when the policy in force or a key that it names does."""
        try:
            path = policy_path(config.policy, self._environ)
        except ModelpackError as error:
            return str(error)
        if path is None:
            return None
        files = [path]
        if self._loaded is not None:
            from modelpack.signing.verify import KeySigner  # noqa: PLC0415  # loaded by now

            base = path.absolute().parent
            signers = self._loaded.signers
            files += [base / one.name for one in signers if isinstance(one, KeySigner)]
            if self._loaded.policy.trust_config is not None:
                files.append(base / self._loaded.policy.trust_config)
        return [(str(file), _stamp_of(file)) for file in files]


class _Gate:
    """A trust gate that opens with how its reference is reached."""

    def __init__(self, loaded: "LoadedPolicy", config: DaemonConfig) -> None:
        self._loaded = loaded
        self._config = config
        self._gate: object = None

    def __call__(self, reference: Reference, manifest: Manifest | Index) -> None:
        from modelpack.trust.gate import TrustGate  # noqa: PLC0415  # loads sigstore

        connection = connection_options(self._config.network, reference)
        gate = TrustGate(self._loaded, connection)
        gate(reference, manifest)
        self._gate = gate

    def taken(self) -> None:
        """Record what was accepted, so that an older version is recognized later."""
        from modelpack.trust.gate import TrustGate  # noqa: PLC0415  # loaded by now

        if isinstance(self._gate, TrustGate):
            self._gate.taken()


def _stamp_of(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
