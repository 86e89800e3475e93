"""``modelpack keygen``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli import _trust
from modelpack.cli._output import print_json, print_text
from modelpack.errors import UsageError

_KINDS = {"ec": "ecdsa-p256", "ed25519": "ed25519", "rsa": "rsa-3072"}


def keygen_command(
    *,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="PREFIX", help="Write PREFIX.key and PREFIX.pub."),
    ] = "modelpack",
    kind: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="ec (P-256), ed25519 or rsa (3072 bits).")
    ] = "ec",
    json: options.Json = False,
) -> None:
    """Make a key pair to sign with; the private key is encrypted, in the form that cosign reads.

    The password comes from MODELPACK_KEY_PASSWORD or COSIGN_PASSWORD, else it is asked for. Files
    that are there are never overwritten.
    """
    from modelpack.signing.keys import PrivateKey, write_key_pair
    from modelpack.trust.authors import environment_password

    if kind not in _KINDS:
        raise UsageError(f"--type takes {', '.join(_KINDS)}, not {kind!a:.40}")
    private, public = Path(f"{output}.key"), Path(f"{output}.pub")
    for path in (private, public):
        if os.path.lexists(path):  # before anybody types a password
            raise UsageError(f"{path} exists and is not overwritten; choose another name")
    password = environment_password(os.environ)
    if password is None:
        ask = _trust.ask_password(twice=True)
        if ask is None:
            raise UsageError(
                "the new key needs a password: set MODELPACK_KEY_PASSWORD (it may be empty)"
            )
        password = ask(f"Password for {private}")
    key = PrivateKey.generate(_KINDS[kind])
    write_key_pair(key, private, public, password)
    if json:
        print_json(
            {
                "private": str(private),
                "public": str(public),
                "type": key.public_key.kind,
                "fingerprint": f"sha256:{key.public_key.fingerprint}",
            }
        )
        return
    print_text(
        f"wrote {private} (keep it safe) and {public} (give it to those who verify)\n"
        f"  {key.public_key.kind}, sha256:{key.public_key.fingerprint}"
    )
