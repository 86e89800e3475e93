"""Starting up stays cheap: which modules are loaded, and by whom, before there is anything to do."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What an interpreter loads by itself to find an editable install.
SITE = {"__main__", "_distutils_hack", "__editable___modelpack_oci_0_1_0_finder"}
# Parts of the standard library that take tens of milliseconds, or mean that work has begun.
HEAVY = {"asyncio", "concurrent", "ctypes", "email", "http", "multiprocessing", "socket", "ssl"}
HEAVY |= {"sqlite3", "statistics", "tarfile", "tempfile", "unittest", "urllib", "xml", "zipfile"}


def loaded_by(code):
    """The modules that running ``code`` loads beyond what a bare interpreter has."""
    program = (
        "import sys; before = set(sys.modules)\n"
        f"{code}\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    return set(done.stderr.splitlines()[-1].split())


def run(*arguments):
    return f"from modelpack.cli._run import run; assert run({list(arguments)!r}) == 0"


def foreign(modules):
    roots = {name.partition(".")[0] for name in modules}
    return roots - set(sys.stdlib_module_names) - SITE


def ours(modules):
    return {name for name in modules if name.partition(".")[0] in {"modelpack", "cdi"}}


def roots(modules):
    return {name.partition(".")[0] for name in modules}


def test_importing_the_package_loads_next_to_nothing():
    modules = loaded_by("import modelpack")
    assert ours(modules) == {"modelpack", "modelpack._version"}
    assert foreign(modules) == {"modelpack"}
    assert roots(modules) & (HEAVY | {"json", "re", "pathlib", "dataclasses", "logging"}) == set()


def test_importing_the_command_loads_no_more():
    modules = loaded_by("import modelpack.cli")
    assert ours(modules) == {"modelpack", "modelpack._version", "modelpack.cli"}
    assert foreign(modules) == {"modelpack"}


# Typer asks shellingham for the shell, and annotated_doc for its own signatures.
COMMAND_LINE = {"modelpack", "typer", "annotated_doc", "shellingham", "blake3"}
# Values that options are made of.
VALUES = {"modelpack._version", "modelpack.digest", "modelpack.errors", "modelpack.events"}
VALUES |= {"modelpack.reference", "modelpack"}


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]], ids=" ".join)
def test_help_loads_the_command_line_only(arguments):
    modules = loaded_by(run(*arguments))
    assert foreign(modules) <= COMMAND_LINE
    assert {name for name in ours(modules) if not name.startswith("modelpack.cli")} <= VALUES
    assert roots(modules) & HEAVY == set()


@pytest.mark.parametrize(
    "verb", ["push", "pull", "verify", "inspect", "copy", "diff", "sign", "cdi"]
)
def test_help_of_a_verb_does_not_load_what_the_verb_works_with(verb):
    """Typer itself brings pydantic along where options have types of their own."""
    modules = loaded_by(run(verb, "--help"))
    assert foreign(modules) & {
        *("httpx", "httpcore", "oras", "requests", "urllib3", "sigstore", "cryptography", "nacl"),
        *("grpc", "yaml", "zstandard", "cyclonedx", "numpy", "tuf"),
    } == set()  # fmt: skip
    assert {name for name in ours(modules) if not name.startswith("modelpack.cli")} <= VALUES


NETWORK = {"httpx", "httpcore", "oras", "requests", "urllib3", "grpc"}
TRUST = {"sigstore", "cryptography", "nacl", "tuf", "pydantic"}
SCREEN = {"typer", "rich", "click"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import modelpack.api", NETWORK | TRUST | SCREEN | {"zstandard"}),
        ("import modelpack; modelpack.push, modelpack.pull", NETWORK | TRUST | SCREEN),
        ("import modelpack.signing", NETWORK | TRUST | SCREEN | {"yaml"}),
        ("import modelpack.registry.repository", TRUST | SCREEN | {"oras", "requests", "grpc"}),
        ("import cdi", NETWORK | TRUST | SCREEN | {"modelpack", "yaml", "blake3"}),
    ],
    ids=lambda value: value.partition(";")[0] if isinstance(value, str) else "",
)
def test_what_the_library_does_not_load(code, absent):
    assert foreign(loaded_by(code)) & absent == set()


def test_a_layout_needs_no_network_code(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    code = (
        f"import os; os.environ['XDG_CACHE_HOME'] = {str(tmp_path / 'cache')!r}\n"
        f"import modelpack\n"
        f"modelpack.push({str(model)!r}, 'oci:{tmp_path}/store:v1')\n"
        f"modelpack.pull('oci:{tmp_path}/store:v1', {str(tmp_path / 'out')!r})\n"
        f"assert modelpack.verify({str(tmp_path / 'out')!r}).ok\n"
    )
    assert foreign(loaded_by(code)) & (NETWORK | TRUST | SCREEN) == set()
    assert (tmp_path / "out" / "config.json").read_text() == "{}"


def test_help_takes_no_time():
    """A sanity bound with a wide margin: 0.18 s of processor time on two cores, 0.02 s of it Python."""

    def cost(*command):
        import resource

        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    started = time.perf_counter()
    bare = min(cost(sys.executable, "-c", "pass") for _ in range(3))
    full = min(
        cost(sys.executable, "-c", "from modelpack.cli import main; main()", "-h") for _ in range(3)
    )
    assert full - bare < 1.0
    assert time.perf_counter() - started < 30
