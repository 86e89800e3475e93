"""The rules of SPDX's AI and Dataset profiles, which its JSON schema does not check.

Owns which members and relationships each package needs (SPDX 3.0.1, "External properties
cardinality updates" of AIPackage and DatasetPackage, and both profiles' "Profile conformance").
Leaves out the rules that the schema has.

    >>> ai_gaps([{"type": "ai_AIPackage", "spdxId": "urn:x#model-1", "name": "tiny"}])[0]
    'tiny: releaseTime is missing'
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_AI_MEMBERS = (
    "releaseTime",
    "suppliedBy",
    "software_downloadLocation",
    "software_packageVersion",
    "software_primaryPurpose",
)
_DATASET_MEMBERS = (
    "builtTime",
    "originatedBy",
    "releaseTime",
    "software_downloadLocation",
    "software_primaryPurpose",
)
_LICENSES = ("hasConcludedLicense", "hasDeclaredLicense")

Elements = Sequence[Mapping[str, Any]]
"""The elements of a document's ``@graph``."""


def ai_gaps(elements: Elements) -> list[str]:
    """Return what every AI package lacks for the profile ``ai``, one line each; none if it holds."""
    return _gaps(elements, "ai_AIPackage", _AI_MEMBERS)


def dataset_gaps(elements: Elements) -> list[str]:
    """Return what every dataset lacks for the profile ``dataset``, one line each."""
    found = _gaps(elements, "dataset_DatasetPackage", _DATASET_MEMBERS)
    found += [
        f"{_name(each)}: originatedBy names {len(each['originatedBy'])}, not one"
        for each in elements
        if each.get("type") == "dataset_DatasetPackage" and len(each.get("originatedBy", ())) > 1
    ]
    return found


def _gaps(elements: Elements, kind: str, members: Sequence[str]) -> list[str]:
    found = []
    relations = Counter(
        (each.get("from"), each.get("relationshipType"))
        for each in elements
        if each.get("type") == "Relationship"
    )
    for package in elements:
        if package.get("type") != kind:
            continue
        found += [
            f"{_name(package)}: {member} is missing" for member in members if member not in package
        ]
        for relation in _LICENSES:
            count = relations[package["spdxId"], relation]
            if count != 1:
                found.append(f"{_name(package)}: {count} relationships {relation}, not one")
    return found


def _name(package: Mapping[str, Any]) -> str:
    return str(package.get("name") or package["spdxId"])
