"""Reading ``/v1/status`` back: the same values that the daemon made it of.

Owns the strictness about members that are needed and the leniency about those that a newer daemon
adds. Leaves out writing (``status.py``) and transport (``web/client.py``).

    >>> from modelpack.prefetch.status import RuntimeStatus
    >>> _runtime({"kind": "directory", "reachable": True}) == RuntimeStatus(
    ...     kind="directory", reachable=True)
    True
"""

import math
from collections.abc import Mapping
from typing import Any

from modelpack.errors import FormatError
from modelpack.prefetch.status import (
    BudgetStatus,
    ConfigurationStatus,
    DaemonStatus,
    ModelStatus,
    RuntimeStatus,
    Stage,
    Totals,
)

_Json = Mapping[str, Any]


def parse_status(value: object) -> DaemonStatus:
    """Return the status that ``value``, a parsed ``/v1/status``, shows.

    Raises:
        FormatError: it is no such document; the message names the member.
    """
    top = _object(value, "status")
    return DaemonStatus(
        node=_text(top, "node"),
        version=_text(top, "version"),
        started_at=_number(top, "started_at"),
        now=_number(top, "now"),
        alive_at=_number(top, "alive_at"),
        models=tuple(_model(_object(item, "models")) for item in _list(top, "models")),
        budget=_budget(_object(top.get("budget"), "budget")),
        configuration=_configuration(_object(top.get("configuration"), "configuration")),
        runtime=_runtime(_object(top.get("runtime"), "runtime")),
        totals=_totals(_object(top.get("totals"), "totals")),
        stopping=_flag(top, "stopping"),
    )


def _model(value: _Json) -> ModelStatus:
    stage = _text(value, "stage")
    if stage not in set(Stage):
        raise FormatError(
            f"status: stage {stage[:40]!r} is unknown; is the daemon newer than this?"
        )
    return ModelStatus(
        name=_text(value, "name"),
        reference=_text(value, "ref"),
        stage=Stage(stage),
        reason=_text(value, "reason"),
        digest=_text_or_none(value, "digest"),
        candidate=_text_or_none(value, "candidate"),
        bytes=_count(value, "bytes"),
        fetched_bytes=_count(value, "fetched_bytes"),
        reused_bytes=_count(value, "reused_bytes"),
        timings=_numbers(value, "timings"),
        priority=_count(value, "priority"),
        held=_flag(value, "held"),
        mounted=_flag(value, "mounted"),
        ready_at=_number_or_none(value, "ready_at"),
        used_at=_number_or_none(value, "used_at"),
        next_attempt=_number_or_none(value, "next_attempt"),
        attempts=_count(value, "attempts"),
    )


def _budget(value: _Json) -> BudgetStatus:
    names = ("limit", "used", "reserved", "high", "low")
    return BudgetStatus(**{name: _count(value, name) for name in names})


def _configuration(value: _Json) -> ConfigurationStatus:
    return ConfigurationStatus(
        path=_text(value, "path"),
        loaded_at=_number(value, "loaded_at"),
        generation=_count(value, "generation"),
        error=_text_or_none(value, "error"),
    )


def _runtime(value: _Json) -> RuntimeStatus:
    return RuntimeStatus(
        kind=_text(value, "kind"),
        reachable=_flag(value, "reachable"),
        reason=_text(value, "reason") if "reason" in value else "",
    )


def _totals(value: _Json) -> Totals:
    counts = (
        *("fetched_bytes", "reused_bytes", "imports", "evictions", "evicted_bytes"),
        *("scrubbed_bytes", "damaged", "repaired", "reloads", "failed_reloads", "used_models"),
    )
    return Totals(
        **{name: _count(value, name) for name in counts},
        failures={name: int(number) for name, number in _numbers(value, "failures").items()},
        stage_seconds=_numbers(value, "stage_seconds"),
    )


def _object(value: object, name: str) -> _Json:
    if not isinstance(value, dict):
        raise FormatError(f"status: {name} is not an object")
    return value


def _list(value: _Json, name: str) -> list[Any]:
    found = value.get(name)
    if not isinstance(found, list):
        raise FormatError(f"status: {name} is not a list")
    return found


def _text(value: _Json, name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise FormatError(f"status: {name} is not a text")
    return found


def _text_or_none(value: _Json, name: str) -> str | None:
    return None if value.get(name) is None else _text(value, name)


def _flag(value: _Json, name: str) -> bool:
    found = value.get(name)
    if not isinstance(found, bool):
        raise FormatError(f"status: {name} is neither true nor false")
    return found


def _number(value: _Json, name: str) -> float:
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise FormatError(f"status: {name} is not a number")
    return float(found)


def _number_or_none(value: _Json, name: str) -> float | None:
    return None if value.get(name) is None else _number(value, name)


def _count(value: _Json, name: str) -> int:
    return int(_number(value, name))


def _numbers(value: _Json, name: str) -> dict[str, float]:
    found = _object(value.get(name), name)
    return {key: _number(found, key) for key in found}
