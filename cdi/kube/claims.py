"""Claims: what a container needs of devices, as requests of a ResourceClaimTemplate.

Owns the form of requests, memory as a share of cards of several sizes, and the template object.
Leaves out Pods and manifests (:mod:`cdi.kube.convert`, :mod:`cdi.kube.render`).

>>> from cdi.kube.resources import family_for
>>> need = Need(family=family_for("nvidia.com/gpu", shared=True), memory="24Gi", cores=30)
>>> request = requests((need,))[0]
>>> request["exactly"]["deviceClassName"], request["exactly"]["capacity"]["requests"]
('hami-core-gpu.project-hami.io', {'cores': '30', 'memory': '24Gi'})
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from cdi.errors import CdiUsageError
from cdi.kube.classes import API_VERSION, NVIDIA_SHARED, DeviceClass, cel_selector
from cdi.kube.quantity import MIB
from cdi.kube.resources import Family

# resource.k8s.io/v1: AllocationResultsMaxSize and FirstAvailableDeviceRequestMaxSize.
MAX_DEVICES = 32
MAX_ALTERNATIVES = 8
WHOLE = 100

# Where the sizes of the cards are not known: what common cards report in MiB, one step for each
# group of cards of about that size (16, 24, 32, 40, 48, 80, 96 GB, 141 GB and more). A card counts
# as the largest step it reaches, so that a claim never takes more than its percentage.
USUAL_STEPS = tuple(mib * MIB for mib in (15000, 22500, 32000, 40000, 45000, 79000, 95000, 143000))


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What one container needs of one kind of device.

    ``memory`` is a quantity and ``cores`` a percentage, each per device; ``percent`` is memory as a
    percentage of a card instead. None of the three means whole devices. ``selectors`` are CEL expressions
    beside those of the family.
    """

    family: Family
    count: int = 1
    memory: str = ""
    percent: int | None = None
    cores: int | None = None
    selectors: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        """Tell whether the need is for a part of each device."""
        return bool(self.memory) or self.percent is not None or self.cores is not None

    @property
    def device_class(self) -> DeviceClass:
        """Return the class that the devices come from."""
        return self.family.device_class(shared=self.shared)


@dataclass(frozen=True, kw_only=True, slots=True)
class CardSizes:
    """The memory of the cards that claims may meet, in bytes, by CDI kind; empty where unknown."""

    by_kind: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def tells(self, need: Need) -> bool:
        """Tell whether a need can be stated exactly: it is no percentage, or of known cards."""
        return need.percent is None or need.percent >= WHOLE or bool(self.of(need.family.kind))

    def of(self, kind: str) -> tuple[int, ...]:
        """Return the known sizes of a kind, smallest first."""
        return tuple(sorted(set(self.by_kind.get(kind, ()))))


_UNKNOWN = CardSizes()


def requests(needs: Sequence[Need], sizes: CardSizes = _UNKNOWN) -> list[dict[str, object]]:
    """Return the device requests of one claim, in the order of the needs.

    Raises:
        CdiUsageError: a claim cannot hold so many devices.
    """
    total = sum(need.count for need in needs)
    if total > MAX_DEVICES:
        raise CdiUsageError(f"{total} devices are more than the {MAX_DEVICES} of one claim")
    names = _names(needs)
    return [_request(name, need, sizes) for name, need in zip(names, needs, strict=True)]


def claim_template(
    name: str, namespace: str, needs: Sequence[Need], sizes: CardSizes = _UNKNOWN
) -> dict[str, object]:
    """Return a ResourceClaimTemplate, from which each Pod gets a claim of its own.

    Raises:
        CdiUsageError: a claim cannot hold so many devices.
    """
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": API_VERSION,
        "kind": "ResourceClaimTemplate",
        "metadata": metadata,
        "spec": {"spec": {"devices": {"requests": requests(needs, sizes)}}},
    }


def _names(needs: Sequence[Need]) -> list[str]:
    """Return a name for each request; two requests for one kind of device get numbers."""
    names: list[str] = []
    for need in needs:
        base = need.family.request
        taken = sum(1 for name in names if name == base or name.startswith(f"{base}-"))
        names.append(f"{base}-{taken + 1}" if taken else base)
    return names


def _request(name: str, need: Need, sizes: CardSizes) -> dict[str, object]:
    if need.percent is None:
        return {"name": name, "exactly": _devices(need, need.memory)}
    if need.percent >= WHOLE:  # all of the memory is what a request without an amount takes
        return {"name": name, "exactly": _devices(need, "")}
    known = sizes.of(need.family.kind)
    if len(known) == 1:
        return {"name": name, "exactly": _devices(need, _part(known[0], need.percent))}
    steps = known or USUAL_STEPS
    if len(steps) > MAX_ALTERNATIVES:
        raise CdiUsageError(
            f"a percentage of {len(steps)} sizes of card is more than the {MAX_ALTERNATIVES} "
            "alternatives of one request; state the memory itself"
        )
    alternatives = []
    for i, size in enumerate(steps):
        above = steps[i + 1] if i + 1 < len(steps) else None
        devices = _devices(need, _part(size, need.percent), (_between(need, size, above),))
        alternatives.append({"name": f"{size // MIB}mi", **devices})
    return {"name": name, "firstAvailable": alternatives}


def _part(size: int, percent: int) -> str:
    """Return a percentage of a card, in whole MiB, which is the step in which HAMi counts."""
    return str(max(size * percent // WHOLE // MIB, 1) * MIB)


def _between(need: Need, low: int, high: int | None) -> str:
    memory = need.device_class.capacity("memory")
    expression = f"{memory}.compareTo(quantity('{low}')) >= 0"
    if high is not None:
        expression += f" && {memory}.compareTo(quantity('{high}')) < 0"
    return expression


def _devices(need: Need, memory: str, extra: tuple[str, ...] = ()) -> dict[str, object]:
    device_class = need.device_class
    value: dict[str, object] = {"deviceClassName": device_class.name}
    selectors = (*need.family.selectors(device_class), *need.selectors, *extra)
    if selectors:
        value["selectors"] = [cel_selector(expression) for expression in selectors]
    value |= {"allocationMode": "ExactCount", "count": need.count}
    amounts: dict[str, str] = {}
    if need.cores is not None:
        amounts["cores"] = str(need.cores)
    elif need.shared and device_class == NVIDIA_SHARED:
        # HAMi without a limit of cores reserves none; its driver would reserve all of them.
        amounts["cores"] = "0"
    if memory:
        amounts["memory"] = memory
    if amounts:
        value["capacity"] = {"requests": cast("object", amounts)}
    return value
