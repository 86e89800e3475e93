"""A node's labels, and selectors over them, with the meaning they have in Kubernetes.

Owns matching and the form of the file that the downward API writes. Leaves out where the file is.

    >>> gpu = Selector(labels={"gpu": "h100"}, expressions=(Expression(key="zone", operator="Exists"),))
    >>> gpu.matches({"gpu": "h100", "zone": "a"}), gpu.matches({"gpu": "h100"})
    (True, False)
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from modelpack.errors import UsageError

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")

# Kubernetes: an optional DNS prefix of at most 253 characters, a name of at most 63.
KEY_PATTERN = (
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
_KEY = re.compile(KEY_PATTERN.removesuffix("$") + r"\Z")
_VALUE = re.compile(VALUE_PATTERN.removesuffix("$") + r"\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Expression:
    """One condition on one label."""

    key: str
    operator: str
    """One of ``OPERATORS``."""
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels meet it; ``NotIn`` is met by an absent label, too."""
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        within = labels.get(self.key) in self.values
        return within if self.operator == "In" else not within


@dataclass(frozen=True, kw_only=True, slots=True)
class Selector:
    """Which nodes something is for; an empty selector takes all of them."""

    labels: Mapping[str, str] = field(default_factory=dict)
    expressions: tuple[Expression, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels meet all conditions."""
        return all(labels.get(key) == value for key, value in self.labels.items()) and all(
            expression.matches(labels) for expression in self.expressions
        )


def check_key(key: str) -> str:
    """Return a label's key if it is one; raise UsageError if not."""
    if not _KEY.match(key):
        raise UsageError(f"{key!r:.80} is not a label's key, such as example.com/gpu")
    return key


def check_value(value: object) -> str:
    """Return a label's value if it is one; raise UsageError if not."""
    if not isinstance(value, str):
        raise UsageError(f"{value!r:.40} is not a text; quote it")
    if not _VALUE.match(value):
        raise UsageError(
            f"{value!r:.80} is not a label's value: at most 63 letters, digits, '-', '_', '.'"
        )
    return value


def parse_labels_file(raw: bytes, what: str) -> dict[str, str]:
    r"""Return the labels in a file of the downward API: lines of ``key="value"``.

    >>> parse_labels_file(b'zone="a"\ngpu="h100"\n', "labels")
    {'zone': 'a', 'gpu': 'h100'}

    Raises:
        UsageError: a line is not such a one.
    """
    labels = {}
    try:
        lines = raw.decode().splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8 text") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                key, value = _parse_line(line)
            except (UsageError, ValueError) as error:
                raise UsageError(f"{what}: line {number}: {error}") from error
            labels[key] = value
    return labels


def _parse_line(line: str) -> tuple[str, str]:
    key, equals, quoted = line.partition("=")
    if not equals:
        raise UsageError(f'{line!r:.80} is not key="value"')
    value = json.loads(quoted) if quoted.startswith('"') else quoted
    return check_key(key.strip()), check_value(value)
