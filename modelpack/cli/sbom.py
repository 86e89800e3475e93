"""``modelpack sbom REF|DIR``."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modelpack.cli import _options as options
from modelpack.cli import _show as show
from modelpack.cli._output import human_bytes, print_json, print_note, print_text, visible
from modelpack.cli._progress import progress

if TYPE_CHECKING:
    from modelpack.registry.options import ConnectionOptions
    from modelpack.sbom.completeness import Completeness
    from modelpack.sbom.sources import Source
    from modelpack.sbom.supplement import Supplement

_WHAT = "What is in it"
_CHECK = "Completeness"
_OUTPUT = "Output"
_FIXED = {"no_wrap": True}
_STYLES = {"present": "green", "missing": "yellow", "unknown": "dim"}
_STANDARD_OUTPUT = Path("-")
# All that one package can lack; a list of datasets would repeat them.
_MAX_GAPS = 5


def sbom_command(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="REF|DIR", help="A reference, or any model directory.", parser=options.subject
        ),
    ],
    *,
    form: Annotated[
        Literal["cyclonedx", "spdx"],
        typer.Option("--format", help="CycloneDX 1.6, or SPDX 3.0.1.", rich_help_panel=_OUTPUT),
    ] = "cyclonedx",
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE|-", help="Where it goes.", rich_help_panel=_OUTPUT
        ),
    ] = _STANDARD_OUTPUT,
    supplement: Annotated[
        Path | None,
        typer.Option(
            "--supplement",
            metavar="FILE",
            help="Add what only people know, from this YAML file.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    sha256: Annotated[
        bool,
        typer.Option(
            "--sha256",
            help="For a directory: hash every file with SHA-256 too, by reading all of them.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Print what of the G7's minimum elements for AI is present, missing or unknown.",
            rich_help_panel=_CHECK,
        ),
    ] = False,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="ELEMENT",
            help="With --check: exit 6 if this element, or one of this cluster, is not present; "
            "may be repeated.",
            rich_help_panel=_CHECK,
        ),
    ] = None,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the SBOM of a model: the one it carries if it carries one, else one made now.

    It names the files with their hashes, licences, base model, datasets and what the model's own
    files say. What nobody states is left out. For a reference no weights are fetched.
    """
    from modelpack.sbom.completeness import required_elements
    from modelpack.sbom.texts import source_date

    checks = check or bool(require)
    required = required_elements(require or ())
    timestamp = source_date(os.environ)
    added = read_supplement(supplement) if supplement else None
    connection = options.connection_options(
        plain_http=plain_http, ca_file=ca_file, insecure=insecure
    )
    source = _open(subject, connection, quiet=quiet or json)
    show.print_warnings(source.warnings)
    hashes = _sha256(source) if sha256 else None
    document = source.cyclonedx(supplement=added, sha256=hashes, timestamp=timestamp)
    written = document
    if form == "spdx":
        from modelpack.sbom.spdx import write_spdx

        made = source.subject(supplement=added, sha256=hashes)
        written = write_spdx(made, created=timestamp or datetime.now(UTC))
        if not (quiet or json):
            _note_profiles(written)
    if output != _STANDARD_OUTPUT:
        from modelpack.stores.files import write_atomically

        write_atomically(output, written)
    elif not checks:
        print_text(written.decode())
    if checks:
        _check(source, document, required, json=json)
    elif output != _STANDARD_OUTPUT:
        _say(source, output, form, len(written), carried=written == source.in_band, json=json)


def read_supplement(path: Path) -> "Supplement":
    """Read what only people know; ``push --supplement`` reads it, too.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is no supplement.
    """
    from modelpack.errors import NotFoundError
    from modelpack.sbom.supplementfile import MAX_SUPPLEMENT_BYTES, parse_supplement
    from modelpack.stores.files import mapped_errors

    if not path.exists():
        raise NotFoundError(f"{path} does not exist; --supplement takes a YAML file")
    with mapped_errors(f"cannot read {path}"), open(path, "rb") as file:
        return parse_supplement(file.read(MAX_SUPPLEMENT_BYTES + 1), str(path))


def _open(subject: str, connection: "ConnectionOptions", *, quiet: bool) -> "Source":
    from modelpack.connect import names_directory, open_repository
    from modelpack.sbom.sources import directory_source, reference_source

    if names_directory(subject):
        with progress("hashing", quiet=quiet) as observer:
            return directory_source(Path(subject), observer=observer)
    with open_repository(subject, connection) as repository:
        return reference_source(repository)


def _sha256(source: "Source") -> dict[str, str]:
    from modelpack.errors import UsageError
    from modelpack.sbom.sources import sha256_of_files

    if source.directory is None:
        raise UsageError(f"{source.name}: --sha256 needs the files; pull it and name the directory")
    return sha256_of_files(source)


def _note_profiles(written: bytes) -> None:
    """Say which profiles of SPDX the document does not claim, and why."""
    from modelpack.manifest import load_json
    from modelpack.sbom.spdxrules import ai_gaps, dataset_gaps

    graph = load_json(written, "SBOM")["@graph"]
    for profile, gaps in (("ai", ai_gaps(graph)), ("dataset", dataset_gaps(graph))):
        if gaps:
            shown = "; ".join(gaps[:_MAX_GAPS]) + ("; ..." if len(gaps) > _MAX_GAPS else "")
            print_note(visible(f"note: it does not claim SPDX's {profile} profile: {shown}"))


def _say(
    source: "Source", output: Path, form: str, size: int, *, carried: bool, json: bool
) -> None:
    if json:
        print_json(
            {
                "subject": source.name,
                "digest": source.digest,
                "format": form,
                "output": str(output),
                "bytes": size,
                "in_band": carried,
                "files": len(source.index.files),
            }
        )
        return
    origin = "as the artifact carries it" if carried else "made now"
    print_note(
        f"wrote {output}: {form}, {human_bytes(size)}, "
        f"{show.plural(len(source.index.files), 'file')}, {origin}"
    )


def _check(source: "Source", document: bytes, required: frozenset[str], *, json: bool) -> None:
    from modelpack.errors import PolicyError
    from modelpack.manifest import load_json
    from modelpack.sbom.completeness import assess

    report = assess(load_json(document, "SBOM"))
    lacking = report.lacking(required)
    if json:
        print_json(
            {
                "subject": source.name,
                "digest": source.digest,
                "ok": not lacking,
                **report.to_json(),
                "lacking": [each.element.id for each in lacking],
            }
        )
    else:
        _print_report(report)
    if lacking:
        names = ", ".join(each.element.name for each in lacking)
        raise PolicyError(
            f"{source.name}: its SBOM lacks what is required: {names}; "
            "add it with --supplement FILE"
        )


def _print_report(report: "Completeness") -> None:
    from modelpack.sbom.elements import CLUSTERS

    for cluster, title in CLUSTERS.items():
        assessed = [each for each in report.assessed if each.element.cluster == cluster]
        present = report.count("present", cluster)
        show.print_line()
        show.print_line(show.styled(f"{title} ({present} of {len(assessed)})", "bold"))
        show.print_table(
            [("", _FIXED), ("", _FIXED), ("", {})],
            [
                [
                    show.styled(each.status, _STYLES[each.status]),
                    each.element.name,
                    show.clipped(each.detail)
                    if each.status == "present"
                    else show.styled(each.detail, "dim"),
                ]
                for each in assessed
            ],
            headings=False,
            indent=2,
        )
    show.print_line()
    show.print_line(
        f"{report.count('present')} of {len(report.assessed)} minimum elements are present, "
        f"{report.count('missing')} missing, {report.count('unknown')} unknown"
    )
