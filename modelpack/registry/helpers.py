"""Docker credential helpers: programs that keep logins in a key ring.

Owns the protocol (``docker-credential-NAME get|store|erase``, one JSON document each way), with
bounds on time and size. Leaves out when one is asked (``credentials.py``).
"""

import json
import shutil
import subprocess

from modelpack.errors import AuthError, FormatError
from modelpack.manifest import load_json
from modelpack.registry.errors import clean

# A helper may show a dialog and wait for its user, but not for ever.
HELPER_SECONDS = 120
_MAX_ANSWER_BYTES = 64 * 1024
# What every helper of docker-credential-helpers says, and exits with 1, when it has no login.
_NOT_FOUND = ("credentials not found", "no credentials", "not found in")


def installed(suffix: str) -> bool:
    """Tell whether a credential helper can be run."""
    return shutil.which(f"docker-credential-{suffix}") is not None


def get(suffix: str, name: str) -> tuple[str, str] | None:
    """Ask a credential helper; None when it has no login for ``name``.

    Raises:
        AuthError: it is missing, failed, or answered nonsense.
    """
    done = _run(suffix, "get", name.encode())
    if done.returncode:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").lower()
        if any(phrase in said for phrase in _NOT_FOUND):
            return None
        raise AuthError(
            f"docker-credential-{suffix} failed for {name}: {clean(said) or 'no reason given'}"
        )
    try:
        value = load_json(done.stdout[:_MAX_ANSWER_BYTES], "answer")
    except FormatError as error:
        raise AuthError(f"docker-credential-{suffix} gave an answer that is not JSON") from error
    username, secret = (
        (value.get("Username"), value.get("Secret")) if isinstance(value, dict) else (None, None)
    )
    if not isinstance(username, str) or not isinstance(secret, str):
        raise AuthError(f"docker-credential-{suffix} gave an answer without a login")
    return (username, secret) if secret else None


def store(suffix: str, name: str, username: str, secret: str) -> None:
    """Hand a login to a credential helper.

    Raises:
        AuthError: it is missing or failed.
    """
    document = {"ServerURL": name, "Username": username, "Secret": secret}
    if _run(suffix, "store", json.dumps(document).encode()).returncode:
        # What it said is not repeated: it was just given the password.
        raise AuthError(f"docker-credential-{suffix} could not store the login for {name}")


def erase(suffix: str, name: str) -> None:
    """Have a credential helper forget a login.

    Raises:
        AuthError: it is missing or failed.
    """
    if _run(suffix, "erase", name.encode()).returncode:
        raise AuthError(f"docker-credential-{suffix} could not remove the login for {name}")


def _run(suffix: str, action: str, data: bytes) -> "subprocess.CompletedProcess[bytes]":
    program = f"docker-credential-{suffix}"
    try:
        return subprocess.run(
            [program, action], input=data, capture_output=True, timeout=HELPER_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise AuthError(f"the login file names {program}, which is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise AuthError(f"{program} did not answer in {HELPER_SECONDS} s") from error
    except OSError as error:
        raise AuthError(f"{program} cannot be run: {error.strerror}") from error
