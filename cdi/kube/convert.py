"""Turn manifests that ask for vendors' extended resources into manifests that make DRA claims.

Owns what becomes of containers, Pods and lists. Leaves out text (:mod:`cdi.kube.manifests`), the
meaning of resources (:mod:`cdi.kube.needs`) and the form of claims (:mod:`cdi.kube.claims`).

Each container that asks for devices gets a ResourceClaimTemplate of its own. An init container that
asks for exactly what a container asks for uses that one's claim, since it ends before the other
begins; the scheduler counts extended resources in the same way. Everything else stays as it was,
and converting twice is converting once.

>>> limits = {"nvidia.com/gpu": "2", "cpu": "4"}
>>> spec = {"containers": [{"name": "main", "resources": {"limits": limits}}]}
>>> pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train"}, "spec": spec}
>>> template, converted = convert_objects([pod]).objects
>>> converted["spec"]["containers"][0]["resources"]
{'limits': {'cpu': '4'}, 'claims': [{'name': 'main-gpu'}]}
>>> converted["spec"]["resourceClaims"]
[{'name': 'main-gpu', 'resourceClaimTemplateName': 'train-main-gpu'}]
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from cdi.errors import CdiUsageError
from cdi.kube import pods
from cdi.kube._names import add_suffix, fit_label
from cdi.kube.claims import CardSizes, Need, claim_template
from cdi.kube.classes import DeviceClass
from cdi.kube.manifests import InvalidManifestError, load
from cdi.kube.needs import ask, asks, device_names
from cdi.kube.pods import Json

_TEMPLATE_KIND = "ResourceClaimTemplate"
_ESTIMATED = (
    "became an amount for each usual size of card; say which cards there are for an exact one"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """The objects after conversion, and what to tell the user.

    ``objects`` holds every object, in order, each template before the first object that uses it.
    ``changed`` counts the objects that asked for devices; ``classes`` are the classes in use.
    """

    objects: tuple[object, ...]
    changed: int
    classes: tuple[DeviceClass, ...]
    notes: tuple[str, ...]


def convert_objects(objects: Iterable[object], sizes: CardSizes | None = None) -> Conversion:
    """Convert objects as JSON has them; nothing is changed in place.

    ``sizes`` are the memory of the cards, by which a percentage of one becomes an amount; without
    them a percentage becomes one alternative for each usual size of card.

    Raises:
        InvalidManifestError: a request for devices is malformed.
    """
    converter = _Converter(sizes)
    known = list(objects)
    converter.reserve(known)
    found: list[object] = []
    for i, value in enumerate(known):
        found += converter.convert(value, f"object {i + 1}")
    return converter.report(found)


def convert_text(text: str, sizes: CardSizes | None = None) -> tuple[str, Conversion]:
    """Convert a manifest of one or more YAML or JSON documents; returns its text and the report.

    A document without devices keeps its text to the letter.

    Raises:
        InvalidManifestError: the text is no YAML, or a request for devices in it is malformed.
    """
    manifest = load(text)
    converter = _Converter(sizes)
    converter.reserve(document.value for document in manifest.documents)
    replaced: dict[int, Sequence[object]] = {}
    objects: list[object] = []
    for i, document in enumerate(manifest.documents):
        before = converter.changed
        found = converter.convert(document.value, f"document {i + 1}")
        objects += found
        if converter.changed > before:
            replaced[i] = found
    if not replaced:
        return text, converter.report(objects)
    return manifest.text(replaced), converter.report(objects)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Claim:
    """A claim of one Pod: its name there, and what it asks for."""

    name: str
    needs: tuple[Need, ...]


class _Converter:
    """Converts the objects of one run, whose templates must not clash."""

    def __init__(self, sizes: CardSizes | None) -> None:
        self.changed = 0
        self._sizes = sizes or CardSizes()
        # By namespace and name; None is one that was there before.
        self._templates: dict[tuple[str, str], Json | None] = {}
        self._classes: dict[str, DeviceClass] = {}
        self._notes: dict[str, None] = {}

    def report(self, objects: Sequence[object]) -> Conversion:
        """Return what has been done."""
        return Conversion(
            objects=tuple(objects),
            changed=self.changed,
            classes=tuple(self._classes[name] for name in sorted(self._classes)),
            notes=tuple(self._notes),
        )

    def reserve(self, objects: Iterable[object]) -> None:
        """Note the templates that are already there: new ones must not take their names."""
        for value in objects:
            if pods.is_list(value):
                self.reserve(_items(value))
            elif pods.object_type(value)[1] == _TEMPLATE_KIND:
                found = cast("Json", value)
                name, space = (pods.metadata_text(found, word) for word in ("name", "namespace"))
                self._templates[space, name] = None

    def convert(self, value: object, where: str) -> list[object]:
        """Return what takes an object's place: the new templates, and the object."""
        if pods.is_list(value):
            return self._list(cast("Json", value), where)
        _, kind = pods.object_type(value)
        name = pods.metadata_text(cast("Json", value), "name") if kind else ""
        where = f"{where}: {kind} {name}".rstrip() if kind else where
        if not pods.holds_pod(value):
            for resource in sorted(set(device_names(value))):
                self._notes[f"{where}: {resource} stays as it is; no Pod is looked for there"] = (
                    None
                )
            return [value]
        return self._workload(cast("Json", value), where)

    def _list(self, value: Json, where: str) -> list[object]:
        items: list[object] = []
        outside: list[object] = []
        before = self.changed
        for i, item in enumerate(_items(value)):
            *templates, converted = self.convert(item, f"{where}: items[{i}]")
            # A list of one kind, such as PodList, takes no other.
            (items if value["kind"] == "List" else outside).extend(templates)
            items.append(converted)
        return [*outside, {**value, "items": items} if self.changed > before else value]

    def _workload(self, value: Json, where: str) -> list[object]:
        pod = pods.pod_of(value)
        spec = cast("Json", pod["spec"])
        if not any(
            asks(c) for section in ("containers", "initContainers") for c in _dicts(spec, section)
        ):
            return [value]
        self.changed += 1
        work = _PodWork(pod, where, self._notes)
        workload = (
            pods.metadata_text(value, "name")
            or pods.metadata_text(value, "generateName").rstrip("-")
            or pods.object_type(value)[1]
        )
        namespace = pods.metadata_text(value, "namespace")
        made: list[object] = []
        entries: list[object] = []
        for claim in work.claims:
            for need in claim.needs:
                self._classes[need.device_class.name] = need.device_class
                if not self._sizes.tells(need):
                    self._notes[f"{where}: {need.family.percent} {_ESTIMATED}"] = None
            try:
                template, is_new = self._template(
                    f"{workload}-{claim.name}", namespace, claim.needs
                )
            except CdiUsageError as error:
                raise InvalidManifestError(f"{where}: {error}") from error
            made += [template] if is_new else []
            named = cast("Json", template["metadata"])["name"]
            entries.append({"name": claim.name, "resourceClaimTemplateName": named})
        return [*made, pods.replace_pod(value, lambda _: work.finished(entries))]

    def _template(self, name: str, namespace: str, needs: tuple[Need, ...]) -> tuple[Json, bool]:
        """Return the template of that name, or of a similar one where another has it."""
        base = fit_label(name)
        candidate = base
        number = 1
        while True:
            template = claim_template(candidate, namespace, needs, self._sizes)
            key = namespace, candidate
            if key not in self._templates:
                self._templates[key] = template
                return template, True
            if self._templates[key] == template:
                return template, False
            number += 1
            candidate = add_suffix(base, str(number))


