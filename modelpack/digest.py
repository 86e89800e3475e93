"""The digest value type and the hash functions behind it.

Owns parsing and comparing OCI digests (``algorithm:hex``) and the choice of hashers. Leaves out
where digests come from. BLAKE3 never appears as an OCI descriptor digest here (no released
specification registers it); chunk hashes are bare 32-byte values.

    >>> digest = Digest.of(b"hello")
    >>> str(digest)[:14]
    'sha256:2cf24db'
    >>> Digest.parse(str(digest)) == digest
    True
"""

import hashlib
import re
from dataclasses import dataclass
from typing import NewType, Protocol

from blake3 import blake3

from modelpack.errors import FormatError, IntegrityError

ChunkHash = NewType("ChunkHash", bytes)
"""A raw BLAKE3 hash, always ``CHUNK_HASH_BYTES`` long."""

CHUNK_HASH_BYTES = 32

# image-spec, "Registered algorithms". Anything else is refused rather than guessed at: a digest
# names files on disk, so its alphabet must be known.
_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+\Z")


class Hasher(Protocol):
    """What hashlib's objects and BLAKE3's have in common."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Absorb bytes."""

    def digest(self) -> bytes:
        """Return the raw hash of everything absorbed so far."""

    def hexdigest(self) -> str:
        """Return the same as lower-case hex."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A registered content digest; equal digests mean equal bytes."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: object) -> "Digest":
        """Parse ``algorithm:hex`` strictly (image-spec, descriptor "Digests").

        Raises:
            FormatError: not a string, an unregistered algorithm, upper-case or wrong-length hex.
        """
        if not isinstance(text, str):
            raise FormatError(f"digest must be a string, not {type(text).__name__}")
        algorithm, colon, hex_part = text.partition(":")
        length = _HEX_LENGTH.get(algorithm)
        if not colon or length is None:
            raise FormatError(f"digest {text[:100]!r} does not start with sha256: or sha512:")
        if len(hex_part) != length or not _HEX.match(hex_part):
            raise FormatError(f"digest {text[:150]!r} does not hold {length} lower-case hex digits")
        return cls(algorithm, hex_part)

    @classmethod
    def of(cls, data: bytes) -> "Digest":
        """Return the sha256 digest of ``data``."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    def hasher(self) -> Hasher:
        """Return a fresh hasher of this digest's algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=True)

    def check(self, data: bytes, what: str) -> None:
        """Prove that ``data`` has this digest.

        Raises:
            IntegrityError: it has another; ``what`` names the bytes in the message.
        """
        hasher = self.hasher()
        hasher.update(data)
        if hasher.hexdigest() != self.hex:
            raise IntegrityError(
                f"{what}: expected {self}, got {self.algorithm}:{hasher.hexdigest()}"
            )

    @property
    def short(self) -> str:
        """The first twelve hex digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def chunk_hash(data: bytes | memoryview) -> ChunkHash:
    """Return the BLAKE3 hash of one chunk."""
    return ChunkHash(blake3(data).digest())


def chunk_hasher() -> blake3:
    """Return a fresh single-threaded BLAKE3 hasher.

    Parallelism comes from hashing different chunks in different threads: a multi-threaded hasher
    builds a thread pool of its own for every object.
    """
    return blake3()
