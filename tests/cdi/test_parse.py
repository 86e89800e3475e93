"""Text to specs: the files in good/ and bad/, round trips, and texts meant to do harm."""

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cdi import _yaml
from cdi.emit import to_json_text, to_yaml
from cdi.errors import InvalidSpecError
from cdi.parse import MAX_SPEC_BYTES, examine, load_value, parse_spec, syntax_of
from tests.cdi.strategies import specs

HERE = Path(__file__).parent
GOOD = sorted((HERE / "good").iterdir())
BAD = sorted(path for path in (HERE / "bad").iterdir() if path.suffix != ".faults")


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_good_files_parse_and_survive_both_syntaxes(path):
    spec = parse_spec(path.read_bytes(), syntax=syntax_of(path), source=path.name)
    assert parse_spec(to_yaml(spec)) == spec
    assert parse_spec(to_json_text(spec), syntax="json") == spec


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.name)
def test_bad_files_have_exactly_these_faults(path):
    spec, faults = examine(path.read_bytes(), syntax=syntax_of(path))
    assert spec is None
    expected = path.with_name(path.name + ".faults").read_text().splitlines()
    assert [str(fault) for fault in faults] == expected


@pytest.mark.parametrize("path", BAD + GOOD, ids=lambda path: path.name)
def test_the_pure_python_yaml_parser_finds_the_same_places(path, monkeypatch):
    _, expected = examine(path.read_bytes(), syntax=syntax_of(path))
    monkeypatch.setattr(_yaml, "_LOADER", yaml.SafeLoader)
    _, found = examine(path.read_bytes(), syntax=syntax_of(path))
    assert [fault.path for fault in found] == [fault.path for fault in expected]


def test_scalars_mean_what_they_mean_to_runtimes():
    spec = parse_spec((HERE / "good" / "scalars.yaml").read_bytes())
    first, second = spec.devices
    assert (first.name, second.name) == ("no", "2026-01-01")
    assert first.annotations == {"released": "2026-01-01", "y": "null", "": "~x"}
    nodes = first.container_edits.device_nodes
    assert [(node.major, node.minor, node.file_mode) for node in nodes] == [
        (195, 1, 0o666),
        (195, 1000, 0o660),
        (195, 10, None),
    ]
    assert [type(node.major) for node in nodes] == [int, int, int]
    assert nodes[1].uid == 0
    assert first.container_edits.intel_rdt.enable_monitoring is True
    assert second.container_edits.env == ("A=é", "5=5")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, None) for text in ("", "~", "null", "Null", "NULL")),
        *((text, True) for text in ("true", "True", "yes", "on", "Y")),
        *((text, False) for text in ("false", "FALSE", "no", "Off", "n")),
        *((text, int(text)) for text in ("0", "-1", "+7", "123456789012345678901234567890")),
        *(("0x1f", 31), ("-0x1F", -31), ("0b101", 5), ("0o17", 15), ("017", 15), ("1_000", 1000)),
        *(
            ("08", 8.0),
            ("1.5", 1.5),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("-1.", -1.0),
            (".inf", float("inf")),
        ),
        *((text, text) for text in ("1:30", "0x", "0b2", "1.2.3", "+", "_1", "0x_", "e3", "1e")),
        *((text, text) for text in ("2026-01-01", "12:30:45", "truee", "1 2", "1" * 65)),
    ],
)
def test_plain_scalars(text, value):
    found, faults = load_value(f"x: {text}", syntax="yaml")
    assert faults == []
    assert found == {"x": value}
    assert type(found["x"]) is type(value)


@pytest.mark.parametrize("text", ["0", "yes", "null", "1.5", ""])
def test_quoted_scalars_are_strings(text):
    assert load_value(f"x: '{text}'", syntax="yaml") == ({"x": text}, [])


