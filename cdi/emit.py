"""Write a spec as text: the same spec always gives the same bytes.

Owns field order, quoting and line ends. Leaves out files (:mod:`cdi.cache`).

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
import sys

import yaml

from cdi.spec import Spec

# A letter or a slash first, and then nothing that YAML gives a meaning: no space, quote, comma or
# bracket, and no colon at the end. Words that some reader takes for a boolean or null are excluded.
_BARE = re.compile(r"[A-Za-z/]([A-Za-z0-9_./:=@+-]*[A-Za-z0-9_./=@+-])?")
# Runtimes read JSON files with a YAML parser, which refuses these where JSON does not, or takes them
# for line ends.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class _Dumper(yaml.SafeDumper):
    """PyYAML's emitter with this module's quoting, and without anchors for equal values."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class's signature
        return True


def _represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    bare = _BARE.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if bare else '"')


_Dumper.add_representer(str, _represent_str)


def to_yaml(spec: Spec) -> str:
    """Return the spec as one YAML document with a line end at its end; deterministic."""
    text: str = yaml.dump(
        spec.to_json(),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=sys.maxsize,
    )
    return text


def to_json_text(spec: Spec) -> str:
    """Return the spec as JSON, indented by two, with a line end at its end; deterministic.

    The text is YAML too, for the runtimes that read it as such: no character is escaped as a
    surrogate pair, and no control character stands for itself.
    """
    text = json.dumps(spec.to_json(), ensure_ascii=False, indent=2)
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"
