"""JSON that makes loaders run code: Keras layers, ``auto_map``, chat templates.

Owns reading such JSON. Leaves out archives (``scan.py`` opens ``.keras`` files).

A Keras configuration names classes by module, and Keras imports what it names (CVE-2025-1550,
CVE-2025-8747); a ``Lambda`` layer holds marshalled bytecode. So modules are taken from a short list
of those that hold layers and their parts.

    >>> judge_config("config.json", b'{"auto_map": {"AutoModel": "modeling.Net"}}')[0].kind
    'remote-code'
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from modelpack.errors import FormatError
from modelpack.manifest import load_json
from modelpack.unsafe.finding import Finding

# tokenizer.json can have 30 MB, but no architecture has; larger JSON is not parsed.
MAX_JSON_BYTES = 16 * 1024 * 1024
_MAX_REASONS = 8
_SHOWN = 80

# Keras 3 and tf.keras serialise layers and their parts from these; utilities and the legacy
# loaders, which open files and URLs, are left out on purpose.
_KERAS_ROOTS = ("keras", "tf_keras", "keras.src", "tensorflow.keras", "tf_keras.src")
_KERAS_PARTS = frozenset(
    {
        *("activations", "constraints", "dtype_policies", "initializers", "layers", "losses"),
        *("metrics", "models", "optimizers", "quantizers", "regularizers", "random"),
    }
)
_LAMBDA = frozenset({"Lambda", "__lambda__"})
# Layers that load a program from somewhere: a pickled module (CVE-2025-49655), a SavedModel, a
# pickled function.
_LOADERS = frozenset({"TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"})
# Keras looks dotted names up, too, and so beyond the module that is named beside them.
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:>[A-Za-z_][A-Za-z0-9_]*)?")


def judge_config(path: str, raw: bytes) -> tuple[Finding, ...]:
    """Return what a JSON file asks a loader to run; nothing when it is not JSON."""
    try:
        value = load_json(raw, path)
    except FormatError:
        # Whoever loads it will fail too. Loaders differ on duplicate keys only, so look again.
        value = _lenient(raw)
    findings = [*_remote_code(path, value)]
    reasons = keras_reasons(value)
    if reasons:
        findings.append(
            Finding(path=path, kind="keras", danger="unsafe", detail="; ".join(reasons))
        )
    return tuple(findings)


def keras_reasons(value: Any) -> tuple[str, ...]:
    """Return why a Keras configuration must not be deserialised."""
    reasons: dict[str, None] = {}
    for item in _objects(value):
        name = item.get("class_name")
        if not isinstance(name, str):
            continue
        if name in _LAMBDA:
            reasons["has a Lambda layer, which holds bytecode"] = None
        elif name in _LOADERS:
            reasons[f"has a {name}, which loads a program"] = None
        elif not _plain_name(name, item.get("config")):
            reasons[f"names {_shown(name)}, {_shown(item.get('config'))}"] = None
        if _reads_a_file(item.get("config")):
            reasons["reads its vocabulary from a file of this machine"] = None
        module = item.get("module")
        if module is not None and not _plain_module(module, name):
            reasons[f"names {str(module)[:_SHOWN]!a}, class {name[:_SHOWN]!a}"] = None
        if len(reasons) >= _MAX_REASONS:
            break
    return tuple(reasons)


def _plain_module(module: object, name: str) -> bool:
    if not isinstance(module, str):
        return False
    if module in ("keras", "tf_keras"):
        return True
    # Keras looks such functions up among its own activations, losses and metrics.
    if module == "builtins":
        return name == "function"
    for root in _KERAS_ROOTS:
        rest = module.removeprefix(root + ".")
        if rest != module and rest.split(".")[0] in _KERAS_PARTS:
            return True
    return False


def _plain_name(name: str, config: object) -> bool:
    if not _IDENTIFIER.fullmatch(name):
        return False
    # Of a function the configuration is its name.
    named = name == "function" and isinstance(config, str)
    return not named or bool(_IDENTIFIER.fullmatch(str(config)))


def _reads_a_file(config: object) -> bool:
    """Tell whether a layer takes its vocabulary from a path or URL (CVE-2025-12058)."""
    return isinstance(config, dict) and isinstance(config.get("vocabulary"), str)


def _shown(value: object) -> str:
    return ascii(str(value)[:_SHOWN])


def _remote_code(path: str, value: Any) -> Iterator[Finding]:
    if not isinstance(value, dict):
        return
    if any("auto_map" in item for item in _objects(value)):
        yield Finding(
            path=path,
            kind="remote-code",
            danger="note",
            detail="auto_map names Python code that loaders run when told to trust it",
        )
    if value.get("chat_template"):
        yield Finding(
            path=path,
            kind="chat-template",
            danger="note",
            detail="has a chat template, which loaders run in a sandbox",
        )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in ``value``, however deep, without recursion."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _lenient(raw: bytes) -> Any:
    try:
        # Given bytes, Python's reader takes UTF-16 and UTF-32, too.
        text = raw.decode(json.detect_encoding(raw), "replace")
        return json.loads(text, object_pairs_hook=_every_pair)
    except (ValueError, RecursionError):
        return None


def _every_pair(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keep all values of a repeated key, since a loader may take either."""
    value = dict(pairs)
    if len(value) != len(pairs):
        value["\0all"] = [{key: item} for key, item in pairs]
    return value
