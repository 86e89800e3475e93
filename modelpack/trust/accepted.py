"""What was accepted under a name before, on disk: one small file per name.

Owns reading and writing the records that protect against an older version handed out again. Leaves
out what counts as older (``signing/history.py``). A name is a repository with a tag: another tag is
another model, and a digest is no name, since whoever gives one has chosen the version.

A record that is damaged is an error. To take it for an empty one would undo the protection; whoever
means that removes the file.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from modelpack.errors import FormatError
from modelpack.reference import LAYOUT_SCHEME, LayoutReference, Reference
from modelpack.signing import history
from modelpack.signing.history import Accepted
from modelpack.signing.patterns import canonical_name
from modelpack.stores.files import locked, mapped_errors, write_atomically


class Records:
    """The records below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, reference: Reference) -> tuple[Accepted, ...]:
        """Return what was accepted under the name, oldest first; nothing for a digest.

        Raises:
            FormatError: the record is damaged; the message holds its path.
            ModelpackError: it cannot be read.
        """
        path = self._path(reference)
        return () if path is None else _read(path)

    def add(self, reference: Reference, accepted: Accepted) -> None:
        """Record that a manifest was accepted; does nothing for a digest.

        Raises:
            FormatError: the record is damaged.
            ModelpackError, SpaceError: it cannot be written.
        """
        path = self._path(reference)
        if path is None:
            return
        with mapped_errors(f"cannot record in {self._directory} what was accepted"):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(path.with_suffix(".lock")):
                before: Sequence[Accepted] = _read(path)
                write_atomically(path, history.encode_history(history.record(before, accepted)))

    def _path(self, reference: Reference) -> Path | None:
        if reference.tag is None or reference.digest is not None:
            return None
        name = reference.repository_name
        if isinstance(reference, LayoutReference):
            name = f"{LAYOUT_SCHEME}{Path(reference.path).absolute()}"
        name = f"{canonical_name(name)}:{reference.tag}"
        return self._directory / f"{hashlib.sha256(name.encode()).hexdigest()}.json"


def _read(path: Path) -> tuple[Accepted, ...]:
    with mapped_errors(f"cannot read {path}"):
        try:
            with path.open("rb") as file:
                raw = file.read(history.MAX_HISTORY_BYTES + 1)
        except FileNotFoundError:
            return ()
    try:
        return history.parse_history(raw)
    except FormatError as error:
        raise FormatError(
            f"{path}: {error}; it says which versions were accepted before: restore it, or remove "
            "it to start anew"
        ) from error
