"""The application: which verbs there are and in what order help lists them."""

import typer

from modelpack.cli import cdi, containerd_verifier, daemon, doctor, k8s, policy
from modelpack.cli.attest import attest_command
from modelpack.cli.copy import copy_command, tags_command
from modelpack.cli.diff import diff_command
from modelpack.cli.inspect import inspect_command
from modelpack.cli.keygen import keygen_command
from modelpack.cli.login import login_command, logout_command, version_command
from modelpack.cli.pull import pull_command
from modelpack.cli.push import push_command
from modelpack.cli.sbom import sbom_command
from modelpack.cli.sign import sign_command
from modelpack.cli.verify import verify_command

app = typer.Typer(
    name="modelpack",
    help="Deliver AI models as chunked, verified OCI artifacts, and wire the GPUs in with CDI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich for help costs as long as all the rest of a start
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _global_options(
    *,
    debug: bool = typer.Option(False, "--debug", help="Log what happens, show tracebacks."),
) -> None:
    """Take the options that come before the verb."""
    del debug  # read by _run before anything is imported


app.command("push")(push_command)
app.command("pull")(pull_command)
app.command("verify")(verify_command)
app.command("sign")(sign_command)
app.command("attest")(attest_command)
app.command("keygen")(keygen_command)
app.command("inspect")(inspect_command)
app.command("diff")(diff_command)
app.command("sbom")(sbom_command)
app.command("copy")(copy_command)
app.command("tags")(tags_command)
app.command("login")(login_command)
app.command("logout")(logout_command)
app.command("version")(version_command)
app.command("containerd-verifier", context_settings=containerd_verifier.CONTEXT)(
    containerd_verifier.containerd_verifier_command
)
app.add_typer(policy.app, name="policy")
app.add_typer(daemon.app, name="daemon")
app.add_typer(doctor.app, name="doctor")
app.add_typer(cdi.app, name="cdi")
app.add_typer(k8s.app, name="k8s")
