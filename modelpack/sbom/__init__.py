"""The SBOM of a model: what it is, what it was made from, what its files are, and what is missing.

Owns turning facts, the chunk index and what people add into CycloneDX 1.6 and SPDX 3.0.1, and
holding a document against the minimum elements of the G7. Leaves out signing it and the command.

Nothing is invented: what nobody states is left out, or ``NOASSERTION`` where a format wants a text.

    from modelpack.sbom import Subject, in_band, write_cyclonedx

    raw = in_band(facts, index)  # what a push puts beside the chunk index
    raw = write_cyclonedx(Subject(facts=facts, index=index, supplement=parse_supplement(text)))
"""

from modelpack.sbom.cyclonedx import write_cyclonedx
from modelpack.sbom.inband import check_in_band, in_band
from modelpack.sbom.subject import Subject

__all__ = ["Subject", "check_in_band", "in_band", "write_cyclonedx"]
