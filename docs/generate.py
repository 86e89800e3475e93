"""Rewrite the generated parts of the documentation.

``docs/cli.md`` is made from the commands' own help, ``docs/metrics.md`` from the metrics' definitions,
the end of ``docs/node.md`` from the schema of the daemon's configuration, and that of
``docs/benchmarks.md`` from the figures in ``docs/benchmarks/``.

python docs/generate.py           # rewrite
python docs/generate.py --check   # exit 1 if something is out of date
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
MODELPACK = Path(sysconfig.get_path("scripts")) / "modelpack"
MARK = "<!-- below this line: written by docs/generate.py -->\n"
# Forms of values that the page explains, by their names in the schema.
_FORMS = {"size", "rate", "duration", "percent", "time", "url", "labels"}
# The first word of an indented line below "Commands:" is a command.
_COMMAND = re.compile(r"^  ([a-z0-9][a-z0-9-]*)", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Write or check the pages; return the exit status."""
    pages = {
        "benchmarks.md": benchmark_tables,
        "cli.md": lambda: "".join(sections([])),
        "metrics.md": metrics_table,
        "node.md": configuration_table,
    }
    changed = False
    for name, generate in pages.items():
        page = DOCS / name
        current = page.read_text()
        wanted = current.partition(MARK)[0] + MARK + generate()
        changed |= wanted != current
        if "--check" not in arguments:
            page.write_text(wanted)
    return int(changed and "--check" in arguments)


def benchmark_tables() -> str:
    """Return the tables of the figures that are kept."""
    sys.path.insert(0, str(DOCS.parent))
    from benchmarks import node, report

    outcomes, machine = report.from_json((DOCS / "benchmarks/full.json").read_text())
    nodes = node.from_json((DOCS / "benchmarks/node.json").read_text())
    whole = f"{report.tables(outcomes, '###')}\n{node.tables(nodes, '###')}"
    return f"\n{report.machine_line(machine)}\n\n{whole.rstrip()}\n"


def metrics_table() -> str:
    """Return a table of all metrics that the daemon exports of itself."""
    from modelpack.prefetch.web.metrics import DEFINITIONS

    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for one in DEFINITIONS:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        rows.append(f"| `{one.name}` | {one.kind} | {labels} | {one.help} |")
    return "\n" + "\n".join(rows) + "\n"


def configuration_table() -> str:
    """Return a table of everything that the daemon's configuration may say."""
    schema = json.loads((DOCS.parent / "schemas/daemon.schema.json").read_text())
    rows = ["| member | form | default | meaning |", "|---|---|---|---|"]
    for name, form, default, meaning in members(schema, schema, ""):
        rows.append(f"| `{name}` | {form} | {default} | {meaning} |")
    return "\n" + "\n".join(rows) + "\n"


def members(
    schema: dict[str, Any], part: dict[str, Any], path: str
) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, form, default and meaning of each member of a part of a schema, and below it."""
    for name, given in part.get("properties", {}).items():
        value = _resolved(schema, given)
        default = f"`{json.dumps(value['default'])}`" if "default" in value else ""
        default = "required" if name in part.get("required", []) else default
        whole, form = f"{path}{name}", _form(schema, given, value)
        meaning = (given if form in _FORMS else value).get("description", "")
        if "const" in value and name == "kind":
            yield f"{whole}: {value['const']}", "", "", "What follows belongs to this kind."
            continue
        yield whole, form, default, meaning
        if path == "defaults.":
            continue  # as for one model
        for below, inside in _parts(schema, value):
            yield from members(schema, inside, f"{whole}{below}.")


def _resolved(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    found = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return found | {name: value for name, value in part.items() if name != "$ref"}


def _parts(schema: dict[str, Any], value: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what has members of its own in a value, with what stands between the names."""
    if value.get("type") == "array":
        item = _resolved(schema, value["items"])
        yield from ((f"[]{below}", part) for below, part in _parts(schema, item))
        return
    choices = [_resolved(schema, one) for one in value.get("oneOf", [])]
    objects = [one for one in choices if "properties" in one]
    if len({frozenset(one["properties"]) for one in objects}) == 1:
        yield "", _merged(objects)
    elif objects:
        yield from (("", one) for one in objects)
    elif "properties" in value:
        yield "", value


def _merged(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return forms of one object, which have the same members, as one."""
    first, *others = objects
    members_ = {name: dict(value) for name, value in first["properties"].items()}
    for name, value in members_.items():
        if "enum" in value:
            value["enum"] = [word for one in objects for word in one["properties"][name]["enum"]]
    required = set(first.get("required", [])).intersection(*(one["required"] for one in others))
    return {"properties": members_, "required": required}


def _form(schema: dict[str, Any], given: dict[str, Any], value: dict[str, Any]) -> str:
    """Return in a few words what may be written."""
    if "$ref" in given:
        name = given["$ref"].rpartition("/")[2]
        if name in _FORMS:
            return name
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        words = [f"`{one}`" for one in value["enum"]]
        return f"{words[0]} to {words[-1]}" if "`tue`" in words else " or ".join(words)
    if "oneOf" in value and "properties" not in value:
        forms = [_form(schema, one, _resolved(schema, one)) for one in value["oneOf"]]
        return " or ".join(dict.fromkeys(forms))
    kind = value.get("type", "object")
    if kind == "array":
        return f"list of {_form(schema, value['items'], _resolved(schema, value['items']))}"
    names = {"string": "text", "object": "mapping", "integer": "number", "boolean": "true or false"}
    return names.get(kind, kind)


def sections(path: list[str]) -> list[str]:
    """Return a section for a command and each of its subcommands."""
    text = help_text(path)
    title = " ".join(["modelpack", *path])
    level = "##" if len(path) < 2 else "###"
    found = [f"\n{level} {title}\n\n```text\n{text.strip()}\n```\n"]
    if "\nCommands:" in text:
        for command in _COMMAND.findall(text.partition("\nCommands:\n")[2]):
            found += sections([*path, command])
    return found


def help_text(path: list[str]) -> str:
    """Return what ``--help`` prints, at a fixed width."""
    env = {**os.environ, "COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1"}
    done = subprocess.run(
        [str(MODELPACK), *path, "--help"], env=env, capture_output=True, text=True, check=True
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
