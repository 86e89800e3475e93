"""The library's front door: what ``import modelpack`` offers.

    import modelpack

    pushed = modelpack.push("model", "localhost:5000/team/model:v1")
    pulled = modelpack.pull("localhost:5000/team/model:v1", "copy", observer=print)
    assert modelpack.verify("copy").ok

Owns plain-argument wrappers around ``pushing``, ``pulling``, ``verifying``, ``inspecting``,
``diffing`` and ``copying``, which hold the contracts. Leaves out everything else. Each loads what it
wraps when it is called: loading all of them takes longer than a pull of what is there already.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from modelpack.connect import names_directory, open_repository
from modelpack.descriptor import DEFAULT_PLATFORM
from modelpack.events import Observer, ignore, one_at_a_time
from modelpack.reference import DEFAULT_TAG, Reference, parse_reference
from modelpack.selection import Selection

if TYPE_CHECKING:
    from modelpack.copying import CopyResult
    from modelpack.diffing import Difference, Side
    from modelpack.inspecting import Inspection
    from modelpack.plainpull import Judge
    from modelpack.pulling import Gate, PullResult
    from modelpack.pushing import PushResult
    from modelpack.registry.options import ConnectionOptions
    from modelpack.sbom.supplement import Supplement
    from modelpack.verifying import DirectoryReport, ReferenceReport

PathLike = str | os.PathLike[str]


def push(
    directory: PathLike,
    reference: str | Reference,
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    prefix: str = "",
    annotations: Mapping[str, str] | None = None,
    companion: bool = True,
    platform: str = DEFAULT_PLATFORM,
    use_cache: bool = True,
    supplement: "Supplement | None" = None,
    connection: "ConnectionOptions | None" = None,
    observer: Observer = ignore,
) -> "PushResult":
    """Package a model directory and store it at a reference; see ``modelpack.pushing.push``."""
    from modelpack import pushing

    options = pushing.PushOptions(
        selection=Selection(include=tuple(include), exclude=tuple(exclude)),
        prefix=prefix,
        annotations=annotations or {},
        companion=companion,
        platform=platform,
        use_cache=use_cache,
        supplement=supplement,
        max_connections=connection.max_connections if connection else None,
    )
    observer = one_at_a_time(observer)
    with open_repository(reference, connection, observer=observer) as repository:
        return pushing.push(Path(directory), repository, options, observer=observer)


def pull(
    reference: str | Reference,
    destination: PathLike,
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    seeds: Iterable[PathLike] = (),
    verify: str = "chunks",
    force: bool = False,
    page_cache: bool | None = True,
    gate: "Gate | None" = None,
    judge: "Judge | None" = None,
    connection: "ConnectionOptions | None" = None,
    observer: Observer = ignore,
) -> "PullResult":
    """Bring a directory to the state of an artifact; see ``modelpack.pulling.pull``."""
    from modelpack import pulling

    options = pulling.PullOptions(
        selection=Selection(include=tuple(include), exclude=tuple(exclude)),
        seeds=tuple(Path(seed) for seed in seeds),
        verify=verify,
        force=force,
        page_cache=page_cache,
        max_connections=connection.max_connections if connection else None,
        limit_rate=connection.limit_rate if connection else None,
    )
    observer = one_at_a_time(observer)
    with open_repository(reference, connection, observer=observer) as repository:
        return pulling.pull(
            repository, Path(destination), options, gate=gate, judge=judge, observer=observer
        )


def verify(directory: PathLike, *, observer: Observer = ignore) -> "DirectoryReport":
    """Hash a pulled directory or mounted volume against its own index; offline."""
    from modelpack import verifying

    return verifying.verify_directory(Path(directory), observer=observer)


def verify_reference(
    reference: str | Reference,
    *,
    full: bool = False,
    connection: "ConnectionOptions | None" = None,
    observer: Observer = ignore,
) -> "ReferenceReport":
    """Check what is at a reference; with ``full``, by fetching every byte."""
    from modelpack import verifying

    observer = one_at_a_time(observer)
    with open_repository(reference, connection, observer=observer) as repository:
        return verifying.verify_reference(repository, full=full, observer=observer)


def inspect(
    subject: PathLike | Reference,
    *,
    connection: "ConnectionOptions | None" = None,
    observer: Observer = ignore,
) -> "Inspection":
    """Say what is at a reference, or in a pulled directory; see ``modelpack.inspecting``.

    A path object is a directory, and so is text if ``connect.names_directory`` says so.
    """
    from modelpack.inspecting import (
        inspect_directory,
        inspect_reference,
    )

    place = _as_directory(subject)
    if place is not None:
        return inspect_directory(place)
    with open_repository(_as_reference(subject), connection, observer=observer) as repository:
        return inspect_reference(repository, observer=observer)


def diff(
    a: PathLike | Reference,
    b: PathLike | Reference,
    *,
    connection: "ConnectionOptions | None" = None,
    observer: Observer = ignore,
) -> "Difference":
    """Compare two versions, and say what a pull of ``b`` moves where ``a`` is; see ``diffing``.

    Each is a reference, a pulled directory or any model directory, told apart as by ``inspect``.
    ``observer`` hears of the hashing that a directory without an index takes.
    """
    from modelpack import diffing

    observer = one_at_a_time(observer)
    with _side(a, connection, observer) as one, _side(b, connection, observer) as other:
        return diffing.diff(one, other)


@contextmanager
def _side(
    subject: PathLike | Reference, connection: "ConnectionOptions | None", observer: Observer
) -> "Iterator[Side]":
    from modelpack.diffing import directory_side, reference_side

    place = _as_directory(subject)
    if place is not None:
        with directory_side(place, observer=observer) as side:
            yield side
    else:
        with open_repository(_as_reference(subject), connection, observer=observer) as repository:
            yield reference_side(repository)


def _as_directory(subject: PathLike | Reference) -> Path | None:
    if isinstance(subject, str):
        return Path(subject) if names_directory(subject) else None
    return Path(subject) if isinstance(subject, os.PathLike) else None


def _as_reference(subject: PathLike | Reference) -> str | Reference:
    assert not isinstance(subject, os.PathLike)
    return subject


def copy(
    source: str | Reference,
    target: str | Reference,
    *,
    with_referrers: bool = True,
    source_connection: "ConnectionOptions | None" = None,
    target_connection: "ConnectionOptions | None" = None,
    observer: Observer = ignore,
) -> "CopyResult":
    """Copy an artifact, its companion and its referrers to another reference."""
    from modelpack import copying

    origin_name = parse_reference(source) if isinstance(source, str) else source
    # A source that is named by digest alone may stay without a tag at the target.
    tag = DEFAULT_TAG if origin_name.tag else None
    parsed = parse_reference(target, default_tag=tag) if isinstance(target, str) else target
    observer = one_at_a_time(observer)
    with (
        open_repository(source, source_connection, observer=observer) as origin,
        open_repository(parsed, target_connection, observer=observer) as destination,
    ):
        return copying.copy_artifact(
            origin, destination, with_referrers=with_referrers, observer=observer
        )


def tags(reference: str | Reference, *, connection: "ConnectionOptions | None" = None) -> list[str]:
    """Return all tags of a repository, sorted."""
    parsed = (
        parse_reference(reference, default_tag=None) if isinstance(reference, str) else reference
    )
    with open_repository(parsed, connection) as repository:
        return repository.tags()
