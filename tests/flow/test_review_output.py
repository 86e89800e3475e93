"""Nothing that came from elsewhere drives the terminal, and no name stops the output."""

import io
import json
import os
import subprocess
import sys

import pytest

import modelpack
from modelpack.cli import _output, _run
from modelpack.cli._progress import progress
from modelpack.digest import Digest
from modelpack.events import Resolved, Retried, Warned
from tests.support.models import write_files

EVIL = "a\x1b]0;owned\x07\u202egnp.exe\x9b31m"


class Stream(io.TextIOWrapper):
    def __init__(self, *, tty=True, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self._tty = tty

    def isatty(self):
        return self._tty

    @property
    def text(self):
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def on_terminal(monkeypatch):
    """Put a terminal in the place of both outputs, and return what was written to each."""

    def replace():
        out, err = Stream(), Stream()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setenv("TERM", "dumb")
        return out, err

    return replace


def is_safe(text):
    return all(character.isprintable() or character == "\n" for character in text)


def test_data_on_a_terminal_is_made_safe(on_terminal):
    out, _ = on_terminal()
    _output.print_text(f"name: {EVIL}\nsecond\tcolumn")
    assert is_safe(out.text.replace("\t", ""))
    assert "\nsecond\tcolumn\n" in out.text
    assert "\\x1b" in out.text


def test_data_in_a_pipe_is_what_it_is(monkeypatch):
    out = Stream(tty=False)
    monkeypatch.setattr(sys, "stdout", out)
    _output.print_text("zero\u200dwidth")
    assert out.text == "zero\u200dwidth\n"


def test_prose_is_made_safe(on_terminal):
    _, err = on_terminal()
    _output.print_note(f"note: {EVIL}\nnext")
    _run._complain(EVIL)
    with progress("pulling") as observer:
        observer(Resolved(reference=EVIL, digest=Digest.of(b"")))
        observer(Warned(message=EVIL))
        observer(Retried(what=EVIL, reason=EVIL, delay=1))
    assert is_safe(err.text)
    assert len(err.text.splitlines()) == 6


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("name", ["\udcff", "日本", "é\ud800"], ids=ascii)
def test_any_name_can_be_printed(name, encoding, monkeypatch):
    out = Stream(tty=False, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    _output.print_json({"name": name})
    assert json.loads(out.text) == {"name": name}
    _output.print_text(name)


def test_names_of_extra_files_are_one_safe_line_each(tmp_path, on_terminal):
    model = write_files(tmp_path / "model", {"a": b"x"})
    modelpack.push(model, f"oci:{tmp_path / 's'}:v1", use_cache=False)
    modelpack.pull(f"oci:{tmp_path / 's'}:v1", tmp_path / "out")
    with open(os.fsencode(tmp_path / "out") + b"/bad\xff\x1b[31m\nextra: b", "wb"):
        pass
    out, _ = on_terminal()
    assert _run.run(["verify", str(tmp_path / "out")]) == 5
    assert len(out.text.splitlines()) == 1
    assert is_safe(out.text)


def test_an_error_of_the_system_that_slipped_through_is_not_called_a_fault(on_terminal):
    _, err = on_terminal()
    assert _run._report(OSError(28, "No space left on device", "/some/file"), []) == 8
    assert _run._report(OSError(13, "Permission denied", "/some/file"), []) == 1
    lines = err.text.splitlines()
    assert (
        lines[0] == "modelpack: /some/file: No space left on device; free some space and run again"
    )
    assert lines[1] == "modelpack: /some/file: Permission denied"


def test_a_reader_that_left_is_not_an_error():
    done = subprocess.run(
        f"{sys.executable} -c 'from modelpack.cli import main; main()' --help | head -1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
