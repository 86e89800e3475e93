"""Logging in to and out of a registry.

Owns proving a login against the registry before it is stored, and removing it again. Leaves out
the files and helpers themselves (``credentials.py``).

    login("registry.example", Credentials(username="me", password=secret))
"""

from dataclasses import replace

from modelpack.errors import AuthError, NotFoundError
from modelpack.reference import split_host_port
from modelpack.registry.client import RegistryClient
from modelpack.registry.credentials import Credentials, remove_credentials, store_credentials
from modelpack.registry.errors import login_hint
from modelpack.registry.options import ConnectionOptions


def login(registry: str, credentials: Credentials, options: ConnectionOptions | None = None) -> str:
    """Check a login against the registry's API root and store it; return where.

    A registry that lets anyone in proves nothing about a password; the login is stored all the
    same, as other clients do.

    Raises:
        AuthError: the registry refused the login, which is then not stored.
        NetworkError, NotFoundError: the registry is not there, or is no registry.
        UsageError, SpaceError: the login cannot be stored.
    """
    split_host_port(registry)
    options = options or ConnectionOptions()
    client = RegistryClient(registry, None, replace(options, credentials=credentials))
    try:
        client.request("GET", "", what=f"login to {registry}")
    except AuthError as error:
        # its advice is to do what was just done
        said = str(error).removesuffix(f"; {login_hint(registry, logged_in=True)}")
        raise AuthError(
            f"{registry} refused the login; check user name and password ({said})"
        ) from error
    except NotFoundError as error:
        raise NotFoundError(f"{registry} is not a registry (it has no /v2/)") from error
    finally:
        client.close()
    return store_credentials(registry, credentials, only=options.auth_file)


def logout(registry: str, options: ConnectionOptions | None = None) -> list[str]:
    """Remove a registry's login from every login file and helper; return those that had it.

    Raises:
        NotFoundError: none had.
        AuthError, UsageError, SpaceError: a helper or file could not be changed.
    """
    split_host_port(registry)
    places = remove_credentials(registry, only=options.auth_file if options else None)
    if not places:
        raise NotFoundError(f"there is no login for {registry}")
    return places
