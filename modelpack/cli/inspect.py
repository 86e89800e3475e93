"""``modelpack inspect REF|DIR``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli import _show as show
from modelpack.cli._output import human_bytes, print_json

if TYPE_CHECKING:
    from modelpack.inspecting.report import InspectedFile, Inspection

# Below this many columns the tables leave out what --json still has.
_WIDE = 100
_RIGHT = {"justify": "right", "no_wrap": True}
_FIXED = {"no_wrap": True}
_STATES = {
    "intact": "modelpack, format {version}",
    "recompressed": "modelpack, format {version}; layers changed by a copier",
    "foreign": "another tool",
    "index": "an index of manifests",
    "mounted": "modelpack; no manifest here to hold the index against",
}


def inspect_command(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="REF|DIR",
            help="A reference, a pulled directory or a mount.",
            parser=options.subject,
        ),
    ],
    *,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List every tensor with its dtype and shape.")
    ] = False,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    json: options.Json = False,
) -> None:
    """Show what is at a reference or in a pulled directory: files, tensors, layers, referrers.

    Of the weights only the headers are fetched, and verified. Artifacts of other tools are shown
    by their manifests.
    """
    from modelpack.api import inspect

    connection = options.connection_options(
        plain_http=plain_http, ca_file=ca_file, insecure=insecure
    )
    found = inspect(subject, connection=connection)
    show.print_warnings(found.warnings)
    if json:
        print_json(found.to_json(tensors=tensors))
        return
    _print_summary(found)
    _print_files(found)
    _print_headers(found)
    if tensors:
        _print_tensors(found)
    _print_layers(found)
    _print_manifests(found)
    _print_annotations(found)
    _print_referrers(found)


def _print_summary(found: "Inspection") -> None:
    show.print_line(show.styled(found.directory or found.reference or "", "bold"))
    if found.digest:
        show.print_line(show.styled(found.digest, "dim"))
    rows = [("packed by", _STATES[found.state].format(version=found.format_version or "1"))]
    if found.directory and found.reference:
        rows.append(("pulled from", found.reference))
    if found.artifact_type:
        rows.append(("artifact type", show.clipped(found.artifact_type)))
    if found.state == "foreign" and found.config:
        rows.append(
            ("config", f"{show.clipped(found.config.media_type)}, {human_bytes(found.config.size)}")
        )
    rows += _model_rows(found)
    rows.append(("contents", _contents(found)))
    if found.companion:
        rows.append(("companion", f"{found.companion.tag} ({found.companion.digest[:19]})"))
    rows.append(("read", f"{human_bytes(found.fetched_bytes)} to say this"))
    show.print_table([("", _FIXED), ("", {})], [[*row] for row in rows], headings=False, indent=2)


def _model_rows(found: "Inspection") -> list[tuple[str, str]]:
    rows = []
    model = found.model
    weights = found.weights()
    parameters = weights.parameters or (model.parameters if model else None)
    if model is not None:
        named = [model.name, *model.architectures, model.quantization]
        if text := ", ".join(part for part in named if part):
            rows.append(("model", text))
        if model.licenses or model.license_name:
            rows.append(("license", ", ".join(model.licenses) or model.license_name or ""))
        if model.base_models:
            rows.append(("base model", ", ".join(model.base_models)))
        if model.remote_code:
            rows.append(("remote code", ", ".join(model.remote_code)))
    if parameters:
        by_dtype = weights.parameters_by_dtype or (model.parameters_by_dtype if model else {})
        rows.append(("parameters", f"{show.human_count(parameters)} ({_dtypes(by_dtype)})"))
    return rows


def _contents(found: "Inspection") -> str:
    if found.manifests:
        return show.plural(len(found.manifests), "manifest")
    parts = []
    if found.files:
        parts += [show.plural(len(found.files), "file"), human_bytes(found.bytes)]
    if found.layers:
        stored = sum(layer.descriptor.size for layer in found.layers)
        parts.append(f"{show.plural(len(found.layers), 'layer')} ({human_bytes(stored)})")
    if found.chunks:
        chunks = found.chunks
        text = show.plural(chunks.count, "chunk")
        if chunks.unique < chunks.count:
            text += f" ({chunks.unique:,} different, {human_bytes(chunks.unique_bytes)})"
        parts.append(text)
    return ", ".join(parts) or "nothing"


def _print_files(found: "Inspection") -> None:
    if not found.files:
        return
    wide = show.is_wide(_WIDE)
    columns: list[show.Column] = [
        ("FILE", {}),
        ("SIZE", _RIGHT),
        ("MODE", _FIXED),
        ("KIND", _FIXED),
        ("CHUNKS", _RIGHT),
    ]
    if wide:
        columns += [("LAYER", _RIGHT), ("BLAKE3", _FIXED)]
    rows = []
    for file in found.files:
        row = [
            file.path if file.present else f"{file.path} (not here)",
            human_bytes(file.size),
            f"{file.mode:04o}",
            file.kind,
            f"{file.chunks:,}",
        ]
        rows.append([*row, str(file.layer), file.blake3[:12]] if wide else row)
    show.print_list(columns, rows, "files")


def _print_headers(found: "Inspection") -> None:
    files = _tensor_files(found)
    if not files:
        return
    show.print_list(
        [
            ("TENSOR FILE", {}),
            ("FORMAT", _FIXED),
            ("TENSORS", _RIGHT),
            ("PARAMETERS", _RIGHT),
            ("DTYPES", {}),
        ],
        [
            [
                file.path,
                header.format,
                f"{len(header.tensors):,}",
                show.human_count(header.parameters),
                _dtypes(header.parameters_by_dtype),
            ]
            for file in files
            if (header := file.tensors)
        ],
        "tensor files",
    )


def _print_tensors(found: "Inspection") -> None:
    for file in _tensor_files(found):
        header = file.tensors
        show.print_line()
        show.print_table(
            [
                (f"TENSOR IN {file.path}", {}),
                ("DTYPE", _FIXED),
                ("SHAPE", {}),
                ("SIZE", _RIGHT),
            ],
            [
                [tensor.name, tensor.dtype, shape_text(tensor.shape), human_bytes(tensor.length)]
                for tensor in (header.tensors if header else ())
            ],
        )


def _print_layers(found: "Inspection") -> None:
    if not found.layers:
        return
    wide = show.is_wide(_WIDE)
    columns: list[show.Column] = [
        ("LAYER", _RIGHT),
        ("DIGEST", _FIXED),
        ("SIZE", _RIGHT),
        ("HOLDS", {}),
    ]
    if wide:
        columns.append(("TYPE", {}))
    last = len(found.layers) - 1
    rows = []
    for number, layer in enumerate(found.layers):
        named = layer.descriptor.annotations
        title = named.get("org.cncf.model.filepath") or named.get("org.opencontainers.image.title")
        if len(layer.files) == 1:
            holds = layer.files[0]
        elif layer.files:
            holds = show.plural(len(layer.files), "file")
        elif found.state == "intact" and number == last:
            holds = "chunk index and facts"
        else:
            holds = show.clipped(title or ("" if wide else layer.descriptor.media_type))
        digest = layer.descriptor.digest
        row = [
            str(number),
            f"{digest.algorithm}:{digest.short}",
            human_bytes(layer.descriptor.size),
            holds,
        ]
        rows.append([*row, show.clipped(layer.descriptor.media_type)] if wide else row)
    show.print_list(columns, rows, "layers")


def _print_manifests(found: "Inspection") -> None:
    if not found.manifests:
        return
    rows = []
    for item in found.manifests:
        platform = item.extra.get("platform")
        named = platform if isinstance(platform, Mapping) else {}
        parts = [str(named[key]) for key in ("os", "architecture", "variant") if key in named]
        rows.append([str(item.digest), "/".join(parts), human_bytes(item.size)])
    show.print_list([("MANIFEST", {}), ("PLATFORM", {}), ("SIZE", _RIGHT)], rows, "manifests")


def _print_annotations(found: "Inspection") -> None:
    if not found.annotations:
        return
    show.print_list(
        [("ANNOTATION", {}), ("VALUE", {})],
        [
            [show.clipped(key), show.clipped(value)]
            for key, value in sorted(found.annotations.items())
        ],
        "annotations",
    )


def _print_referrers(found: "Inspection") -> None:
    if not found.referrers:
        return
    show.print_list(
        [("REFERRER", {}), ("DIGEST", _FIXED), ("ANNOTATIONS", {})],
        [
            [
                show.clipped(item.artifact_type or item.media_type),
                f"{item.digest.algorithm}:{item.digest.short}",
                show.clipped(
                    ", ".join(f"{key}={value}" for key, value in sorted(item.annotations.items()))
                ),
            ]
            for item in found.referrers
        ],
        "referrers",
    )


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape as the libraries do: [384, 384], [] for a scalar."""
    return f"[{', '.join(str(extent) for extent in shape)}]"


def _tensor_files(found: "Inspection") -> list["InspectedFile"]:
    return [file for file in found.files if file.tensors is not None]


def _dtypes(counts: Mapping[str, int]) -> str:
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{dtype} {show.human_count(count)}" for dtype, count in by_count)
