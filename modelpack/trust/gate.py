"""The gate that a pull or a copy asks before anything of a model is fetched.

Owns asking for one decision at the right moments and recording what was taken. Leaves out deciding
(``checking.py``) and moving bytes (``pulling.py``, ``copying.py``).

    gate = TrustGate(loaded, connection)
    result = modelpack.pull(reference, destination, gate=gate, judge=gate.judge)
    gate.taken()
"""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from modelpack.cache import Cache
from modelpack.connect import open_repository
from modelpack.errors import ModelpackError, PolicyError, UsageError
from modelpack.events import Observer, Warned, ignore
from modelpack.manifest import Index, Manifest
from modelpack.reference import Reference, parse_reference
from modelpack.selection import Selection
from modelpack.signing.policy import evaluate_content, signers_of
from modelpack.storage import Repository
from modelpack.trust.accepted import Records
from modelpack.trust.checking import Decision, check
from modelpack.trust.content import judge_files
from modelpack.trust.places import records_directory
from modelpack.trust.policies import LoadedPolicy

if TYPE_CHECKING:
    from modelpack.registry.options import ConnectionOptions


class TrustGate:
    """A policy as ``pulling.Gate``; for one pull or copy."""

    def __init__(
        self,
        loaded: LoadedPolicy,
        connection: "ConnectionOptions | None" = None,
        *,
        selection: Selection | None = None,
        observer: Observer = ignore,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Prepare; ``connection`` is how to reach the repository where signatures lie."""
        self._loaded = loaded
        self._connection = connection
        self._selection = selection
        self._observer = observer
        self._records = Records(records_directory(environ))
        self.decision: Decision | None = None
        """What was decided, once the gate was asked."""

    def decide(
        self, reference: Reference, manifest: Manifest | Index, *, now: datetime | None = None
    ) -> Decision:
        """Return the decision about a manifest; raises as ``checking.check``."""
        with open_repository(reference, self._connection, observer=self._observer) as repository:
            return self._decide(repository, manifest, now)

    @property
    def asks_for_signers(self) -> bool:
        """Whether the rule that decided trusts anybody in particular; True before a decision."""
        rule = self.decision.rule if self.decision else None
        return rule is None or bool(signers_of(rule))

    def look(self, reference: str | Reference) -> Decision:
        """Return the decision about what a reference names now.

        An index is decided about, too: images have them, and are signed.

        Raises:
            NotFoundError: it names nothing.
            UsageError: it is not a reference, or has neither tag nor digest.
        """
        parsed = parse_reference(reference) if isinstance(reference, str) else reference
        name = parsed.digest or parsed.tag
        if name is None:
            raise UsageError(f"{parsed} has neither tag nor digest")
        with open_repository(parsed, self._connection, observer=self._observer) as repository:
            return self._decide(repository, repository.fetch_manifest(name), None)

    def __call__(self, reference: Reference, manifest: Manifest | Index) -> None:
        """Let a manifest through, or not.

        Raises:
            PolicyError: the policy refuses it.
        """
        self.decide(reference, manifest).require()

    def judge(self, files: Mapping[str, Path]) -> None:
        """Let the files of an artifact without index through, which the gate could not look into.

        Raises:
            PolicyError: the policy refuses what they hold.
        """
        if self.decision is None or self.decision.rule is None:
            raise PolicyError("files are judged after their manifest, which was not")
        verdicts = evaluate_content(self.decision.rule, judge_files(files))
        verdicts.require(f"{self.decision.reference}@{self.decision.digest}")

    def _decide(
        self, repository: Repository, manifest: Manifest | Index, now: datetime | None
    ) -> Decision:
        self.decision = check(
            repository,
            manifest,
            self._loaded,
            records=self._records,
            selection=self._selection,
            cache=Cache("findings"),
            now=now,
        )
        return self.decision

    def taken(self) -> None:
        """Record that what was decided on has been taken; a record that fails is a warning.

        The model is here by then, verified and accepted. Refusing it now would not undo that.
        """
        decision = self.decision
        if decision is None or decision.accepted is None or decision.rule is None:
            return
        if decision.rule.freshness.rollback != "refuse":
            return
        try:
            self._records.add(decision.reference, decision.accepted)
        except ModelpackError as error:
            self._observer(
                Warned(message=f"{error}; an older version will not be recognized next time")
            )
