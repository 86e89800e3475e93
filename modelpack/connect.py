"""From a reference to the repository it names.

with open_repository("oci:./store:v1") as repository:
    print(repository.tags())
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modelpack.events import Observer, ignore
from modelpack.ratelimit import RateLimiter
from modelpack.reference import (
    LAYOUT_SCHEME,
    LayoutReference,
    Reference,
    RegistryReference,
    parse_reference,
)
from modelpack.storage import Repository
from modelpack.stores.layout import LayoutRepository

if TYPE_CHECKING:
    from modelpack.registry.options import ConnectionOptions


@contextmanager
def open_repository(
    reference: str | Reference,
    connection: "ConnectionOptions | None" = None,
    *,
    observer: Observer = ignore,
) -> Iterator[Repository]:
    """Open the repository that a reference names, and close it afterwards.

    Raises:
        UsageError: the text is not a reference.
    """
    parsed = parse_reference(reference) if isinstance(reference, str) else reference
    repository: Repository
    if isinstance(parsed, LayoutReference):
        limiter = RateLimiter(connection.limit_rate) if connection else None
        repository = LayoutRepository(parsed, limiter)
    else:
        repository = _open_registry(parsed, connection, observer)
    try:
        yield repository
    finally:
        repository.close()


def _open_registry(
    reference: RegistryReference, connection: "ConnectionOptions | None", observer: Observer
) -> Repository:
    # httpx is slow to import
    if connection is not None and connection.mirrors_of(reference.registry):
        from modelpack.registry.mirrors import MirroredRepository  # noqa: PLC0415

        return MirroredRepository(reference, connection, observer=observer)
    from modelpack.registry.repository import RegistryRepository  # noqa: PLC0415

    return RegistryRepository(reference, connection, observer=observer)


def names_directory(text: str) -> bool:
    """Tell whether text that may be a reference or a directory is a directory's.

    A directory that is there, and what begins with ``/``, ``./`` or ``../``; never ``oci:...``.
    """
    if text.startswith(LAYOUT_SCHEME):
        return False
    return text.startswith(("/", "./", "../")) or os.path.isdir(text)
