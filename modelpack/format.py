r"""Format version 1 in one place: the names and numbers that ``docs/format.md`` gives a meaning.

Owns nothing: each constant belongs to the module that keeps to it, and is gathered here under the
name that the specification calls it by, for a second implementation and for the test that holds the
specification against the code. Leaves out the rules, which are text.

    >>> f"{METADATA_DIR}/{INDEX_NAME}", INDEX_MAGIC
    ('.modelpack/chunks.bin', b'MPKCHNK\x01')
"""

from modelpack.artifact import VERSION
from modelpack.chunkindex import MAGIC as INDEX_MAGIC
from modelpack.chunkindex import MAX_CHUNKS, MAX_HEAD_BYTES
from modelpack.chunking import CHUNK_BYTES, SMALL_TENSOR_BYTES
from modelpack.descriptor import FORMAT_VERSION as FORMAT_ANNOTATION
from modelpack.descriptor import MAX_MANIFEST_BYTES
from modelpack.descriptor import METADATA_LAYER as METADATA_ANNOTATION
from modelpack.descriptor import MODEL_CONFIG as COMPANION_CONFIG_TYPE
from modelpack.descriptor import MODEL_FILEPATH as COMPANION_PATH_ANNOTATION
from modelpack.descriptor import MODEL_LAYER_PREFIX as COMPANION_LAYER_PREFIX
from modelpack.descriptor import MODEL_MANIFEST as COMPANION_TYPE
from modelpack.descriptor import OCI_CONFIG as CONFIG_TYPE
from modelpack.descriptor import OCI_LAYER_TAR as LAYER_TYPE
from modelpack.descriptor import OCI_MANIFEST as MANIFEST_TYPE
from modelpack.descriptor import OUR_PREFIX as OWN_ANNOTATIONS
from modelpack.layering import LARGE_FILE_BYTES, MAX_DATA_LAYERS, MAX_LAYERS
from modelpack.metadata import CHUNKS as INDEX_NAME
from modelpack.metadata import MAX_FILES as MAX_METADATA_FILES
from modelpack.metadata import MAX_METADATA_BYTES
from modelpack.metadata import MODEL as FACTS_NAME
from modelpack.metadata import SBOM as SBOM_NAME
from modelpack.paths import (
    MAX_DIRECTORIES,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    MAX_PATH_PARTS,
    METADATA_DIR,
)
from modelpack.reference import COMPANION_SUFFIX

__all__ = [
    "CHUNK_BYTES",
    "COMPANION_CONFIG_TYPE",
    "COMPANION_LAYER_PREFIX",
    "COMPANION_PATH_ANNOTATION",
    "COMPANION_SUFFIX",
    "COMPANION_TYPE",
    "CONFIG_TYPE",
    "FACTS_NAME",
    "FORMAT_ANNOTATION",
    "INDEX_MAGIC",
    "INDEX_NAME",
    "LARGE_FILE_BYTES",
    "LAYER_TYPE",
    "MANIFEST_TYPE",
    "MAX_CHUNKS",
    "MAX_DATA_LAYERS",
    "MAX_DIRECTORIES",
    "MAX_HEAD_BYTES",
    "MAX_LAYERS",
    "MAX_MANIFEST_BYTES",
    "MAX_METADATA_BYTES",
    "MAX_METADATA_FILES",
    "MAX_NAME_BYTES",
    "MAX_PATH_BYTES",
    "MAX_PATH_PARTS",
    "METADATA_ANNOTATION",
    "METADATA_DIR",
    "OWN_ANNOTATIONS",
    "SBOM_NAME",
    "SMALL_TENSOR_BYTES",
    "VERSION",
]
