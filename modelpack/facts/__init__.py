"""Gather what a model's own files say about it.

Owns: the facts that ``inspect`` shows, that ``push`` writes to ``.modelpack/model.json`` and into
annotations, and that the ModelPack configuration and the SBOM are made from. Leaves out: opening
files (the caller hands over something with ``size`` and ``read``), and what only people know.

Nothing is invented: what the files do not say stays None or empty. Files are hostile input: a file
that is too large, malformed or odd costs its own facts and a line in ``warnings``, nothing more.

Example::

    facts = collect_facts({"config.json": config, "README.md": card}, tensor_files)
    facts.parameters, facts.licenses, facts.remote_code, facts.warnings
"""

from modelpack.facts.collect import ModelFile, collect_facts
from modelpack.facts.model import ModelFacts

__all__ = ["ModelFacts", "ModelFile", "collect_facts"]
