"""What a container asks of devices, read from its resource limits and requests.

Owns counts, units, percentages and HAMi's annotations that choose devices. Leaves out where
containers are (:mod:`cdi.kube.pods`) and what becomes of the needs (:mod:`cdi.kube.convert`).

>>> asked = ask({"resources": {"limits": {"volcano.sh/vgpu-memory": "8000", "cpu": 1}}}, {})
>>> asked.needs[0].count, asked.needs[0].memory, asked.resources
(1, '8388608000', {'limits': {'cpu': 1}})
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

from cdi.errors import CdiUsageError
from cdi.kube.claims import WHOLE, Need
from cdi.kube.classes import DeviceClass, cel_list
from cdi.kube.pods import Json
from cdi.kube.quantity import parse_count
from cdi.kube.resources import FAMILIES, Family, Role, lookup

# Limits after requests: where both name a resource, the limit is what a device plugin grants.
_SECTIONS = ("requests", "limits")
# HAMi's annotations after the family's prefix: the attribute they look at, and whether they exclude.
_ANNOTATIONS = (
    ("use-gpuuuid", "uuid", False),
    ("nouse-gpuuuid", "uuid", True),
    ("use-gputype", "productName", False),
    ("nouse-gputype", "productName", True),
)
_DOMAINS = frozenset(name.partition("/")[0] for family in FAMILIES for name in family.roles()) | {
    "huawei.com",
    "iluvatar.ai",
}
# A quota counts a resource under this prefix.
_QUOTA = "requests."


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A container's needs, its resources without them, and device resources that nobody knows."""

    needs: tuple[Need, ...]
    resources: Json
    unknown: tuple[str, ...]


def ask(container: Json, annotations: Mapping[str, str]) -> Asked:
    """Return what a container needs of devices; ``annotations`` are those of its Pod.

    Raises:
        CdiUsageError: an amount is no whole number, or a percentage is above 100.
    """
    resources = container.get("resources")
    if not isinstance(resources, dict):
        return Asked(needs=(), resources={}, unknown=())
    amounts: dict[Family, dict[Role, int]] = {}
    unknown: dict[str, None] = {}
    left = dict(cast("Json", resources))
    for section in _SECTIONS:
        listed = left.get(section)
        if not isinstance(listed, dict):
            continue
        kept = {}
        for name, value in listed.items():
            meaning = lookup(name)
            if meaning is None:
                kept[name] = value
                if name.partition("/")[0] in _DOMAINS:
                    unknown[name] = None
            else:
                amount = _amount(name, meaning.role, value)
                amounts.setdefault(meaning.family, {})[meaning.role] = amount
        if kept or not listed:
            left[section] = kept
        else:
            del left[section]
    found = (_need(family, roles, annotations) for family, roles in amounts.items())
    return Asked(
        needs=tuple(need for need in found if need.count),
        resources=left,
        unknown=tuple(unknown) if amounts else (),
    )


def asks(container: Json) -> bool:
    """Tell whether a container's resources name any device resource, even with a zero."""
    return any(True for _ in device_names(container.get("resources")))


def device_names(value: object) -> Iterator[str]:
    """Yield the device resources that any mapping inside a value has as keys."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            for key, inner in one.items():
                if isinstance(key, str) and lookup(key.removeprefix(_QUOTA)) is not None:
                    yield str(key)
                pending.append(inner)
        elif isinstance(one, list):
            pending += one


def _amount(name: str, role: Role, value: object) -> int:
    try:
        amount = parse_count(value)
    except CdiUsageError as error:
        raise CdiUsageError(f"{name}: {error}") from error
    if role is Role.PERCENT and amount > WHOLE:
        raise CdiUsageError(f"{name}: {amount} is more than {WHOLE} percent")
    return amount


def _need(family: Family, roles: Mapping[Role, int], annotations: Mapping[str, str]) -> Need:
    memory = roles.get(Role.MEMORY, 0) * family.memory_unit
    cores = None
    if Role.CORES in roles and (roles[Role.CORES] or family.annotations):
        # Rounded up; HAMi takes more than the whole device for the whole device.
        cores = min(-(-roles[Role.CORES] * WHOLE // family.cores_whole), WHOLE)
    need = Need(
        family=family,
        count=roles.get(Role.COUNT, 1),
        memory=str(memory) if memory else "",
        # Of two statements about memory HAMi takes the amount.
        percent=None if memory else roles.get(Role.PERCENT) or None,
        cores=cores,
    )
    return replace(need, selectors=tuple(_selectors(family, need.device_class, annotations)))


def _selectors(
    family: Family, device_class: DeviceClass, annotations: Mapping[str, str]
) -> Iterator[str]:
    """Yield CEL for the annotations: a UUID is exact, a type is part of the product's name."""
    if not family.annotations:
        return
    for suffix, attribute, excludes in _ANNOTATIONS:
        words = [
            word.strip() for word in annotations.get(family.annotations + suffix, "").split(",")
        ]
        words = [word for word in words if word]
        if not words:
            continue
        subject = device_class.attribute(attribute)
        if attribute == "uuid":
            expression = f"{subject} in {cel_list(words)}"
        else:
            upper = cel_list(word.upper() for word in words)
            expression = f"{upper}.exists(word, {subject}.upperAscii().contains(word))"
        yield f"!({expression})" if excludes else expression
