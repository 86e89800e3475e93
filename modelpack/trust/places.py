"""Where policies and records lie. Imports nothing heavy: a pull asks here whether there is a policy.

path = policy_path(None, os.environ)
"""

import os
from collections.abc import Mapping
from pathlib import Path

from modelpack.errors import NotFoundError, UsageError

POLICY_VARIABLE = "MODELPACK_POLICY"
POLICY_NAME = "policy.yaml"
SYSTEM_CONFIG = Path("/etc/modelpack")
# For a service without a home of its own.
_SYSTEM_STATE = Path("/var/lib/modelpack")


def policy_path(
    explicit: Path | None, environ: Mapping[str, str], system: Path = SYSTEM_CONFIG
) -> Path | None:
    """Return the path of the policy in force, None if there is none.

    Raises:
        NotFoundError: ``explicit`` or the variable names a file that is not there.
        UsageError: whether there is one cannot be told.
    """
    named = explicit or (Path(environ[POLICY_VARIABLE]) if environ.get(POLICY_VARIABLE) else None)
    if named is not None:
        if not _is_there(named):
            raise NotFoundError(f"policy {named} does not exist")
        return named
    for directory in (_user_directory(environ, "XDG_CONFIG_HOME", ".config"), system):
        if directory is not None and _is_there(directory / POLICY_NAME):
            return directory / POLICY_NAME
    return None


def records_directory(environ: Mapping[str, str]) -> Path:
    """Return where it is kept what was accepted before (XDG Base Directory Specification)."""
    found = _user_directory(environ, "XDG_STATE_HOME", ".local/state")
    return (found or _SYSTEM_STATE) / "accepted"


def _user_directory(environ: Mapping[str, str], variable: str, default: str) -> Path | None:
    base = environ.get(variable, "")
    if base.startswith("/"):
        return Path(base) / "modelpack"
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = str(Path("~").expanduser())
        except RuntimeError:
            return None
    return Path(home) / default / "modelpack" if home.startswith("/") else None


def _is_there(path: Path) -> bool:
    """Tell whether a file is there; a place that may not be looked at could hold one."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        # A link to nothing was meant to be a policy.
        if path.is_symlink():
            raise UsageError(f"policy {path} is a link to nothing") from None
        return False
    except OSError as error:
        raise UsageError(
            f"whether there is a policy at {path} cannot be told: {error.strerror}"
        ) from error
    return True