class _PodWork:
    """The conversion of one Pod: its containers, and the claims they share."""

    def __init__(self, pod: Json, where: str, notes: dict[str, None]) -> None:
        self._pod = pod
        self._where = where
        self._notes = notes
        self._annotations = pods.annotations_of(pod)
        spec = cast("Json", pod["spec"])
        known = spec.get("resourceClaims")
        self._existing = list(known) if isinstance(known, list) else []
        self._names = {
            str(entry.get("name")) for entry in self._existing if isinstance(entry, dict)
        }
        self.claims: list[_Claim] = []
        self._spec = dict(spec)
        # Containers first: init containers may use their claims.
        for section in ("containers", "initContainers"):
            if isinstance(spec.get(section), list):
                self._spec[section] = [
                    self._container(c, i, section) if isinstance(c, dict) else c
                    for i, c in enumerate(cast("list[object]", spec[section]))
                ]

    def finished(self, entries: Sequence[object]) -> Json:
        """Return the Pod with its claims."""
        claims = [*self._existing, *entries]
        spec = {**self._spec, "resourceClaims": claims} if claims else self._spec
        return {**self._pod, "spec": spec}

    def _container(self, container: Json, index: int, section: str) -> Json:
        if not asks(container):
            return container
        name = container.get("name")
        label = str(name) if isinstance(name, str) and name else f"{section}-{index}"
        where = f"{self._where}: container {label}"
        try:
            asked = ask(container, self._annotations)
        except CdiUsageError as error:
            raise InvalidManifestError(f"{where}: {error}") from error
        for resource in asked.unknown:
            self._notes[f"{where}: {resource} stays as it is; its meaning is not known"] = None
        if not asked.needs:
            return {**container, "resources": asked.resources}
        claim = self._claim(container, label, section, asked.needs)
        known = asked.resources.get("claims")
        claims = [*(known if isinstance(known, list) else []), {"name": claim.name}]
        return {**container, "resources": {**asked.resources, "claims": claims}}

    def _claim(self, container: Json, label: str, section: str, needs: tuple[Need, ...]) -> _Claim:
        """Return the claim to use: that of a container that runs later, or a new one."""
        sequential = section == "initContainers" and container.get("restartPolicy") != "Always"
        if sequential:
            same = [claim for claim in self.claims if set(claim.needs) == set(needs)]
            if same:
                return same[0]
            text = "asks for other devices than the containers, so its claim adds to theirs"
            self._notes[f"{self._where}: init container {label}: {text}"] = None
        suffix = needs[0].family.request if len(needs) == 1 else "devices"
        base = name = fit_label(f"{label}-{suffix}")
        number = 1
        while name in self._names:
            number += 1
            name = add_suffix(base, str(number))
        self._names.add(name)
        claim = _Claim(name=name, needs=needs)
        self.claims.append(claim)
        return claim


def _items(value: object) -> list[object]:
    return cast("list[object]", cast("Json", value)["items"])


def _dicts(spec: Json, section: str) -> list[Json]:
    found = spec.get(section)
    return [c for c in found if isinstance(c, dict)] if isinstance(found, list) else []
