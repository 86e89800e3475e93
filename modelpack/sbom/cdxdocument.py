"""Ask a CycloneDX document of whatever quality what it holds.

Owns reading: a member that is missing or of another type than it should be is an answer, never an
error. Leaves out what is asked (``finders.py``) and parsing JSON.

    >>> Document({"metadata": {"component": {"name": "tiny"}}}).text("name", of="nothing") is None
    True
"""

from collections.abc import Iterable
from typing import Any

from modelpack.sbom.cdxparts import PREFIX
from modelpack.sbom.subject import NO_ASSERTION


class Document:
    """A parsed CycloneDX document of whatever quality; every question has an answer."""

    def __init__(self, value: object) -> None:
        self.value = value

    def at(self, *path: str, of: object = ...) -> Any:
        """Return the member at a path, or None if anything on the way is not an object."""
        found = self.value if of is ... else of
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def text(self, *path: str, of: object = ...) -> str | None:
        """Return the text at a path, None if it is none, is empty or asserts nothing."""
        found = self.at(*path, of=of)
        return found if isinstance(found, str) and found not in {"", NO_ASSERTION} else None

    def items(self, *path: str, of: object = ...) -> list[dict[str, Any]]:
        """Return the objects of the list at a path."""
        found = self.at(*path, of=of)
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    def texts(self, items: Iterable[object], *path: str) -> list[str]:
        """Return the texts at a path of several objects, of those that have one."""
        return [text for item in items if (text := self.text(*path, of=item))]

    def properties(self, name: str, *, of: object) -> list[str]:
        """Return the values of modelpack's properties of a name, or of names such as ``name:x``."""
        wanted = PREFIX + name
        return [
            value
            for item in self.items("properties", of=of)
            if (value := self.text("value", of=item))
            and isinstance(item.get("name"), str)
            and (item["name"] == wanted or item["name"].startswith(wanted + ":"))
        ]

    @property
    def model(self) -> dict[str, Any]:
        """The component that the document is about."""
        found = self.at("metadata", "component")
        return found if isinstance(found, dict) else {}

    def components(self, *types: str) -> list[dict[str, Any]]:
        """Return the top-level components of some types."""
        return [item for item in self.items("components") if item.get("type") in types]

    @property
    def system(self) -> dict[str, Any]:
        """The component of the system that the model is for; empty if there is none."""
        found = [item for item in self.components("application") if item.get("bom-ref") == "system"]
        return found[0] if found else {}

    def links(self, *types: str, comment: str | None = None) -> list[str]:
        """Return the model's links of some types."""
        return [
            url
            for item in self.items("externalReferences", of=self.model)
            if item.get("type") in types
            and (comment is None or item.get("comment") == comment)
            and (url := self.text("url", of=item))
        ]
