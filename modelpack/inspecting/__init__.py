"""Saying what is at a reference or in a pulled directory, without fetching the weights.

Owns the report that ``modelpack inspect`` prints, and the verified random access to packed files
that it is made with. Leaves out checking every byte (``verifying.py``) and comparing two versions
(``diffing/``).

    with open_repository("localhost:5000/team/model:v1") as repository:
        found = inspect_reference(repository)
    print(found.digest, [file.path for file in found.files])
"""

from modelpack.inspecting.directory import inspect_directory
from modelpack.inspecting.indexedfile import IndexedFileReader, layer_chunks, tree_chunks
from modelpack.inspecting.reference import inspect_reference
from modelpack.inspecting.report import Inspection

__all__ = [
    "IndexedFileReader",
    "Inspection",
    "inspect_directory",
    "inspect_reference",
    "layer_chunks",
    "tree_chunks",
]
