"""Find in a CycloneDX document what the minimum elements ask for.

Owns one function for each kind of question. Leaves out the list of elements (``elements.py``).

    of_model("version")(Document(value))
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from modelpack.filekinds import file_kind
from modelpack.sbom.cdxdocument import Document
from modelpack.sbom.modelcomponent import SECURITY_METRIC


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a document holds of an element; not complete when some component lacks it."""

    complete: bool
    text: str


Find = Callable[[Document], Evidence | str | None]
"""Returns what a document holds of an element; a text is complete evidence, None is none."""


def joined(texts: Iterable[str]) -> str | None:
    """Return texts as one, or None if there are none."""
    return ", ".join(texts) or None


def at(*path: str) -> Find:
    """Find the text or the number at a path of the document."""

    def find(document: Document) -> str | None:
        value = document.at(*path)
        return str(value) if type(value) is int else document.text(*path)

    return find


def of_model(*path: str) -> Find:
    """Find a text of the model's component."""
    return at("metadata", "component", *path)


def of_system(*path: str) -> Find:
    """Find a text of the system's component."""
    return lambda document: document.text(*path, of=document.system)


def property_of(name: str, *, of: str) -> Find:
    """Find properties of the ``model`` or the ``system``."""

    def find(document: Document) -> str | None:
        inside = document.system if of == "system" else document.model
        return joined(document.properties(name, of=inside))

    return find


def party(*holders: str, of: str) -> Find:
    """Find the names of organizations and people at some members of ``system`` or of a path."""

    def find(document: Document) -> str | None:
        inside = document.system if of == "system" else document.at(*of.split("."))
        found: list[object] = []
        for holder in holders:
            held = document.at(holder, of=inside)
            found += held if isinstance(held, list) else [held]
        contacts = [contact for each in found for contact in document.items("contact", of=each)]
        return joined(document.texts([*found, *contacts], "name"))

    return find


def tool(member: str) -> Find:
    """Find a text of the tools that made the document, in either form that CycloneDX has."""

    def find(document: Document) -> str | None:
        tools = document.items("metadata", "tools", "components")
        return joined(document.texts(tools or document.items("metadata", "tools"), member))

    return find


def context(document: Document) -> str | None:
    """Find the phases of the lifecycle that the document speaks of."""
    return joined(document.texts(document.items("metadata", "lifecycles"), "phase"))


def relations(document: Document) -> str | None:
    """Count what needs something, and what the model was made from."""
    found = [each for each in document.items("dependencies") if document.at("dependsOn", of=each)]
    found += document.items("pedigree", "ancestors", of=document.model)
    return f"{len(found)} relations" if found else None


def components(document: Document) -> str | None:
    """Count the parts of a system; a model alone is a part, not a system."""
    return f"{len(document.items('components'))} components" if document.system else None


def system_formats(document: Document) -> str | None:
    """Find what goes into a system and what comes out."""
    found = [joined(document.properties(name, of=document.system)) for name in ("input", "output")]
    return f"{found[0]} to {found[1]}" if all(found) else None


def formats(document: Document) -> str | None:
    """Find what goes into a model and what comes out."""
    card = document.at("modelCard", "modelParameters", of=document.model)
    found = [
        joined(document.texts(document.items(name, of=card), "format"))
        for name in ("inputs", "outputs")
    ]
    return f"{found[0]} to {found[1]}" if all(found) else None


def hashes(member: str) -> Find:
    """Find the hashes of the files with weights, by their ``alg`` or ``content``."""

    def find(document: Document) -> Evidence | None:
        files = _weights(document)
        hashed = [each for each in files if document.items("hashes", of=each)]
        found = {
            text
            for each in hashed
            for text in document.texts(document.items("hashes", of=each), member)
        }
        if not found:
            return None
        text = ", ".join(sorted(found)) if member == "alg" else f"of {len(hashed)} files"
        return Evidence(complete=len(hashed) == len(files), text=text)

    return find


