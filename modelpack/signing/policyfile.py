"""The policy file: YAML in, ``Policy`` out, with the path of whatever is wrong.

Owns reading the file's text and building values; ``schemas/policy.schema.json`` describes the same
file for editors. Leaves out finding the file, and reading the key files that it names: the caller
passes a function that does.

Everything unknown is an error: a misspelt requirement must not read as no requirement.

    >>> parse_policy(b"rules: [{match: '**', unsigned: true}]", str.encode).rules[0].unsigned
    True
    >>> parse_policy(b"rules: [{match: '**', treshold: 2}]", str.encode)
    Traceback (most recent call last):
    modelpack.errors.UsageError: policy: rules[0].treshold is not known
"""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import yaml

from modelpack.digest import Digest
from modelpack.errors import FormatError, UsageError
from modelpack.signing.keys import PublicKey
from modelpack.signing.patterns import check_pattern
from modelpack.signing.policy import (
    AttestationRule,
    FormatRule,
    Freshness,
    Policy,
    Rule,
)
from modelpack.signing.verify import IdentitySigner, KeySigner, Signer

VERSION = 1
# A policy is written by people; these are far beyond any and keep parsing and evaluating short.
MAX_POLICY_BYTES = 1024 * 1024
MAX_RULES = 256
MAX_SIGNERS = 64
MAX_ATTESTATIONS = 32
MAX_DIGESTS = 1024
MAX_ANNOTATIONS = 64
_MAX_TEXT = 2048
_MAX_DEPTH = 16
# A century; more would not fit a timedelta when written in seconds.
_MAX_AGE = timedelta(days=36525)

_DURATION = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhdw])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORMATS = {
    "pickle": ("refuse", "allowlist", "allow"),
    "keras_lambda": ("refuse", "allow"),
    "unscannable": ("refuse", "allow"),
    "remote_code": ("report", "refuse"),
}

KeyReader = Callable[[str], bytes]
"""Returns the bytes of the key file at a path that the policy names."""


def parse_policy(raw: bytes, read_key: KeyReader, what: str = "policy") -> Policy:
    """Read a policy and the keys that it names; ``what`` names the file in messages.

    Raises:
        UsageError: the file is not a policy, or a key in it cannot be used; the message holds the
            path inside the file, such as ``rules[0].signers[1].issuer``.
    """
    value = load_yaml(raw, what)
    try:
        return _policy(value, read_key)
    except _InvalidError as error:
        raise UsageError(f"{what}: {error}") from error


def load_yaml(raw: bytes, what: str) -> Any:
    """Parse YAML as plain data: no aliases, no repeated keys, no tags, one document.

    Raises:
        UsageError: it is not such YAML.
    """
    if len(raw) > MAX_POLICY_BYTES:
        raise UsageError(f"{what} is larger than {MAX_POLICY_BYTES} bytes")
    try:
        return yaml.load(raw.decode("utf-8"), Loader=_Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"{what} is not valid YAML: {reason}") from error


