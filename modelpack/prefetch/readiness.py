"""Whether a model is on the node as it should be, and what is asked of its registry. Pure.

ready = is_ready(progress, situation, model.reference)
"""

from modelpack.prefetch.actions import REPEAT_AFTER, Install, Situation
from modelpack.prefetch.config import ModelOptions
from modelpack.prefetch.node import Installed
from modelpack.prefetch.progress import Progress
from modelpack.reference import Reference


def is_ready(progress: Progress, situation: Situation, reference: Reference) -> bool:
    """Tell whether the adopted version of a model is on the node, sound and visible."""
    found = situation.observation.find(progress.adopted)
    if found is None or progress.version(progress.adopted) is None:
        return False
    return progress.damaged != progress.adopted and (
        is_visible(found, reference) or _was_installed_lately(progress, situation)
    )


def is_visible(found: Installed, reference: Reference) -> bool:
    """Tell whether a version can be mounted under a reference."""
    tagged = reference.tag is not None and f"{reference.repository_name}:{reference.tag}"
    by_digest = f"{reference.repository_name}@{found.digest}"
    if reference.digest is None:
        return tagged in found.names
    return tagged in found.names or by_digest in found.names


def asked_reference(model: ModelOptions) -> Reference:
    """Return what is looked up for a model: its tag, or the version that it is to have."""
    return model.reference if model.digest is None else model.reference.with_digest(model.digest)


def _was_installed_lately(progress: Progress, situation: Situation) -> bool:
    """Tell whether there is no point in installing again for the name's sake.

    A kubelet that always pulls moves a tag back as often as it is moved here.
    """
    return any(
        isinstance(task, Install)
        and (task.name, task.digest) == (progress.name, progress.adopted)
        and situation.steady - moment < REPEAT_AFTER
        for task, moment in situation.done_lately.items()
    )
