"""Rewrite the generated parts of the documentation.

``docs/cli.md`` is made from the commands' own help, ``docs/metrics.md`` from the metrics' definitions.

python docs/generate.py           # rewrite
python docs/generate.py --check   # exit 1 if something is out of date
"""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

DOCS = Path(__file__).resolve().parent
MODELPACK = Path(sysconfig.get_path("scripts")) / "modelpack"
MARK = "<!-- below this line: written by docs/generate.py -->\n"
# The first word of an indented line below "Commands:" is a command.
_COMMAND = re.compile(r"^  ([a-z0-9][a-z0-9-]*)", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Write or check the pages; return the exit status."""
    pages = {"cli.md": lambda: "".join(sections([])), "metrics.md": metrics_table}
    changed = False
    for name, generate in pages.items():
        page = DOCS / name
        current = page.read_text()
        wanted = current.partition(MARK)[0] + MARK + generate()
        changed |= wanted != current
        if "--check" not in arguments:
            page.write_text(wanted)
    return int(changed and "--check" in arguments)


def metrics_table() -> str:
    """Return a table of all metrics that the daemon exports of itself."""
    from modelpack.prefetch.web.metrics import DEFINITIONS

    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for one in DEFINITIONS:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        rows.append(f"| `{one.name}` | {one.kind} | {labels} | {one.help} |")
    return "\n" + "\n".join(rows) + "\n"


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