class _InvalidError(Exception):
    """Something is wrong at a path in the file."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without what lets two readers see different files."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, by which a short file can stand for a huge one, and deep nesting."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not accepted")
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("tags are not accepted")
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {_MAX_DEPTH}")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that occurs twice, of which PyYAML would keep the last."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if any(not isinstance(key, str) for key in keys):
            raise yaml.YAMLError("every key must be a text")
        if len(set(keys)) != len(keys):
            raise yaml.YAMLError("a key occurs twice")
        return super().construct_mapping(node, deep)


def _policy(value: Any, read_key: KeyReader) -> Policy:
    _members(value, "", {"version", "rules", "trust_config"}, required=("rules",))
    version = value.get("version", VERSION)
    if type(version) is not int or version != VERSION:
        raise _InvalidError(f"version is not {VERSION}; a newer modelpack may read it")
    rules = _list(value["rules"], "rules", MAX_RULES)
    if not rules:
        raise _InvalidError("rules is empty, which would refuse everything; write one")
    trust_config = value.get("trust_config")
    return Policy(
        rules=tuple(_rule(rule, f"rules[{number}]", read_key) for number, rule in enumerate(rules)),
        trust_config=None if trust_config is None else _text(trust_config, "trust_config"),
    )


def _rule(value: Any, where: str, read_key: KeyReader) -> Rule:
    _members(
        value,
        where,
        {
            *("match", "signers", "threshold", "unsigned", "deny", "attestations", "formats"),
            *("require_digest", "digests", "annotations", "freshness"),
        },
        required=("match",),
    )
    with _at(f"{where}.match"):
        pattern = check_pattern(_text(value["match"], f"{where}.match"))
    if "deny" in value:
        _members(value, where, {"match", "deny"}, because=" beside deny, which refuses everything")
        return Rule(match=pattern, deny=_text(value["deny"], f"{where}.deny"))
    unsigned = _flag(value.get("unsigned", False), f"{where}.unsigned")
    signers, threshold = _signers(value, where, read_key)
    if unsigned == bool(signers):
        raise _InvalidError(f"{where} needs either signers or 'unsigned: true'")
    attestations = _list(value.get("attestations", []), f"{where}.attestations", MAX_ATTESTATIONS)
    rule = Rule(
        match=pattern,
        signers=signers,
        threshold=threshold,
        unsigned=unsigned,
        attestations=tuple(
            _attestation(item, f"{where}.attestations[{number}]", read_key)
            for number, item in enumerate(attestations)
        ),
        formats=_formats(value.get("formats", {}), f"{where}.formats"),
        require_digest=_flag(value.get("require_digest", False), f"{where}.require_digest"),
        digests=_digests(value.get("digests"), f"{where}.digests"),
        annotations=_annotations(value.get("annotations", {}), f"{where}.annotations"),
        freshness=_freshness(value.get("freshness", {}), f"{where}.freshness"),
    )
    for number, wanted in enumerate(rule.attestations):
        if not wanted.signers and not signers:
            raise _InvalidError(f"{where}.attestations[{number}] needs signers; the rule has none")
    return rule


def _signers(
    value: Mapping[str, Any], where: str, read_key: KeyReader
) -> tuple[tuple[Signer, ...], int]:
    """Read ``signers`` and ``threshold`` of a rule or of an attestation."""
    listed = _list(value.get("signers", []), f"{where}.signers", MAX_SIGNERS)
    if "signers" in value and not listed:
        raise _InvalidError(f"{where}.signers is empty")
    signers: dict[str, Signer] = {}
    for number, item in enumerate(listed):
        signer = _signer(item, f"{where}.signers[{number}]", read_key)
        if signer.identifier in signers:
            raise _InvalidError(f"{where}.signers[{number}] is the same signer as one before it")
        signers[signer.identifier] = signer
    threshold = value.get("threshold", 1)
    if type(threshold) is not int or threshold < 1:
        raise _InvalidError(f"{where}.threshold is not a number from 1 on")
    if threshold > max(len(signers), 1):
        raise _InvalidError(f"{where}.threshold is {threshold}, with {len(signers)} signers")
    return tuple(signers.values()), threshold


def _signer(value: Any, where: str, read_key: KeyReader) -> Signer:
    if isinstance(value, dict) and "key" in value:
        _members(value, where, {"key"})
        path = _text(value["key"], f"{where}.key")
        with _at(f"{where}.key"):
            return KeySigner(name=path, key=PublicKey.from_pem(read_key(path), path))
    _members(value, where, {"identity", "issuer"}, required=("identity", "issuer"))
    return IdentitySigner(
        identity=_text(value["identity"], f"{where}.identity"),
        issuer=_text(value["issuer"], f"{where}.issuer"),
    )


def _attestation(value: Any, where: str, read_key: KeyReader) -> AttestationRule:
    if isinstance(value, str):
        return AttestationRule(predicate_type=_text(value, where))
    _members(value, where, {"type", "signers", "threshold"}, required=("type",))
    signers, threshold = _signers(value, where, read_key)
    return AttestationRule(
        predicate_type=_text(value["type"], f"{where}.type"), signers=signers, threshold=threshold
    )


def _formats(value: Any, where: str) -> FormatRule:
    _members(value, where, set(_FORMATS))
    for name, chosen in value.items():
        if chosen not in _FORMATS[name]:
            raise _InvalidError(f"{where}.{name} is not one of {', '.join(_FORMATS[name])}")
    return FormatRule(**value)


def _digests(value: Any, where: str) -> tuple[Digest, ...]:
    if value is None:
        return ()
    listed = _list(value, where, MAX_DIGESTS)
    if not listed:
        raise _InvalidError(f"{where} is empty, which would refuse everything")
    digests = []
    for number, item in enumerate(listed):
        with _at(f"{where}[{number}]"):
            digests.append(Digest.parse(item))
    return tuple(digests)


def _annotations(value: Any, where: str) -> dict[str, str]:
    _members(value, where, None)
    if len(value) > MAX_ANNOTATIONS:
        raise _InvalidError(f"{where} has more than {MAX_ANNOTATIONS} entries")
    return {name: _text(item, f"{where}.{name}") for name, item in value.items()}


def _freshness(value: Any, where: str) -> Freshness:
    _members(value, where, {"max_age", "rollback"})
    rollback = value.get("rollback", "refuse")
    if rollback not in ("refuse", "allow"):
        raise _InvalidError(f"{where}.rollback is not one of refuse, allow")
    max_age = None
    if "max_age" in value:
        match = _DURATION.match(_text(value["max_age"], f"{where}.max_age"))
        if not match:
            raise _InvalidError(f"{where}.max_age is not a duration such as 90d or 12h")
        seconds = int(match["number"]) * timedelta(**{_UNITS[match["unit"]]: 1}).total_seconds()
        if seconds > _MAX_AGE.total_seconds():
            raise _InvalidError(f"{where}.max_age is longer than a century")
        max_age = timedelta(seconds=seconds)
    return Freshness(max_age=max_age, rollback=rollback)


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Put the path in front of an error that knows nothing of it."""
    try:
        yield
    except (UsageError, FormatError) as error:
        raise _InvalidError(f"{where}: {error}") from error


def _members(
    value: Any,
    where: str,
    known: set[str] | None,
    *,
    required: tuple[str, ...] = (),
    because: str = "",
) -> None:
    if not isinstance(value, dict):
        raise _InvalidError(f"{where or 'the file'} is not a mapping")
    prefix = f"{where}." if where else ""
    if known is not None:
        for name in value:
            if name not in known:
                raise _InvalidError(f"{prefix}{name[:80]} is not known{because}")
    for name in required:
        if name not in value:
            raise _InvalidError(f"{prefix}{name} is missing")


def _list(value: Any, where: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise _InvalidError(f"{where} is not a list")
    if len(value) > most:
        raise _InvalidError(f"{where} has more than {most} entries")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value or len(value) > _MAX_TEXT:
        raise _InvalidError(f"{where} is not a text of 1 to {_MAX_TEXT} characters")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _InvalidError(f"{where} is neither true nor false")
    return value
