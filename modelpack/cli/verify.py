"""``modelpack verify REF|DIR``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli._output import human_bytes, print_json, print_text
from modelpack.cli._progress import progress
from modelpack.errors import IntegrityError

if TYPE_CHECKING:
    from modelpack.verifying import DirectoryReport, ReferenceReport


def verify_command(
    subject: Annotated[
        str,
        typer.Argument(metavar="REF|DIR", help="A reference, a pulled directory or a mount."),
    ],
    *,
    full: Annotated[
        bool, typer.Option("--full", help="For a reference: fetch and hash every byte.")
    ] = False,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check a directory or mounted volume against its own chunk index, or what is at a reference.

    A directory is hashed in full, offline; every missing, changed and extra file is named. A
    reference is checked without fetching weights, unless --full.
    """
    from modelpack.api import verify, verify_reference

    report: DirectoryReport | ReferenceReport
    with progress("verifying", quiet=quiet or json) as observer:
        if is_directory(subject):
            report = verify(subject, observer=observer)
        else:
            connection = options.connection_options(
                plain_http=plain_http, ca_file=ca_file, insecure=insecure
            )
            report = verify_reference(subject, full=full, connection=connection, observer=observer)
    if json:
        print_json(report.to_json())
    else:
        _print(report)
    if not report.ok:
        raise IntegrityError(f"{subject} is not what it should be{_advice(report)}")


def is_directory(subject: str) -> bool:
    """Tell whether a verb's subject names a directory rather than a reference."""
    return not subject.startswith("oci:") and (
        Path(subject).is_dir() or subject.startswith(("/", "./", "../"))
    )


def _print(report: "DirectoryReport | ReferenceReport") -> None:
    for kind in ("missing", "changed", "extra"):
        for name in getattr(report, kind, ()):
            print_text(f"{kind}: {name}")
    if report.ok:
        of = f" of {report.reference}@{report.digest}" if report.digest else ""
        print_text(f"ok: {report.files} files, {human_bytes(report.bytes)}{of}")


def _advice(report: "DirectoryReport | ReferenceReport") -> str:
    reference = getattr(report, "reference", None)
    if getattr(report, "directory", None) and reference and (report.missing or report.changed):
        return f"; modelpack pull {reference} repairs it"
    return ""
