"""No import points up: the map in docs/architecture.md is what the modules do.

Every import counts, also one inside a function or for type checking only: it is a dependency all the
same.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = ("modelpack", "cdi")


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")
}


def imports_of(name):
    """Every module that a module imports, of whichever package."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} uses a relative import"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in MODULES else node.module)
    return found


IMPORTS = {name: imports_of(name) for name in MODULES}
INSIDE = {name: {other for other in found if other in MODULES} for name, found in IMPORTS.items()}


def read_map():
    """The lines of the map as {entry: line number}; an entry is a module or a package with '/'."""
    block = DOC.split("## Map", 1)[1].split("```text\n", 1)[1].split("```", 1)[0]
    order = {}
    for number, line in enumerate(line for line in block.splitlines() if line.strip()):
        for entry in re.split(r"\s{2,}", line)[0].split():
            assert re.fullmatch(r"[a-z_]+(/[a-z_]*)?", entry), entry
            assert entry not in order, f"the map has {entry} twice"
            order[entry] = number
    return order


MAP = read_map()


def line_of(name):
    """The line of the map that a module of modelpack is on, None for the package itself."""
    parts = name.split(".")[1:]
    if not parts:
        return None
    for entry in ("/".join(parts[:2]), parts[0] if len(parts) == 1 else "", parts[0] + "/"):
        if entry in MAP:
            return MAP[entry]
    pytest.fail(f"{name} is not on the map in docs/architecture.md")


OURS = sorted(name for name in MODULES if name.startswith("modelpack."))


def test_the_map_was_read():
    assert len(MAP) > 40
    assert MAP["errors"] == 0
    assert MAP["digest"] == 1
    assert MAP["cli/"] > MAP["api"] > MAP["registry/"] > MAP["stores/files"]


def test_every_entry_of_the_map_exists():
    for entry in MAP:
        if entry == "cdi/":
            continue
        path = ROOT / "modelpack" / entry
        assert path.is_dir() if entry.endswith("/") else path.with_suffix(".py").is_file(), entry


@pytest.mark.parametrize("name", OURS)
def test_no_arrow_points_up(name):
    up = [
        other
        for other in sorted(INSIDE[name])
        if other.startswith("modelpack.") and line_of(other) > line_of(name)
    ]
    assert up == []


def test_no_cycles():
    """Also none within a line or a package."""
    assert cycles(INSIDE) == []


def cycles(graph):
    """Strongly connected components of more than one module (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1 or node in graph[node]:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_cycles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert cycles(graph) == [["b", "c"], ["e"]]


def importers(wanted):
    """The modules that import a package or anything in it."""
    return {
        name
        for name, found in IMPORTS.items()
        if any(other == wanted or other.startswith(wanted + ".") for other in found)
    }


def packages(names):
    return {".".join(name.split(".")[:2]) for name in names}


def test_cdi_is_a_library_of_its_own():
    assert not {name for name in importers("modelpack") if name.split(".")[0] == "cdi"}
    outside = {name for name in importers("cdi") if name.split(".")[0] != "cdi"}
    assert packages(outside) <= {"modelpack.cli"}


def test_nothing_imports_the_command_line():
    assert packages(importers("modelpack.cli")) <= {"modelpack.cli"}


def test_the_library_does_not_import_its_front_door():
    for name in importers("modelpack.api"):
        assert name == "modelpack" or name.startswith("modelpack.cli."), name


# Who may import what is heavy, foreign or easily spread: one place each.
ALONE = {
    "sigstore": {"modelpack.signing"},
    "cryptography": {"modelpack.signing"},
    "nacl": {"modelpack.signing"},
    "httpx": {"modelpack.registry"},
    "oras": {"modelpack.registry"},
    "requests": {"modelpack.registry", "modelpack.signing"},
    "typer": {"modelpack.cli"},
    "rich": {"modelpack.cli"},
    "grpc": {"modelpack.runtime"},
    "zstandard": {"modelpack.untar", "modelpack.runtime"},
    "aiohttp": {"modelpack.prefetch"},
    "prometheus_client": {"modelpack.prefetch"},
}


@pytest.mark.parametrize(("library", "places"), ALONE.items(), ids=ALONE)
def test_a_library_has_one_place(library, places):
    assert packages(importers(library)) <= places


def test_oras_has_one_importer():
    assert importers("oras") == {"modelpack.registry._oras"}


# The parts that decide: bytes and values in, bytes and values out.
PURE = [
    "chunkindex",
    "chunking",
    "descriptor",
    "digest",
    "layering",
    "manifest",
    "metadata",
    "paths",
    "plan",
    "reference",
    "schedule",
    "selection",
    "tarformat",
]
WORLD = {
    "os",
    "pathlib",
    "socket",
    "subprocess",
    "threading",
    "time",
    "tempfile",
    "shutil",
    "random",
}


@pytest.mark.parametrize("name", PURE)
def test_what_decides_touches_nothing(name):
    found = {other.split(".")[0] for other in IMPORTS[f"modelpack.{name}"]}
    assert found & WORLD == set()


def test_only_known_third_parties():
    """A new dependency is argued in its ADR, and then listed here."""
    known = {"blake3", "yaml", "zstandard", "httpx", "oras", "requests", "typer", "rich", "nacl"}
    known |= {"cryptography", "sigstore", "sigstore_models", "grpc", "google", "rfc3161_client"}
    known |= {"aiohttp", "prometheus_client"}
    for name, found in IMPORTS.items():
        roots = {other.split(".")[0] for other in found} - set(PACKAGES)
        assert roots - set(sys.stdlib_module_names) <= known, name
