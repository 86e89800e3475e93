"""Small parts of CycloneDX documents that several components have.

Owns parties, licences and properties, and leaving out what is not known. Leaves out components.

    >>> known(name="a", version=None, properties=properties([("precision", "bf16")]))
    {'name': 'a', 'properties': [{'name': 'modelpack:precision', 'value': 'bf16'}]}
"""

from collections.abc import Iterable, Sequence
from typing import Any

from modelpack.sbom.licenses import License, licenses_of
from modelpack.sbom.supplement import Party

PREFIX = "modelpack:"
"""Before the names of properties that CycloneDX has no member for."""


def known(**members: Any) -> dict[str, Any]:
    """Return an object of the members that are not None."""
    return {name: value for name, value in members.items() if value is not None}


def properties(pairs: Iterable[tuple[str, str | None]]) -> list[dict[str, str]] | None:
    """Return the properties that have a value, under names of our own; None if there are none."""
    return [
        {"name": PREFIX + name, "value": value} for name, value in pairs if value is not None
    ] or None


def organization(party: Party | None) -> dict[str, Any] | None:
    """Return an organizationalEntity; a person becomes the contact of one without a name."""
    if party is None:
        return None
    if party.person:
        return known(url=_urls(party), contact=[person(party)])
    contact = [{"email": party.email}] if party.email else None
    return known(name=party.name, url=_urls(party), contact=contact)


def producer(party: Party | None) -> dict[str, Any]:
    """Return the members that say who made a thing: its manufacturer, or its authors."""
    if party is None:
        return {}
    return {"authors": [person(party)]} if party.person else {"manufacturer": organization(party)}


def person(party: Party) -> dict[str, Any]:
    """Return an organizationalContact."""
    return known(name=party.name, email=party.email)


def license_choice(stated: Sequence[str] | Sequence[License]) -> list[dict[str, Any]] | None:
    """Return a licenseChoice for licences, as texts or values; None if there are none.

    One expression stands alone, as the schema wants it; beside other licences it is a name.
    """
    licenses = [each for each in stated if isinstance(each, License)]
    licenses += licenses_of(each for each in stated if isinstance(each, str))
    if len(licenses) == 1 and licenses[0].expression:
        return [{"expression": licenses[0].expression, "acknowledgement": "declared"}]
    return [{"license": _license(each)} for each in licenses] or None


def _license(license_: License) -> dict[str, str]:
    called = {"id": license_.id} if license_.id else {"name": license_.label}
    return known(**called, acknowledgement="declared", url=license_.url)


def _urls(party: Party) -> list[str] | None:
    return [party.url] if party.url else None
