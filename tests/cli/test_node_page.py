"""What docs/node.md says of the configuration, of reasons and of tests is so."""

import json
import re
from pathlib import Path

import pytest

from tests.support.pages import rows

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/node.md"
SCHEMA = json.loads((ROOT / "schemas/daemon.schema.json").read_text())
REASONS = rows(PAGE, "When something is wrong")
PROMISES = rows(PAGE, "What is promised, and what shows it")
MEMBERS = {row[0].strip("`"): row for row in rows(PAGE, "Configuration")}


def names_in(part):
    """Yield every member's name that a part of the schema has, wherever."""
    if isinstance(part, dict):
        yield from part.get("properties", {})
        for value in part.values():
            yield from names_in(value)
    elif isinstance(part, list):
        for value in part:
            yield from names_in(value)


def source_text():
    """Return the package's text with strings that go over several lines joined."""
    text = "\n".join(path.read_text() for path in (ROOT / "modelpack").rglob("*.py"))
    return re.sub(r"\"\s*\n\s*f?\"", "", text)


def test_the_table_has_every_member():
    last = {re.split(r"[.\]]", name.partition(":")[0])[-1] for name in MEMBERS}
    assert set(names_in(SCHEMA)) - last == set()
    tops = {name for name in MEMBERS if not re.search(r"[.:\[]", name)}
    assert tops == set(SCHEMA["properties"])


@pytest.mark.parametrize("name", ["defaults", "models[]"])
def test_what_models_have_may_have_a_default(name):
    for member, value in SCHEMA["$defs"]["model"]["properties"].items():
        if name == "models[]" or member in SCHEMA["properties"]["defaults"]["properties"]:
            default = f"`{json.dumps(value['default'])}`" if "default" in value else None
            row = MEMBERS[f"{name}.{member}"]
            assert row[2] in {default or "", "required"}


def test_every_member_is_explained():
    assert [name for name, row in MEMBERS.items() if not row[3]] == []


@pytest.mark.parametrize("row", REASONS, ids=lambda row: row[1])
def test_reasons_are_what_the_daemon_says(row):
    stages = (ROOT / "modelpack/prefetch/status.py").read_text()
    assert f'"{row[0]}"' in stages
    (words,) = re.fullmatch("`(.*)`", row[1]).groups()
    assert words in source_text()


def test_every_promise_is_shown_by_tests_that_exist():
    assert [row[0] for row in PROMISES] == list("123456")
    for _, _, shown in PROMISES:
        path = ""
        for test in re.findall("`([^`]+)`", shown):
            path, _, name = test.rpartition("::") if test[0] != ":" else (path, "", test[2:])
            text = (ROOT / path).read_text()
            assert re.search(rf"^def {name}\(", text, re.MULTILINE), test
