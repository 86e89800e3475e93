"""What the tests of uploads share: a blob of several pieces, and what went over the line.

blob = Blob(directory)
repository.push_blob(blob.descriptor, blob.content)
"""

import os

from modelpack.content import BlobContent, FileRegion
from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.registry.credentials import Credentials

NAME = "team/model"
PIECE = 1024 * 1024
USERS = {"ada": "secret"}
ADA = Credentials(username="ada", password="secret")


class Blob:
    """Content of a head, a file and a tail, four and a half pieces long."""

    def __init__(self, directory, size=4 * PIECE + PIECE // 2):
        self.data = os.urandom(size)
        file = directory / f"weights-{size}"
        file.write_bytes(self.data[100:-50])
        self.content = BlobContent((self.data[:100], FileRegion(file, size - 150), self.data[-50:]))
        self.descriptor = Descriptor.of(self.data, media_type=OCI_LAYER_TAR)
        self.file = file


def methods(registry):
    return [record.method for record in registry.requests]


def body_bytes(registry):
    return sum(record.body_received for record in registry.requests)
