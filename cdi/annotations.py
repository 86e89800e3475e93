"""Pod annotations that ask a runtime to inject CDI devices.

Owns the key and the value, both ways. Leaves out what the devices are (:mod:`cdi.cache`).

>>> annotate({}, plugin="nvidia.gpu", device_id="claim/1", devices=["nvidia.com/gpu=0"])
{'cdi.k8s.io/nvidia.gpu_claim_1': 'nvidia.com/gpu=0'}
"""

import re
from collections.abc import Iterable, Mapping

from cdi.errors import CdiUsageError
from cdi.names import QualifiedName

ANNOTATION_PREFIX = "cdi.k8s.io/"
# Kubernetes: the name part of an annotation key.
MAX_NAME = 63

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def annotation_key(plugin: str, device_id: str) -> str:
    """Return the annotation key for one allocation of a plugin, such as ``vendor.device-type``.

    A slash in ``device_id`` becomes an underscore.

    Raises:
        CdiUsageError: a part is empty, or the key is not one that Kubernetes takes.
    """
    if not plugin or not device_id:
        raise CdiUsageError("a CDI annotation needs a plugin name and a device id; one is empty")
    name = f"{plugin}_{device_id.replace('/', '_')}"
    if len(name) > MAX_NAME:
        raise CdiUsageError(f"annotation name {name!a} is longer than {MAX_NAME} characters")
    if not _NAME.fullmatch(name):
        raise CdiUsageError(
            f"annotation name {name!a} must consist of letters, digits, '.', '_' and '-', and "
            "start and end with a letter or digit"
        )
    return ANNOTATION_PREFIX + name


def annotation_value(devices: Iterable[str]) -> str:
    """Return the annotation value for fully qualified device names, in the given order.

    Raises:
        CdiUsageError: a name is not fully qualified, or there is none.
    """
    names = [str(QualifiedName.parse(device)) for device in devices]
    if not names:
        raise CdiUsageError("a CDI annotation needs at least one device")
    return ",".join(names)


def annotate(
    annotations: Mapping[str, str], *, plugin: str, device_id: str, devices: Iterable[str]
) -> dict[str, str]:
    """Return a copy of a pod's annotations with a request for devices added.

    Raises:
        CdiUsageError: the key is already there, or the key or a name is not valid.
    """
    key = annotation_key(plugin, device_id)
    if key in annotations:
        raise CdiUsageError(f"annotation {key} is already there; use another device id")
    return {**annotations, key: annotation_value(devices)}


def requested_devices(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Return the devices that a pod's annotations ask for, by key and then in the value's order.

    Raises:
        CdiUsageError: a value holds something that is no fully qualified name.
    """
    found: list[str] = []
    for key in sorted(annotations):
        if key.startswith(ANNOTATION_PREFIX):
            found += [str(QualifiedName.parse(name)) for name in annotations[key].split(",")]
    return tuple(found)