def test_without_a_syntax_a_brace_means_json():
    text = '{"cdiVersion": "0.5.0", "cdiVersion": "0.5.0"}'
    _, faults = examine(" \n" + text)
    assert faults[0].reason == "is given twice"  # the JSON reader has no line
    _, faults = examine(text, syntax="yaml")
    assert faults[0].reason == "is given twice (line 1, column 25)"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (r"\ud83d\ude00", r"line 2: holds \ud83d, a surrogate, which runtimes refuse"),
        (r"\udfff", r"line 2: holds \udfff, a surrogate"),
        (r"\/", r"line 2: holds \/, which runtimes refuse"),
        ("\x7f", "line 2: holds U+007F, which runtimes refuse"),
    ],
)
def test_json_that_runtimes_cannot_read_as_yaml(value, reason):
    text = f'{{"cdiVersion":\n"{value}"}}'
    _, (fault,) = examine(text, syntax="json")
    assert fault.path == ""
    assert fault.reason.startswith(reason)
    _, faults = examine(text.replace(value, value.replace("\\", r"\\")), syntax="json")
    assert [fault.path for fault in faults] != [""] or value == "\x7f"


@given(specs())
def test_parse_is_the_inverse_of_emit(spec):
    assert parse_spec(to_yaml(spec)) == spec
    assert parse_spec(to_json_text(spec).encode(), syntax="json") == spec


@given(st.binary(max_size=40) | st.text(max_size=40), st.sampled_from(["json", "yaml", None]))
def test_no_text_makes_the_parser_crash(data, syntax):
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    spec, faults = examine(data, syntax=syntax)
    assert spec is None
    assert faults


@given(st.text(st.sampled_from("{}[]:,-?!&*#|>'\"%@`\n ab01"), max_size=30))
def test_no_yaml_punctuation_makes_the_parser_crash(text):
    spec, faults = examine(text, syntax="yaml")
    assert spec is None
    assert all("\n" not in str(fault) for fault in faults)


@pytest.mark.parametrize(
    ("text", "syntax", "reason"),
    [
        pytest.param("[" * 200_000, "yaml", "nested more than 64 levels", id="flow"),
        pytest.param("- " * 200_000, "yaml", "nested more than 64 levels", id="block"),
        pytest.param("[" * 200_000, "json", "nested more than 64 levels", id="json"),
        pytest.param("[" * 80 + "]" * 80, "json", "nested more than 64 levels", id="json-a-bit"),
        pytest.param("9" * 100_000, "json", "more than 400 digits", id="long-number"),
        pytest.param("x" * (MAX_SPEC_BYTES + 1), "yaml", "larger than", id="large"),
        pytest.param("\x00", "yaml", "not YAML", id="control"),
    ],
)
def test_harmful_texts_are_refused_at_once(text, syntax, reason):
    begin = time.monotonic()
    spec, faults = examine(text, syntax=syntax)
    assert spec is None
    assert len(faults) == 1
    assert reason in faults[0].reason
    assert time.monotonic() - begin < 5


def test_aliases_cannot_multiply_without_end():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 12):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    spec, faults = examine("\n".join(lines), syntax="yaml")
    assert spec is None
    assert [str(fault) for fault in faults] == ["holds more than 500000 values"]


def test_a_long_number_in_yaml_is_not_computed():
    _, faults = examine("cdiVersion: " + "9" * 100_000, syntax="yaml")
    assert faults[0].path == "cdiVersion"


def test_many_repeated_keys_take_linear_time():
    text = "{" + ",".join('"k": 1' for _ in range(200_000)) + "}"
    begin = time.monotonic()
    _, faults = examine(text)
    assert ("k", "is given twice") in [(fault.path, fault.reason) for fault in faults]
    assert time.monotonic() - begin < 5


def test_the_error_names_the_source_and_counts_the_faults():
    with pytest.raises(InvalidSpecError) as info:
        parse_spec('{"cdiVersion": "0.5.0", "kind": "a"}', source="/etc/cdi/a.json")
    assert str(info.value) == "/etc/cdi/a.json: devices: is required (and 1 more fault)"
    assert info.value.source == "/etc/cdi/a.json"
