"""Whether what a configuration names is there, on the machine where it is checked.

Owns looking. Leaves out the configuration's own faults (``configfile.py``): what is missing here may
be there on the node, or come later, so it makes no configuration bad.

    for note in surroundings(read_config(path, DiskSource())):
        print(note)
"""

import os
from pathlib import Path

from modelpack.errors import ModelpackError
from modelpack.prefetch.advice import for_daemon
from modelpack.prefetch.config import DaemonConfig
from modelpack.prefetch.nodes import open_node
from modelpack.prefetch.quantities import show_size
from modelpack.stores.files import mapped_errors


def surroundings(config: DaemonConfig) -> tuple[str, ...]:
    """Return what the daemon would miss if it ran here and now, a line each. Changes nothing."""
    network = config.network
    notes = []
    for member, path in (("caFile", network.ca_file), ("authFile", network.auth_file)):
        if path is not None and (trouble := _unreadable(path)):
            notes.append(f"{member}: {path} cannot be read here: {trouble}")
    try:
        free = _free_bytes(config)
    except ModelpackError as error:
        return (*notes, f"runtime: {for_daemon(' '.join(str(error).split()))}")
    if free <= config.budget.min_free:
        notes.append(
            f"minFree: the disk has {show_size(free)} left and is to keep "
            f"{show_size(config.budget.min_free)}; nothing would be brought"
        )
    return tuple(notes)


def _unreadable(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _free_bytes(config: DaemonConfig) -> int:
    """Return what the models' file system has left.

    Raises:
        ModelpackError: the runtime does not answer.
    """
    path = config.runtime.path
    if path is None:
        return open_node(config.runtime, config.network).free_bytes()
    with mapped_errors(f"cannot use {path}"):
        # The daemon makes the directory.
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        status = os.statvfs(there)
    return status.f_bavail * status.f_frsize
