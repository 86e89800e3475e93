"""What pages of the documentation have in them, for the tests that hold them to the truth."""

import re
from pathlib import Path


def section(page: Path, title: str) -> str:
    """Return the text below a heading of the second level."""
    text = page.read_text()
    assert f"\n## {title}\n" in text, f"{page.name} has no section {title!r}"
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(page: Path, title: str) -> list[str]:
    """Return the commands in a section."""
    return re.findall(r"^```sh\n(.*?)^```$", section(page, title), re.MULTILINE | re.DOTALL)


def rows(page: Path, title: str) -> list[list[str]]:
    """Return the cells of a section's table, without its head."""
    lines = [line for line in section(page, title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
