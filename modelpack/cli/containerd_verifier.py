"""``modelpack containerd-verifier``, called by containerd before it pulls an image."""

import os
import sys
from typing import Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli import _trust
from modelpack.cli._output import print_text
from modelpack.errors import ModelpackError, NotFoundError, PolicyError

# How the arguments of the call are taken: with one dash, which are no options of this program.
CONTEXT = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "help_option_names": ["--help"],
}


def containerd_verifier_command(
    context: typer.Context,
    *,
    policy: _trust.Policy = None,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    print_script: Annotated[
        bool,
        typer.Option(
            "--print-script", help="Print the script to put into containerd's bin_dir, and exit."
        ),
    ] = False,
) -> None:
    """Decide about one image pull, as a verifier of containerd's: exit 0 lets it through.

    containerd passes -name, -digest and -stdin-media-type, and a descriptor on stdin. The reason goes
    to stdout, where containerd takes it from. Without a policy everything is refused.
    """
    if print_script:
        print_text(_script())
        return
    from modelpack.trust import containerd
    from modelpack.trust.accepted import Records
    from modelpack.trust.places import records_directory
    from modelpack.trust.policies import policy_in_force

    try:
        request = containerd.parse_request(
            context.args, sys.stdin.buffer.read(containerd.MAX_STDIN_BYTES)
        )
        loaded = policy_in_force(policy, os.environ)
        if loaded is None:
            raise NotFoundError("no policy is in force here; write /etc/modelpack/policy.yaml")
        connection = options.connection_options(
            plain_http=plain_http, ca_file=ca_file, insecure=insecure
        )
        decision = containerd.answer(
            request, loaded, connection, Records(records_directory(os.environ))
        )
    except ModelpackError as error:
        print_text(containerd.reason(error))
        raise typer.Exit(error.exit_code) from error
    print_text(containerd.reason(decision))
    if not decision.ok:
        raise typer.Exit(PolicyError.exit_code)


def _script() -> str:
    """Return a script for ``bin_dir``: containerd's environment may lack a path and a home."""
    program = os.path.abspath(sys.argv[0])
    return f'#!/bin/sh\nexec {_quoted(program)} containerd-verifier "$@"\n'


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
