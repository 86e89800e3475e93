"""What the tests of a repository share: the documents of one small model.

registry.put_manifest(NAME, "v1", MANIFEST.raw)
"""

from modelpack.descriptor import (
    EMPTY_CONFIG,
    OCI_LAYER_TAR,
    Descriptor,
)
from modelpack.digest import Digest
from modelpack.manifest import Manifest

NAME = "team/model"
CONFIG = Descriptor.of(b"{}", media_type=EMPTY_CONFIG)
LAYER_BYTES = bytes(range(256)) * 1000
LAYER = Descriptor.of(LAYER_BYTES, media_type=OCI_LAYER_TAR)
MANIFEST = Manifest.build(config=CONFIG, layers=[LAYER], annotations={"a": "b"})
ABSENT = Digest("sha256", "0" * 64)
