import ast
from pathlib import Path

import pytest

import modelpack

ROOT = Path(modelpack.__file__).parent
MODULES = {
    f"modelpack.{path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}": path
    for package in ("signing", "unsafe")
    for path in sorted((ROOT / package).glob("*.py"))
    if path.name != "__init__.py"
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("sigstore", {"keyless"}),
        ("sigstore_models", {"keyless"}),
        ("requests", {"keyless"}),
        ("cryptography", {"keyless", "keys"}),
        ("nacl", {"keys", "cosignkey"}),
        ("yaml", {"policyfile"}),
        ("httpx", set()),
        ("pickle", set()),
    ],
)
def test_who_may_import_a_library(library, allowed):
    found = {
        path.stem
        for path in MODULES.values()
        if any(name.partition(".")[0] == library for name in imports(path))
    }
    assert found == allowed


def test_unsafe_does_not_know_signing():
    for name, path in MODULES.items():
        if ".unsafe." in name:
            assert not any(found.startswith("modelpack.signing") for found in imports(path))
