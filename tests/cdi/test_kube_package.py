"""cdi.kube and cdi.shares as packages: nothing imports modelpack."""

import ast
import importlib
from pathlib import Path

import pytest

import cdi

ROOT = Path(cdi.__file__).parent
MODULES = sorted(
    f"cdi.{path.parent.name}.{path.stem}".removesuffix(".__init__")
    for package in ("kube", "shares")
    for path in (ROOT / package).glob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_nothing_imports_modelpack(name):
    path = Path(importlib.import_module(name).__file__)
    imported = {
        node.module or ""
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
    }
    assert not any(module.startswith("modelpack") for module in imported)
