"""Choosing files by ``--include`` and ``--exclude`` patterns.

Owns the matching rule; pure. A pattern without '/' is compared with every name on a path, one with
'/' with the path from its start (a '/' in front does only that, one at the end nothing); ``*`` and
``?`` stop at '/', ``**`` does not, and a pattern that names a directory takes everything below it.

    >>> Selection(include=("*.safetensors",)).takes("weights/a.safetensors")
    True
    >>> Selection(exclude=("original",)).takes("original/consolidated.00.pth")
    False
"""

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which paths to take: those that match an include (or all), minus the excluded."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        """Whether no pattern was given."""
        return not (self.include or self.exclude)

    def takes(self, path: str) -> bool:
        """Tell whether ``path`` is chosen."""
        if self.include and not any(_matches(pattern, path) for pattern in self.include):
            return False
        return not any(_matches(pattern, path) for pattern in self.exclude)


def _matches(pattern: str, path: str) -> bool:
    directory = pattern.rstrip("/")
    candidates = [path, *_ancestors(path)] if "/" in directory else path.split("/")
    expression = _compile(directory.lstrip("/"))
    return any(expression.fullmatch(candidate) for candidate in candidates)


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


@lru_cache(maxsize=256)
def _compile(pattern: str) -> re.Pattern[str]:
    out = ""
    position = 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            out += "(?:.*/)?"
            position += 3
        elif pattern.startswith("**", position):
            out += ".*"
            position += 2
        elif pattern[position] == "*":
            out += "[^/]*"
            position += 1
        elif pattern[position] == "?":
            out += "[^/]"
            position += 1
        else:
            out += re.escape(pattern[position])
            position += 1
    return re.compile(out, re.DOTALL)
