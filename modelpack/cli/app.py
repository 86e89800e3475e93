"""The application: which verbs there are and in what order help lists them."""

import typer

app = typer.Typer(
    name="modelpack",
    help="Deliver AI models as chunked, verified OCI artifacts, and wire the GPUs in with CDI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _global_options(
    *,
    debug: bool = typer.Option(False, "--debug", help="Log what happens, show tracebacks."),
) -> None:
    """Take the options that come before the verb."""
    del debug  # read by _run before anything is imported
