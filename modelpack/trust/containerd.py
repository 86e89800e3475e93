"""containerd's question to an image verifier, and the policy's answer.

Owns reading the call (``BIN -name REF -digest DIGEST -stdin-media-type TYPE``, a descriptor on stdin;
containerd, "Image Verification") and deciding it. Leaves out whether containerd asks at all
(``doctor.py``) and the exit status (the command line).

    request = parse_request(["-name", "registry.example/team/llama:v1", "-digest", digest, ...], raw)
    decision = answer(request, loaded, connection, records)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from modelpack.cache import Cache
from modelpack.connect import open_repository
from modelpack.descriptor import Descriptor
from modelpack.digest import Digest
from modelpack.errors import ModelpackError, UsageError
from modelpack.events import ignore
from modelpack.manifest import load_json
from modelpack.reference import Reference, parse_reference
from modelpack.trust.checking import Decision, check

if TYPE_CHECKING:
    from modelpack.registry.options import ConnectionOptions
    from modelpack.trust.accepted import Records
    from modelpack.trust.policies import LoadedPolicy

DESCRIPTOR_TYPE = "application/vnd.oci.descriptor.v1+json"
# A descriptor is some hundred bytes, with annotations a few thousand.
MAX_STDIN_BYTES = 1024 * 1024
# containerd ends a verifier after ten seconds unless told otherwise. Whoever gave up before that
# can still say why.
PATIENCE_SECONDS = 6.0

_FLAGS = ("name", "digest", "stdin-media-type")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """An image that containerd is about to pull."""

    reference: Reference
    """As the pod names it."""
    digest: Digest
    """Of the manifest or index that it resolved to."""


def parse_request(arguments: Sequence[str], stdin: bytes) -> Request:
    """Read a call; flags as Go's ``flag`` package writes them, in any order.

    Anything that is not understood is an error: a newer containerd may ask something else.

    Raises:
        UsageError: a flag is missing, unknown or given twice, or is no reference or digest.
        FormatError: stdin is no descriptor, or one of another digest.
    """
    flags = _flags(arguments)
    for name in ("name", "digest"):
        if not flags.get(name):
            raise UsageError(f"containerd calls a verifier with -{name}; it is missing")
    digest = Digest.parse(flags["digest"])
    media_type = flags.get("stdin-media-type", DESCRIPTOR_TYPE)
    if media_type != DESCRIPTOR_TYPE:
        raise UsageError(f"stdin holds {media_type!a:.100}, which this version does not know")
    if stdin.strip():
        described = Descriptor.from_json(load_json(stdin, "the descriptor on stdin"), "stdin")
        if described.digest != digest:
            raise UsageError(f"-digest says {digest}, stdin {described.digest}")
    return Request(reference=parse_reference(flags["name"]), digest=digest)


def answer(
    request: Request,
    loaded: "LoadedPolicy",
    connection: "ConnectionOptions",
    records: "Records",
) -> Decision:
    """Return the policy's decision about what containerd resolved, and record it if it is yes.

    Raises:
        ModelpackError: it cannot be decided, which is no yes.
    """
    hasty = replace(connection, patience=PATIENCE_SECONDS)
    with open_repository(request.reference, hasty, observer=ignore) as repository:
        manifest = repository.fetch_manifest(request.digest)
        decision = check(repository, manifest, loaded, records=records, cache=Cache("findings"))
    keeps = decision.rule is not None and decision.rule.freshness.rollback == "refuse"
    if decision.ok and decision.accepted is not None and keeps:
        records.add(request.reference, decision.accepted)
    return decision


def _flags(arguments: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name not in _FLAGS or name in found:
            raise UsageError(f"{argument!a:.100} is not what containerd calls a verifier with")
        if not equals:
            if not rest:
                raise UsageError(f"-{name} has no value")
            value = rest.pop(0)
        found[name] = value
    return found


def reason(decision: Decision | ModelpackError) -> str:
    """Return the one line that containerd shows, with the pull that it refuses."""
    if isinstance(decision, ModelpackError):
        return f"modelpack: {decision}"
    verb = "accepted" if decision.ok else "refused"
    return f"modelpack: {verb} by {decision.source}: {decision.verdicts}"
