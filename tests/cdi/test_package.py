"""The package as a whole: cheap to import, free of modelpack."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cdi

ROOT = Path(cdi.__file__).parent
MODULES = [
    *("__init__", "_reader", "_yaml", "annotations", "cache", "edits", "emit", "errors", "files"),
    *("lint", "names", "nodes", "parse", "spec", "validate", "version"),
]


def test_every_public_name_is_there_and_others_are_not():
    for name in cdi.__all__:
        assert getattr(cdi, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cdi.nonsense


def test_importing_the_package_loads_no_yaml_json_or_third_party():
    code = (
        "import sys; before = set(sys.modules); import cdi; "
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT.parent)!r}); {code}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "cdi" in loaded
    assert loaded.isdisjoint({"yaml", "_yaml", "json", "socket", "subprocess", "modelpack"})
    assert loaded - {"cdi"} <= sys.stdlib_module_names


def test_the_package_imports_only_yaml_the_standard_library_and_itself():
    for name in MODULES:
        tree = ast.parse((ROOT / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                found = {node.module.partition(".")[0]}
            else:
                continue
            assert found <= sys.stdlib_module_names | {"cdi", "yaml"}


def test_the_drawn_tree_of_errors_is_the_whole_tree():
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT.parent).with_suffix("").as_posix().replace("/", ".")
        importlib.import_module(name.removesuffix(".__init__"))
    pending, found = [cdi.errors.CdiError], {}
    while pending:
        error = pending.pop()
        found[error.__name__] = error.exit_code
        pending += error.__subclasses__()
    drawn = re.findall(r"(\w+Error) +(\d)  ?", cdi.errors.__doc__)
    assert {name: int(code) for name, code in drawn} == found
