"""Pods inside manifests: which kinds of object hold a Pod, where, and how to put a changed one back.

Owns the walk from an object to its Pod template. Leaves out what is changed
(:mod:`cdi.kube.convert`). Nothing is changed in place.

>>> deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {}}}}
>>> replace_pod(deployment, lambda pod: {**pod, "spec": {"hostNetwork": True}})["spec"]
{'template': {'spec': {'hostNetwork': True}}}
"""

from collections.abc import Callable, Mapping
from typing import cast

Json = dict[str, object]

# Where each kind keeps the object that has a Pod's metadata and spec.
_TEMPLATE = ("spec", "template")
_PATHS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("v1", "Pod"): (),
    ("v1", "PodTemplate"): ("template",),
    ("v1", "ReplicationController"): _TEMPLATE,
    ("apps/v1", "Deployment"): _TEMPLATE,
    ("apps/v1", "StatefulSet"): _TEMPLATE,
    ("apps/v1", "DaemonSet"): _TEMPLATE,
    ("apps/v1", "ReplicaSet"): _TEMPLATE,
    ("batch/v1", "Job"): _TEMPLATE,
    ("batch/v1", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}


def object_type(value: object) -> tuple[str, str]:
    """Return an object's apiVersion and kind, empty where they are no text."""
    if not isinstance(value, dict):
        return "", ""
    found = (value.get("apiVersion"), value.get("kind"))
    version, kind = (str(word) if isinstance(word, str) else "" for word in found)
    return version, kind


def holds_pod(value: object) -> bool:
    """Tell whether this is an object of a kind that holds a Pod, and does hold one."""
    path = _PATHS.get(object_type(value))
    return path is not None and isinstance(_at(value, (*path, "spec")), dict)


def pod_of(value: Json) -> Json:
    """Return the part of the object that has a Pod's metadata and spec."""
    return cast("Json", _at(value, _PATHS[object_type(value)]))


def replace_pod(value: Json, change: Callable[[Json], Json]) -> Json:
    """Return the object with its Pod changed; everything else is the same, in the same order."""
    return _replace(value, _PATHS[object_type(value)], change)


def is_list(value: object) -> bool:
    """Tell whether the object is a list of objects, such as ``kubectl get -o yaml`` prints."""
    _, kind = object_type(value)
    return kind.endswith("List") and isinstance(cast("Json", value).get("items"), list)


def metadata_text(value: Json, field: str) -> str:
    """Return a text of an object's metadata, or empty."""
    found = _at(value, ("metadata", field))
    return str(found) if isinstance(found, str) else ""


def annotations_of(pod: Json) -> dict[str, str]:
    """Return the annotations of a Pod that are text."""
    found = _at(pod, ("metadata", "annotations"))
    pairs = found.items() if isinstance(found, dict) else ()
    return {str(key): str(text) for key, text in pairs if isinstance(text, str)}


def _at(value: object, path: tuple[str, ...]) -> object:
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _replace(value: Json, path: tuple[str, ...], change: Callable[[Json], Json]) -> Json:
    if not path:
        return change(value)
    inner = cast("Json", value[path[0]])
    return {**value, path[0]: _replace(inner, path[1:], change)}
