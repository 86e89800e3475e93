"""``modelpack attest REF@DIGEST``."""

from pathlib import Path
from typing import Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli import _trust
from modelpack.cli._output import print_json
from modelpack.cli.sign import print_signed
from modelpack.errors import UsageError

# What a statement may hold (signing/dsse.py), less the statement around it.
_MAX_PREDICATE_BYTES = 23 * 1024 * 1024


def attest_command(
    reference: Annotated[
        str, typer.Argument(metavar="REF@DIGEST", help="What the statement is about.")
    ],
    *,
    predicate: Annotated[
        Path, typer.Option("--predicate", metavar="FILE", help="The statement's content, as JSON.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--type", metavar="TYPE", help="cyclonedx, spdxjson, slsaprovenance1, or a URI."
        ),
    ],
    key: _trust.SignKey = None,
    identity_token: _trust.IdentityToken = None,
    trust_config: _trust.TrustConfig = None,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    json: options.Json = False,
) -> None:
    """Attach a signed statement that you have, such as an SBOM made elsewhere.

    What the artifact itself carries is attested by sign --attest. An attestation is no signature:
    it says something about the model, not that it may be used.
    """
    from modelpack.connect import open_repository
    from modelpack.manifest import load_json
    from modelpack.reference import parse_reference
    from modelpack.signing.statement import COSIGN_SIGN, OMS_SIGNATURE
    from modelpack.trust.authors import read_bounded
    from modelpack.trust.making import attest

    predicate_type = _trust.predicate_type(kind)
    if predicate_type in (COSIGN_SIGN, OMS_SIGNATURE):
        raise UsageError(f"{predicate_type} is a signature; make it with modelpack sign")
    parsed = parse_reference(reference, default_tag=None)
    if parsed.digest is None:
        raise UsageError(f"{reference} names no digest; attest NAME@sha256:… as push printed it")
    raw = read_bounded(predicate, _MAX_PREDICATE_BYTES, "predicate")
    value = load_json(raw, f"predicate {predicate}")
    connection = options.connection_options(
        plain_http=plain_http, ca_file=ca_file, insecure=insecure
    )
    author = _trust.author(key, identity_token, trust_config)
    with open_repository(parsed, connection) as repository:
        manifest = repository.fetch_manifest(parsed.digest)
        result = attest(repository, manifest, author, predicate_type, value)
    if json:
        print_json(result.to_json())
    else:
        print_signed(result)
