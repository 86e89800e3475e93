"""The ``models`` of a configuration, and the windows and rollouts that they share with the rest.

Owns one model's members and their defaults. Leaves out the rest of the file (``configfile.py``).
"""

from dataclasses import dataclass, field
from typing import Any

from modelpack.digest import Digest
from modelpack.prefetch import config, quantities
from modelpack.prefetch.labels import OPERATORS, Expression, Selector, check_key, check_value
from modelpack.prefetch.section import Section
from modelpack.prefetch.windows import DAYS, Window, parse_time
from modelpack.reference import RegistryReference, parse_reference

# For the whole fleet; what one node may be asked to have is ``bounds.models``.
MAX_MODELS = 8192
# A reference, with its tag and digest, is no longer.
MAX_NAME = 512
MAX_WAVES = 32
MAX_WINDOWS = 32
MAX_EXPRESSIONS = 32
MAX_VALUES = 256
MAX_PRIORITY = 10**6
NEVER = "never"
# What ``defaults`` may say for all models, and each model for itself.
_SHARED = ("resolve", "priority", "window", "rollout")
# A registry is asked once in so long by each node of a fleet for each model.
_SHORTEST_RESOLVE = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Defaults:
    """What a model has that says nothing else."""

    resolve: float | None = config.RESOLVE_EVERY
    priority: int = 0
    windows: tuple[Window, ...] = ()
    rollout: config.Rollout = field(default_factory=config.Rollout)


def parse_models(sections: list[Section], defaults: Section) -> tuple[config.ModelOptions, ...]:
    """Return the models of several files, each with a name of its own.

    Raises:
        UsageError: one is wrong, or two have one name.
    """
    defaults.only(*_SHARED)
    base = _shared(defaults, _Defaults())
    models: dict[str, config.ModelOptions] = {}
    where: dict[str, str] = {}
    for file in sections:
        for section in file.sections("models", MAX_MODELS):
            model = _model(section, base)
            place = f"{section.what}: {section.path}"
            if model.name in models:
                section.refuse(
                    "name" if section.has("name") else "ref",
                    f"gives the model the name {model.name!r:.120}, which {where[model.name]} has",
                )
            models[model.name] = model
            where[model.name] = place
    if len(models) > MAX_MODELS:
        sections[0].refuse("models", f"has more than {MAX_MODELS} entries")
    return tuple(models.values())


def parse_window(section: Section, *others: str) -> Window:
    """Return the window that a section's ``from``, ``to`` and ``days`` say.

    ``others`` are what else may be in it.
    """
    section.only("from", "to", "days", *others)
    start = section.parse(section.required("from"), "from", parse_time)
    end = section.parse(section.required("to"), "to", parse_time)
    days = []
    for number, day in enumerate(section.items("days", len(DAYS))):
        if day not in DAYS:
            section.refuse(f"days[{number}]", f"is not one of {', '.join(DAYS)}")
        days.append(DAYS.index(day))
    if section.has("days") and not days:
        section.refuse("days", "is empty, so the window never opens")
    if start >= 24 * 60:
        section.refuse("from", "is the end of the day; write 00:00")
    if start == end:
        section.refuse("to", "is the same time as from; leave the window out for the whole day")
    return Window(start=start, end=end, days=frozenset(days or range(7)))


def _shared(section: Section, base: _Defaults) -> _Defaults:
    resolve = base.resolve
    if section.raw("resolve") == NEVER:
        resolve = None
    elif section.has("resolve"):
        resolve = section.parse(section.raw("resolve"), "resolve", quantities.parse_duration)
        if resolve < _SHORTEST_RESOLVE:
            section.refuse("resolve", f"is less than {_SHORTEST_RESOLVE:g}s")
    most = MAX_PRIORITY
    return _Defaults(
        resolve=resolve,
        priority=section.integer("priority", base.priority, least=-most, most=most),
        windows=_windows(section) if section.has("window") else base.windows,
        rollout=_rollout(section.section("rollout"), base.rollout),
    )


def _model(section: Section, base: _Defaults) -> config.ModelOptions:
    section.only("name", "ref", "digest", "selector", "pin", "hold", *_SHARED)
    reference = section.parse(
        section.as_text(section.required("ref"), "ref"), "ref", parse_reference
    )
    if not isinstance(reference, RegistryReference):
        section.refuse("ref", "is not in a registry; the daemon brings models from registries")
    digest = section.parsed("digest", _parse_digest)
    if digest is not None and reference.digest not in (None, digest):
        section.refuse("digest", "is not the digest in ref")
    name = section.text("name") or str(reference)
    if len(name) > MAX_NAME:
        section.refuse("name", f"is longer than {MAX_NAME} characters")
    shared = _shared(section, base)
    return config.ModelOptions(
        name=name,
        reference=reference,
        digest=digest or reference.digest,
        resolve=shared.resolve,
        priority=shared.priority,
        selector=_selector(section.section("selector")),
        windows=shared.windows,
        rollout=shared.rollout,
        pin=section.flag("pin"),
        hold=section.flag("hold"),
    )


def _parse_digest(value: Any) -> Digest:
    return Digest.parse(value if isinstance(value, str) else repr(value))


def _windows(section: Section) -> tuple[Window, ...]:
    """Return the windows that a member says: one, or a list of them."""
    if isinstance(section.raw("window"), list):
        return tuple(map(parse_window, section.sections("window", MAX_WINDOWS)))
    return (parse_window(section.section("window")),)


def _rollout(section: Section, base: config.Rollout) -> config.Rollout:
    section.only("waves", "keepPrevious")
    waves = []
    covered = 0.0
    for wave in section.sections("waves", MAX_WAVES):
        wave.only("percent", "soak")
        percent = wave.number("percent", above=0, most=100)
        if percent <= covered:
            wave.refuse("percent", f"is not above that of the wave before, {covered:g}")
        covered = percent
        soak = wave.parse(wave.required("soak"), "soak", quantities.parse_duration)
        waves.append(config.Wave(percent=percent, soak=soak))
    keep = section.parsed("keepPrevious", quantities.parse_duration)
    has_waves = section.has("waves")
    return config.Rollout(
        waves=tuple(waves) if has_waves else base.waves,
        keep_previous=base.keep_previous if keep is None else keep,
    )


def _selector(section: Section) -> Selector:
    for name in section.names():
        if name not in ("matchLabels", "matchExpressions"):
            section.refuse(name, "is not known; labels go below it, as matchLabels: {gpu: h100}")
    labels_section = section.section("matchLabels")
    labels = {}
    for key in labels_section.names():
        labels_section.parse(key, key, check_key)
        labels[key] = labels_section.parse(labels_section.raw(key), key, check_value)
    expressions = []
    for item in section.sections("matchExpressions", MAX_EXPRESSIONS):
        item.only("key", "operator", "values")
        key = item.parse(item.as_text(item.required("key"), "key"), "key", check_key)
        operator = item.required("operator")
        if operator not in OPERATORS:
            item.refuse("operator", f"is not one of {', '.join(OPERATORS)}")
        values = [
            item.parse(value, f"values[{number}]", check_value)
            for number, value in enumerate(item.items("values", MAX_VALUES))
        ]
        if bool(values) != (operator in {"In", "NotIn"}):
            item.refuse("values", f"must {'not ' if values else ''}be given for {operator}")
        expressions.append(Expression(key=key, operator=operator, values=frozenset(values)))
    return Selector(labels=labels, expressions=tuple(expressions))
