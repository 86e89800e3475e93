"""The application: which verbs there are and in what order help lists them.

A verb's module is loaded when the verb is run, or help or completion wants them all.
"""

import importlib

import typer

from modelpack.cli._group import Group

_COMMANDS = {
    "push": "push:push_command",
    "pull": "pull:pull_command",
    "verify": "verify:verify_command",
    "sign": "sign:sign_command",
    "attest": "attest:attest_command",
    "keygen": "keygen:keygen_command",
    "inspect": "inspect:inspect_command",
    "diff": "diff:diff_command",
    "sbom": "sbom:sbom_command",
    "copy": "copy:copy_command",
    "tags": "copy:tags_command",
    "login": "login:login_command",
    "logout": "login:logout_command",
    "version": "login:version_command",
    "containerd-verifier": "containerd_verifier:containerd_verifier_command",
}
_GROUPS = ("policy", "daemon", "doctor", "cdi", "k8s")


def application(verb: str | None = None) -> typer.Typer:
    """Return the application with one verb; with all of them if there is no such verb."""
    app = typer.Typer(
        cls=Group,
        name="modelpack",
        help="Deliver AI models as chunked, verified OCI artifacts, and wire the GPUs in with CDI.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # importing rich for help costs as long as all the rest of a start
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global_options)
    known = verb in _COMMANDS or verb in _GROUPS
    for name, place in _COMMANDS.items():
        if name == verb or not known:
            _add_command(app, name, place)
    for name in _GROUPS:
        if name == verb or not known:
            module = importlib.import_module(f"modelpack.cli.{name}")
            app.add_typer(module.app, name=name)
    return app


def _add_command(app: typer.Typer, name: str, place: str) -> None:
    module_name, _, function = place.partition(":")
    module = importlib.import_module(f"modelpack.cli.{module_name}")
    app.command(name, context_settings=getattr(module, "CONTEXT", None))(getattr(module, function))


def _print_version(wanted: bool) -> None:
    if wanted:
        from modelpack._version import __version__
        from modelpack.cli._output import print_text

        print_text(f"modelpack {__version__}")
        raise typer.Exit


def _global_options(
    *,
    debug: bool = typer.Option(False, "--debug", help="Log what happens, show tracebacks."),
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Take the options that come before the verb."""
    del debug, version  # read by _run before anything is imported; printed before this is called
