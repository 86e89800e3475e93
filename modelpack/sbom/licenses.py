"""Name licences as SPDX does where that is exact, and as the model does where it is not.

Owns: the mapping from the identifiers of model cards (Hugging Face's list) and GGUF metadata to
SPDX identifiers, and recognising SPDX expressions. Leaves out: what a licence allows.

    >>> licenses_of(["apache-2.0"])
    (License(id='Apache-2.0', expression=None, name=None, url=None),)
    >>> licenses_of(["mit OR Apache-2.0"])[0].expression
    'MIT OR Apache-2.0'
    >>> licenses_of(["llama3.1"])[0].name
    'llama3.1'
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from modelpack.sbom.texts import iri_reference

_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9.+:-]+)\s*")
_CUSTOM = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+\Z")
# An expression nests as deep as it has parentheses; nothing real has a handful.
_MAX_TOKENS = 64

# The identifiers of SPDX's licence list that are seen on models, data and the code beside them. The
# list has some 800 and grows; a validator refuses what its own edition lacks, so these are old ones.
_IDS = """
0BSD AFL-3.0 AGPL-3.0 AGPL-3.0-only AGPL-3.0-or-later Apache-1.1 Apache-2.0 Artistic-2.0
BlueOak-1.0.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause BSL-1.0 BUSL-1.1 C-UDA-1.0
CC-BY-1.0 CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-4.0 CC-BY-NC-1.0 CC-BY-NC-2.0 CC-BY-NC-2.5
CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-ND-2.0 CC-BY-NC-ND-2.5 CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0
CC-BY-NC-SA-2.0 CC-BY-NC-SA-2.5 CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0 CC-BY-ND-2.0 CC-BY-ND-2.5
CC-BY-ND-3.0 CC-BY-ND-4.0 CC-BY-SA-2.0 CC-BY-SA-2.5 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0
CDLA-Permissive-1.0 CDLA-Permissive-2.0 CDLA-Sharing-1.0 ECL-2.0 EPL-1.0 EPL-2.0 etalab-2.0
EUPL-1.1 EUPL-1.2 GFDL-1.3-only GFDL-1.3-or-later GPL-2.0 GPL-2.0-only GPL-2.0-or-later GPL-3.0
GPL-3.0-only GPL-3.0-or-later ISC LGPL-2.1 LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0 LGPL-3.0-only
LGPL-3.0-or-later LGPLLR LPPL-1.3c MIT MIT-0 MPL-2.0 MS-PL NCSA ODbL-1.0 ODC-By-1.0 OFL-1.1
OSL-3.0 PDDL-1.0 PostgreSQL Python-2.0 Unlicense WTFPL Zlib
"""
_BY_FOLDED = {each.lower(): each for each in _IDS.split()}
# The one identifier of Hugging Face's list that means an SPDX licence under another spelling.
# "odc-by", "odbl", "pddl" and "c-uda" name no version, "gpl", "cc", "openrail" a family: not exact.
_BY_FOLDED["lgpl-lr"] = "LGPLLR"
_EXCEPTIONS = {
    each.lower(): each
    for each in ("Classpath-exception-2.0", "GCC-exception-3.1", "LLVM-exception")
}
# Hugging Face's words for "it is not said here" and "see license_name".
_UNKNOWN = frozenset({"unknown", "noassertion"})
_OTHER = "other"


@dataclass(frozen=True, kw_only=True, slots=True)
class License:
    """One licence as it was declared; exactly one of ``id``, ``expression`` and ``name`` is set."""

    id: str | None = None
    """An identifier of SPDX's licence list."""
    expression: str | None = None
    """An SPDX expression of more than one identifier, or of a ``LicenseRef-``."""
    name: str | None = None
    """What the model calls it, where SPDX has no exact name."""
    url: str | None = None

    @property
    def label(self) -> str:
        """What to call it in a line of text."""
        return self.id or self.expression or self.name or ""


def licenses_of(
    stated: Iterable[str], *, other_name: str | None = None, other_link: str | None = None
) -> tuple[License, ...]:
    """Return the licences that a model states, each once, in order.

    ``other_name`` and ``other_link`` are the card's ``license_name`` and ``license_link``, which
    describe the licence ``other``. The word ``unknown`` is no licence and is left out.
    """
    link = iri_reference(other_link) if other_link else None
    found: dict[License, None] = {}
    texts = list(stated)
    if not texts and other_name:
        texts = [_OTHER]
    for text in texts:
        if text.lower() in _UNKNOWN:
            continue
        if text.lower() == _OTHER:
            found[_named(other_name or _OTHER, link)] = None
        else:
            found[_license(text)] = None
    return tuple(found)


def says_unknown(stated: Iterable[str]) -> bool:
    """Tell whether a model states that its licence is unknown."""
    return any(text.lower() in _UNKNOWN for text in stated)


def _named(name: str, url: str | None) -> License:
    known = _license(name)
    return License(id=known.id, expression=known.expression, name=known.name, url=url)


def _license(text: str) -> License:
    identifier = _BY_FOLDED.get(text.lower())
    if identifier is not None:
        return License(id=identifier)
    expression = _expression(text)
    return License(expression=expression) if expression is not None else License(name=text)


def _expression(text: str) -> str | None:
    """Return the canonical spelling of an SPDX expression (SPDX 3.0.1, annex B), or None."""
    tokens = list(_tokens(text))
    if not 1 <= len(tokens) <= _MAX_TOKENS:
        return None
    parser = _Parser(tokens)
    return " ".join(parser.out) if parser.alternatives() and not parser.rest else None


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            yield ""  # which no rule accepts
            return
        yield match[1]
        position = match.end()


class _Parser:
    """Recursive descent over the tokens; ``out`` is the expression in its canonical spelling."""

    def __init__(self, tokens: list[str]) -> None:
        self.rest = tokens
        self.out: list[str] = []

    def alternatives(self) -> bool:
        return self._operands(self._combination, "OR")

    def _combination(self) -> bool:
        return self._operands(self._operand, "AND")

    def _operands(self, operand: Callable[[], bool], operator: str) -> bool:
        if not operand():
            return False
        while self._take(operator):
            if not operand():
                return False
        return True

    def _operand(self) -> bool:
        if self._take("("):
            return self.alternatives() and self._take(")")
        if not self.rest:
            return False
        name = self.rest[0]
        plus = "+" if name.endswith("+") else ""
        identifier = _BY_FOLDED.get(name.removesuffix("+").lower())
        if identifier is None:
            if not _CUSTOM.match(name):
                return False
            identifier, plus = name, ""
        self.rest = self.rest[1:]
        self.out.append(identifier + plus)
        if self._take("WITH"):
            exception = _EXCEPTIONS.get(self.rest[0].lower()) if self.rest else None
            if exception is None:
                return False
            self.rest = self.rest[1:]
            self.out.append(exception)
        return True

    def _take(self, token: str) -> bool:
        if not self.rest or self.rest[0].upper() != token:
            return False
        self.rest = self.rest[1:]
        self.out.append(token)
        return True