def _weights(document: Document) -> list[dict[str, Any]]:
    """Return the files with weights; all files if none is named as one."""
    files = document.components("file")
    weights = [
        each for each in files if file_kind(document.text("name", of=each) or "") == "weight"
    ]
    return weights or files


def identifiers(component: dict[str, Any], document: Document) -> str | None:
    """Find the identifiers that others know a component by."""
    found = [document.text(name, of=component) for name in ("purl", "cpe")]
    return joined(text for text in found if text)


def licenses(component: dict[str, Any], document: Document) -> str | None:
    """Find a component's licences in any of the three forms."""
    listed = document.items("licenses", of=component)
    found = document.texts(listed, "expression")
    for member in ("id", "name"):
        found += document.texts(listed, "license", member)
    return joined(found)


def parameters(document: Document) -> str | None:
    """Find the model's family, its architecture and its size."""
    card = document.model.get("modelCard")
    path = document.at("modelParameters", of=card)
    found = [document.text(name, of=path) for name in ("architectureFamily", "modelArchitecture")]
    found += [f"{count} parameters" for count in document.properties("parameters", of=card)[:1]]
    return joined(text for text in found if text)


def training(document: Document) -> str | None:
    """Find what is said of the training."""
    card = document.model.get("modelCard")
    found = document.texts([card], "modelParameters", "approach", "type")
    for name in ("training", "preprocessing", "hyperparameter"):
        found += document.properties(name, of=card)
    return joined(found)


def links(document: Document) -> str | None:
    """Find the model's links."""
    return joined(document.texts(document.items("externalReferences", of=document.model), "url"))


def dataset_names(document: Document) -> str | None:
    """Find the datasets."""
    return joined(document.texts(document.components("data"), "name"))


def each_dataset(find: Callable[[dict[str, Any], Document], object]) -> Find:
    """Find something in every dataset; evidence is complete when none lacks it."""

    def find_all(document: Document) -> Evidence | None:
        datasets = document.components("data")
        having = sum(bool(find(each, document)) for each in datasets)
        return _of_datasets(having, len(datasets))

    return find_all


def dataset_property(name: str) -> Find:
    """Find a property in every dataset."""
    return each_dataset(lambda dataset, document: document.properties(name, of=dataset))


def sensitivity(dataset: dict[str, Any], document: Document) -> bool:
    """Tell whether a dataset says what in it is sensitive, even if that is nothing."""
    return any(
        document.text("classification", of=item) or isinstance(item.get("sensitiveData"), list)
        for item in document.items("data", of=dataset)
    )


def used_datasets(document: Document) -> Evidence | None:
    """Find for every dataset what ties it to the model: its card, or a dependency."""
    datasets = document.texts(document.components("data"), "bom-ref")
    card = document.items("modelCard", "modelParameters", "datasets", of=document.model)
    tied = set(document.texts(card, "ref"))
    for item in document.items("dependencies"):
        needed = item.get("dependsOn")
        if isinstance(needed, list):
            tied.update(each for each in needed if isinstance(each, str))
    return _of_datasets(len(tied.intersection(datasets)), len(document.components("data")))


def _of_datasets(having: int, count: int) -> Evidence | None:
    if not count:
        return None
    return Evidence(complete=having == count, text=f"{having} of {count} datasets")


def named(*types: str) -> Find:
    """Find the names of the components of some types."""
    return lambda document: joined(document.texts(document.components(*types), "name"))


def vulnerabilities(document: Document) -> str | None:
    """Find known vulnerabilities, a statement that there are none, or a link to either."""
    found = document.at("vulnerabilities")
    if isinstance(found, list):
        return f"{len(found)} listed" if found else "none known"
    return joined(
        document.links("advisories", "vulnerability-assertion", "exploitability-statement")
    )


def metrics(*, security: bool) -> Find:
    """Find the names of the metrics of security, or of the others."""

    def find(document: Document) -> str | None:
        path = ("modelCard", "quantitativeAnalysis", "performanceMetrics")
        names = document.texts(document.items(*path, of=document.model), "type")
        return joined(name for name in names if name.startswith(SECURITY_METRIC) == security)

    return find
