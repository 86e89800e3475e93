"""``modelpack sign REF@DIGEST``, and what ``push --sign`` shares with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli import _trust
from modelpack.cli._output import print_json, print_text
from modelpack.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelpack.reference import Reference
    from modelpack.registry.options import ConnectionOptions
    from modelpack.scan import ScannedFile
    from modelpack.trust.authors import Author
    from modelpack.trust.making import SigningOptions, SigningResult


def sign_command(
    reference: Annotated[
        str, typer.Argument(metavar="REF@DIGEST", help="What to sign, by its digest.")
    ],
    *,
    resolve: Annotated[
        bool, typer.Option("--resolve", help="Sign whatever a tag names now, and say what it was.")
    ] = False,
    key: _trust.SignKey = None,
    identity_token: _trust.IdentityToken = None,
    trust_config: _trust.TrustConfig = None,
    attest: _trust.Attest = "",
    no_files: _trust.NoFiles = False,
    oms_hash: _trust.OmsHash = "blake3",
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            metavar="DIR",
            help="The files that were pushed, for --oms-hash sha256.",
            rich_help_panel="Signing",
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(
            "--prefix",
            metavar="PATH",
            help="The --prefix that the directory was pushed with.",
            rich_help_panel="Signing",
        ),
    ] = "",
    legacy_sig: _trust.LegacySig = False,
    bundle: _trust.Bundle = None,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    json: options.Json = False,
) -> None:
    """Sign a model where it is stored: its manifest and its files, with a key or an identity.

    cosign verifies the manifest's signature, model_signing the one over the files. A tag can be
    moved, so a digest is asked for.
    """
    from modelpack.reference import parse_reference

    parsed = parse_reference(reference, default_tag=None)
    if parsed.digest is None and not resolve:
        raise UsageError(
            f"{reference} names no digest, and a tag can be moved: sign NAME@sha256:… as push "
            "printed it, or with --resolve what the tag names now"
        )
    connection = options.connection_options(
        plain_http=plain_http, ca_file=ca_file, insecure=insecure
    )
    chosen = signing_options(
        no_files=no_files,
        oms_hash=oms_hash,
        sources=sources(oms_hash, directory, prefix=prefix),
        attest=attest,
        legacy_sig=legacy_sig,
    )
    result = sign_reference(
        parsed, _trust.author(key, identity_token, trust_config), chosen, connection
    )
    write_bundle(bundle, result)
    if json:
        print_json(result.to_json())
    else:
        print_signed(result)


def author_of_push(
    *, sign: bool, key: str | None, identity_token: str | None, trust_config: Path | None
) -> "Author | None":
    """Return who signs what a push will make, None without ``--sign``.

    Raises:
        UsageError: options of signing without it, or a key that cannot be used.
    """
    if sign:
        return _trust.author(key, identity_token, trust_config)
    if key is not None or identity_token is not None or trust_config is not None:
        raise UsageError("--key, --identity-token and --trust-config need --sign")
    return None


def signing_options(
    *,
    no_files: bool,
    oms_hash: str,
    sources: "Mapping[str, ScannedFile]",
    attest: str,
    legacy_sig: bool,
) -> "SigningOptions":
    """Join the options about what is signed."""
    from modelpack.trust.making import SigningOptions

    return SigningOptions(
        files=not no_files,
        files_hash=oms_hash,
        sources=sources,
        attest=_trust.attestation_kinds(attest),
        legacy=legacy_sig,
    )


def sources(
    oms_hash: str,
    directory: Path | None,
    *,
    prefix: str,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
) -> "Mapping[str, ScannedFile]":
    """Return the local files that signing will read, by path in the artifact; none for BLAKE3."""
    if oms_hash != "sha256" or directory is None:
        return {}
    from modelpack.scan import scan_directory
    from modelpack.selection import Selection

    selection = Selection(include=tuple(include or ()), exclude=tuple(exclude or ()))
    scan = scan_directory(directory, selection=selection, prefix=prefix)
    return {file.path: file for file in scan.files}


def sign_pushed(
    reference: str,
    digest: str,
    author: "Author",
    connection: "ConnectionOptions",
    chosen: "SigningOptions",
) -> "SigningResult":
    """Sign what a push has just stored, by the digest it printed."""
    from modelpack.digest import Digest
    from modelpack.reference import parse_reference

    pinned = parse_reference(reference).with_digest(Digest.parse(digest))
    return sign_reference(pinned, author, chosen, connection)


def sign_reference(
    reference: "Reference",
    author: "Author",
    chosen: "SigningOptions",
    connection: "ConnectionOptions",
) -> "SigningResult":
    """Sign what a reference names; without a digest, what its tag names now."""
    from modelpack.connect import open_repository
    from modelpack.trust.making import sign_model

    name = reference.digest or reference.tag
    if name is None:
        raise UsageError(f"{reference} has neither tag nor digest")
    with open_repository(reference, connection) as repository:
        return sign_model(repository, repository.fetch_manifest(name), author, chosen)


def write_bundle(path: Path | None, result: "SigningResult") -> None:
    """Write the signature of the manifest to a file, if asked for."""
    if path is None or result.bundle is None:
        return
    try:
        path.write_bytes(result.bundle)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def print_signed(result: "SigningResult") -> None:
    """Print what was signed."""
    print_text(f"signed {result.reference}\n  {result.digest} by {result.signer}")
    for one in result.attached:
        print_text(f"  {one.predicate_type}\n    {one.manifest}")
    for predicate_type in result.unchanged:
        print_text(f"  {predicate_type}\n    signed before")
