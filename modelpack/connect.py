"""From a reference to the repository it names.

with open_repository("oci:./store:v1") as repository:
    print(repository.tags())
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modelpack.events import Observer, ignore
from modelpack.ratelimit import RateLimiter
from modelpack.reference import LayoutReference, Reference, parse_reference
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
        from modelpack.registry.repository import (  # noqa: PLC0415 - httpx is slow to import
            RegistryRepository,
        )

        repository = RegistryRepository(parsed, connection, observer=observer)
    try:
        yield repository
    finally:
        repository.close()
