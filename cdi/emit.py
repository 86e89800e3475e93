"""Write a spec as text: the same spec always gives the same bytes.

Owns field order, quoting and line ends. Leaves out files (:mod:`cdi.files`).

Fields come in the specification's order and annotations by key. In YAML a string stays bare only
when no YAML reader, 1.1 or 1.2, could take it for anything else: a device named ``1e3`` or ``no``
is quoted, since a Go reader and a Python reader disagree about it otherwise.

>>> from cdi.spec import ContainerEdits, Device, Spec
>>> device = Device(name="0", container_edits=ContainerEdits(env=("A=1",)))
>>> print(to_yaml(Spec(cdi_version="0.5.0", kind="example.com/gpu", devices=(device,))), end="")
cdiVersion: "0.5.0"
kind: example.com/gpu
devices:
- name: "0"
  containerEdits:
    env:
    - A=1
"""

import json
import re
from collections.abc import Iterator

from cdi.spec import Spec

# A letter or a slash first, and then nothing that YAML gives a meaning: no space, quote, comma or
# bracket, and no colon at the end. Words that some reader takes for a boolean or null are excluded.
_BARE = re.compile(r"[A-Za-z/]([A-Za-z0-9_./:=@+-]*[A-Za-z0-9_./=@+-])?")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
# YAML refuses these where JSON does not, or takes them for line ends.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# YAML: a longer key must be marked as one.
_MAX_PLAIN_KEY = 1000


def to_yaml(spec: Spec) -> str:
    """Return the spec as one YAML document with a line end at its end; deterministic.

    Written out here, so that the bytes depend neither on PyYAML's version nor on whether it was
    built with libyaml.
    """
    return yaml_text(spec.to_json())


def yaml_text(value: object) -> str:
    """Return plain values (objects, arrays, strings, numbers, booleans) as one YAML document.

    Deterministic; fields keep their order. An empty object or array stands on one line.
    """
    if not value or not isinstance(value, (dict, list)):
        return _scalar(value) + "\n"
    return "\n".join(_lines(value, "")) + "\n"


def to_json_text(spec: Spec) -> str:
    """Return the spec as JSON, indented by two, with a line end at its end; deterministic.

    The text is YAML too, since runtimes read it as such: no character is escaped as a surrogate
    pair, and no control character stands for itself.
    """
    return _escape(json.dumps(spec.to_json(), ensure_ascii=False, indent=2)) + "\n"


def _escape(text: str) -> str:
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _lines(value: object, indent: str) -> Iterator[str]:
    """Yield the lines of a filled object or array, at the given indentation."""
    if isinstance(value, dict):
        for key, inner in value.items():
            name = _scalar(key)
            mark = f"{indent}{name}:"
            if len(name) > _MAX_PLAIN_KEY:
                yield f"{indent}? {name}"
                mark = f"{indent}:"
            if not inner or not isinstance(inner, (dict, list)):
                yield f"{mark} {_scalar(inner)}"
                continue
            yield mark
            # An array begins at its key's own column.
            yield from _lines(inner, indent if isinstance(inner, list) else indent + "  ")
    elif isinstance(value, list):
        for inner in value:
            if not inner or not isinstance(inner, (dict, list)):
                yield f"{indent}- {_scalar(inner)}"
                continue
            first, *rest = _lines(inner, indent + "  ")
            yield f"{indent}- {first[len(indent) + 2 :]}"
            yield from rest


def _scalar(value: object) -> str:
    """Return a string, number, boolean, or empty object or array on one line."""
    if isinstance(value, str) and _BARE.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return _escape(json.dumps(value, ensure_ascii=False))
