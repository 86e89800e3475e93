"""From samples to a page: medians, ratios with their spread, Markdown, JSON, a plot.

A ratio is taken pair by pair (the runs that followed each other) and its median is quoted. It is
refused where the pairs do not agree on who was faster.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

from benchmarks.measure import Sample, spread
from benchmarks.scenarios import SCENARIOS, Scenario

OURS = "modelpack"


@dataclass
class Outcome:
    """The samples of one scenario."""

    scenario: Scenario
    model_bytes: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> tuple[float, bool]:
    """Return the median of the pairwise time ratios, and whether the pairs agree on a side of 1."""
    pairs = [mine.seconds / other.seconds for mine, other in zip(ours, theirs, strict=False)]
    agrees = all(pair < 1 for pair in pairs) or all(pair > 1 for pair in pairs)
    return median(pairs), agrees


def markdown(outcomes: Sequence[Outcome], machine: Mapping[str, str]) -> str:
    """Return the report as Markdown."""
    return f"# Benchmark results\n\n{machine_line(machine)}\n\n{tables(outcomes, '##')}"


def machine_line(machine: Mapping[str, str]) -> str:
    """Return what the figures depend on, as a sentence."""
    return f"Machine: {', '.join(f'{key}: {value}' for key, value in machine.items())}."


def tables(outcomes: Sequence[Outcome], heading: str) -> str:
    """Return a table for each scenario, under headings that begin with ``heading``."""
    return "\n".join(line for outcome in outcomes for line in _section(outcome, heading)) + "\n"


def _section(outcome: Outcome, heading: str) -> list[str]:
    scenario = outcome.scenario
    lines = [
        f"{heading} {scenario.title}",
        "",
        "| | seconds (min-max) | our time / theirs | bar | CPU s/GB | peak RSS | on the wire | verified |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ours = outcome.samples.get(OURS, [])
    from benchmarks.contestants import pullers  # noqa: PLC0415 - the only use

    unverified = {name for name, item in pullers().items() if not item.verifies}
    for name, samples in outcome.samples.items():
        low, middle, high = spread([sample.seconds for sample in samples])
        compared, bar = "", ""
        if name != OURS and ours:
            value, agrees = ratio(ours, samples)
            compared = f"{value:.2f}" if agrees else "too close to tell"
            limit = scenario.bars.get(name)
            if limit is not None:
                bar = f"≤ {limit:.2f} {'reached' if value <= limit else 'missed'}"
        gigabytes = outcome.model_bytes / 1e9
        cpu = median(sample.cpu_seconds for sample in samples)
        each = "" if scenario.kind == "start" else f"{cpu / gigabytes:.2f}"
        rss = max(sample.peak_rss for sample in samples) / 1e6
        wire = median(sample.wire_bytes for sample in samples) / 1e6
        lines.append(
            f"| {name} | {middle:.2f} ({low:.2f}-{high:.2f}) | {compared} | {bar} | {each} | "
            f"{rss:.0f} MB | {wire:,.1f} MB | {'no' if name in unverified else 'yes'} |"
        )
    lines += [f"| {name} | not installed | | | | | | |" for name in outcome.missing]
    lines += [
        f"| {name} | failed: {why[:80]} | | | | | | |" for name, why in outcome.failed.items()
    ]
    return [*lines, ""]


def as_json(outcomes: Sequence[Outcome], machine: Mapping[str, str]) -> str:
    """Return everything that was measured as JSON."""
    value = {
        "machine": dict(machine),
        "scenarios": [
            {
                "name": outcome.scenario.name,
                "title": outcome.scenario.title,
                "model_bytes": outcome.model_bytes,
                "samples": {
                    name: [asdict(sample) for sample in samples]
                    for name, samples in outcome.samples.items()
                },
                "missing": outcome.missing,
                "failed": outcome.failed,
            }
            for outcome in outcomes
        ],
    }
    return json.dumps(value, indent=1) + "\n"


def from_json(text: str) -> tuple[list[Outcome], dict[str, str]]:
    """Return what ``as_json`` wrote: outcomes and machine."""
    value = json.loads(text)
    known = {scenario.name: scenario for scenario in SCENARIOS}
    outcomes = [
        Outcome(
            scenario=known[item["name"]],
            model_bytes=item["model_bytes"],
            samples={
                name: [Sample(**sample) for sample in samples]
                for name, samples in item["samples"].items()
            },
            missing=item["missing"],
            failed=item["failed"],
        )
        for item in value["scenarios"]
    ]
    return outcomes, value["machine"]


def plot(outcomes: Sequence[Outcome]) -> str:
    """Return horizontal bars of median seconds as SVG, with the spread as a thin line."""
    width, left, row = 760, 205, 22
    parts = []
    y = 10
    for outcome in outcomes:
        if len(outcome.samples) < 2:
            continue
        y += 26
        parts.append(f'<text x="10" y="{y}" class="t">{escape(outcome.scenario.title)}</text>')
        longest = max(max(s.seconds for s in samples) for samples in outcome.samples.values())
        scale = (width - left - 90) / longest
        for name, samples in outcome.samples.items():
            y += row
            low, middle, high = spread([sample.seconds for sample in samples])
            colour = "#2563eb" if name.startswith(OURS) else "#94a3b8"
            parts += [
                f'<text x="{left - 8}" y="{y}" text-anchor="end">{escape(name)}</text>',
                (
                    f'<rect x="{left}" y="{y - 12}" width="{middle * scale:.1f}" height="15" '
                    f'fill="{colour}"/>'
                ),
                (
                    f'<line x1="{left + low * scale:.1f}" x2="{left + high * scale:.1f}" '
                    f'y1="{y - 4.5}" y2="{y - 4.5}" stroke="#0f172a"/>'
                ),
                f'<text x="{left + high * scale + 6:.1f}" y="{y}">{middle:.2f} s</text>',
            ]
    height = y + 20
    style = "text{font:13px sans-serif;fill:#0f172a}.t{font-weight:bold}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def write(
    outcomes: Sequence[Outcome], machine: Mapping[str, str], directory: Path, name: str
) -> None:
    """Write the page, the figures and the plot beside each other."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.md").write_text(markdown(outcomes, machine))
    (directory / f"{name}.json").write_text(as_json(outcomes, machine))
    (directory / f"{name}.svg").write_text(plot(outcomes))
