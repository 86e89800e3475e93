"""What went wrong, as a kind of a small fixed set, and when to try again.

Owns the kinds, which metrics and status use as labels, and the back-off. Randomness is an argument.

    >>> kind_of(SpaceError("full"))
    'space'
    >>> round(delay(1, first=10, longest=60, jitter=1.0)), round(delay(9, first=10, longest=60, jitter=0))
    (10, 30)
"""

from modelpack.errors import (
    AuthError,
    FormatError,
    IntegrityError,
    ModelpackError,
    NetworkError,
    NotFoundError,
    PolicyError,
    SpaceError,
    UsageError,
)

_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (NotFoundError, "not_found"),
    (AuthError, "auth"),
    (PolicyError, "policy"),
    (SpaceError, "space"),
    (NetworkError, "network"),
    (FormatError, "format"),
    (IntegrityError, "integrity"),
    (UsageError, "usage"),
    (ModelpackError, "other"),
)
DEFECT = "defect"
"""An exception that is a fault in modelpack."""
KINDS = (*(kind for _, kind in _KINDS), DEFECT)
# What another try soon will not change; it is made all the same, as late as any.
_STUBBORN = frozenset({"auth", "policy", "format", "usage", "not_found", DEFECT})
_STUBBORN_FACTOR = 6.0
# Beyond that many doublings every configured longest delay is reached.
_MAX_DOUBLINGS = 30


def kind_of(error: Exception) -> str:
    """Return the kind of an error."""
    return next((kind for of, kind in _KINDS if isinstance(error, of)), DEFECT)


def delay(
    attempts: int, *, first: float, longest: float, jitter: float, kind: str = "network"
) -> float:
    """Return how many seconds to wait after so many failed tries in a row.

    ``jitter`` from 0 to 1 takes off up to half, so that a fleet that failed together does not
    come back together.
    """
    begin = first * (_STUBBORN_FACTOR if kind in _STUBBORN else 1.0)
    full = min(longest, begin * 2.0 ** min(attempts - 1, _MAX_DOUBLINGS))
    return full * (0.5 + 0.5 * jitter)
