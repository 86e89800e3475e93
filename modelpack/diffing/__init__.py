"""What differs between two versions of a model, and what a pull of the second would move.

Owns the comparison of files and tensors by their chunk hashes, and the report that ``modelpack
diff`` prints. The comparison is pure (``files.py``, ``tensors.py``, over chunk indexes and tensor
headers); opening the two sides and reading headers is ``sides.py``.

    with open_repository("oci:store:v1") as one, open_repository("oci:store:v2") as two:
        found = diff(reference_side(one), reference_side(two))
    print(found.pull.fetched_bytes, [change.path for change in found.files])
"""

from modelpack.diffing.compare import diff
from modelpack.diffing.report import Difference
from modelpack.diffing.sides import Side, directory_side, reference_side

__all__ = ["Difference", "Side", "diff", "directory_side", "reference_side"]
