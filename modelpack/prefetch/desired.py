"""Which models this node should have, in which order. Pure.

names = [model.name for model in wanted(config)]
"""

from modelpack.prefetch.config import DaemonConfig, ModelOptions


def wanted(config: DaemonConfig) -> tuple[ModelOptions, ...]:
    """Return the models whose selector takes this node, the most urgent first.

    Of one priority, those that the configuration names first come first.
    """
    labels = config.identity.labels
    taken = [model for model in config.models if model.selector.matches(labels)]
    return tuple(sorted(taken, key=lambda model: -model.priority))


def kept(config: DaemonConfig) -> frozenset[str]:
    """Return the names of models of which nothing may be evicted, wanted here or not."""
    return frozenset(model.name for model in config.models if model.pin)
