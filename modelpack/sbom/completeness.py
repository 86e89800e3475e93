"""Hold an SBOM against the minimum elements of the G7, and say what is missing.

Owns the verdict on each element, and what a caller may require. Leaves out where a document holds
them (``elements.py``) and printing.

    report = assess(json.loads(raw))
    print(report.count("present"), report.lacking(required_elements(["models"])))
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from modelpack.errors import UsageError
from modelpack.sbom.cdxdocument import Document
from modelpack.sbom.elements import CLUSTERS, ELEMENTS, Element
from modelpack.sbom.finders import Evidence

Status = Literal["present", "missing", "unknown"]
STATUSES: tuple[Status, ...] = ("present", "missing", "unknown")
# Enough to recognise a value by; the document has the whole.
_MAX_DETAIL = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Assessed:
    """The verdict on one element."""

    element: Element
    status: Status
    """``present``: the document holds it, for every model or dataset it is asked of. ``missing``:
    nothing says it. ``unknown``: it is declared to be unknown, or cannot be inside the document."""
    detail: str
    """What is there, or what to do about it."""

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object."""
        return {
            "id": self.element.id,
            "cluster": self.element.cluster,
            "name": self.element.name,
            "status": self.status,
            "detail": self.detail,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Completeness:
    """The verdicts in the list's order."""

    assessed: tuple[Assessed, ...]

    def count(self, status: Status, cluster: str | None = None) -> int:
        """Count the elements with a status, of one cluster or of all."""
        return sum(
            each.status == status and cluster in {None, each.element.cluster}
            for each in self.assessed
        )

    def lacking(self, required: Collection[str]) -> list[Assessed]:
        """Return those of the required elements, by identifier, that are not present."""
        return [
            each
            for each in self.assessed
            if each.element.id in required and each.status != "present"
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "counts": {status: self.count(status) for status in STATUSES},
            "elements": [each.to_json() for each in self.assessed],
        }


def assess(document: object) -> Completeness:
    """Hold a parsed CycloneDX document, whatever it holds, against the minimum elements."""
    asked = Document(document)
    declared = frozenset(asked.properties("unknown", of=asked.at("metadata")))
    return Completeness(assessed=tuple(_assess(each, asked, declared) for each in ELEMENTS))


def _assess(element: Element, document: Document, declared: frozenset[str]) -> Assessed:
    status: Status = "missing"
    detail = element.source
    found = element.find(document) if element.find else None
    if isinstance(found, str):
        found = Evidence(complete=True, text=found)
    if found is not None and found.complete:
        status, detail = "present", found.text
    elif element.find is None:
        status = "unknown"
    elif element.id in declared:
        status, detail = "unknown", "declared unknown"
    elif found is not None:
        detail = f"{found.text}; {element.source}"
    elif element.cluster == "datasets" and not document.components("data"):
        detail = f"no dataset is named; {element.source}"
    return Assessed(element=element, status=status, detail=detail[:_MAX_DETAIL])


def required_elements(names: Iterable[str]) -> frozenset[str]:
    """Return the identifiers of the elements that are meant by names, identifiers and clusters.

    Raises:
        UsageError: one means no element.
    """
    return frozenset(identifier for name in names for identifier in _identifiers(name))


def _identifiers(required: str) -> list[str]:
    wanted = required.strip().casefold()
    found = [
        element.id
        for element in ELEMENTS
        if wanted in {element.id, element.name.casefold(), element.cluster}
        or wanted == CLUSTERS[element.cluster].casefold()
    ]
    if not found:
        raise UsageError(
            f"{required[:80]!a} is no minimum element; "
            f"name one such as model-license, or a cluster: {', '.join(CLUSTERS)}"
        )
    return found
