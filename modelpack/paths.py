"""Which file paths an artifact may hold, and which two paths collide.

Owns the rules; they hold alike for what push packs and what pull accepts. Leaves out touching
the file system (``stores/`` does, and defends itself once more).

    >>> check_path("weights/model.safetensors")
    'weights/model.safetensors'
    >>> collision_key("Straße") == collision_key("STRASSE")
    True
"""

import re
import unicodedata
from collections.abc import Iterable

from modelpack.errors import FormatError

METADATA_DIR = ".modelpack"
"""The one top-level directory that belongs to modelpack, in artifacts and in destinations."""
SIGNATURE_NAME = "model.sig"
"""Where a signature over the files lies in a model directory; it is no part of the model."""
LOST_AND_FOUND = "lost+found"
"""What ext file systems have at their root, where a model may be pulled to."""

# Linux limits: a name has at most 255 bytes (NAME_MAX), a path 4096 with its NUL (PATH_MAX). The
# destination's own path needs room as well.
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3072
# A path of 3072 bytes could name 1535 directories, and 1 MB of such paths cost gigabytes to tell
# apart and minutes to lay out. Real models nest a dozen deep and have a few hundred directories.
MAX_PATH_PARTS = 128
MAX_DIRECTORIES = 20_000
# In a tar layer a file of this prefix deletes another (image-spec, "Whiteouts").
WHITEOUT_PREFIX = ".wh."
# A backslash, and Unicode's category Cc.
_REFUSED = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")


def check_path(path: object) -> str:
    """Return ``path`` if an artifact may hold a file of that name.

    A path is relative, '/'-separated and in its simplest form, with at most ``MAX_PATH_PARTS``
    names; every name is 1 to 255 bytes of UTF-8 without control characters or backslash, and is
    not a whiteout.

    Raises:
        FormatError: it is not such a path; the message says why.
    """
    if not isinstance(path, str):
        raise FormatError(f"path must be a string, not {type(path).__name__}")
    shown = ascii(path[:200])
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"path {shown} is not valid UTF-8") from error
    if not path or len(encoded) > MAX_PATH_BYTES:
        raise FormatError(f"path {shown} is empty or longer than {MAX_PATH_BYTES} bytes")
    if _REFUSED.search(path):
        raise FormatError(f"path {shown} holds a backslash or a control character")
    if path.startswith("/"):
        raise FormatError(f"path {shown} is absolute")
    if path.count("/") >= MAX_PATH_PARTS:
        raise FormatError(f"path {shown} has more than {MAX_PATH_PARTS} parts")
    for name in path.split("/"):
        if name in {"", ".", ".."}:
            raise FormatError(f"path {shown} has an empty, '.' or '..' part")
        if len(name.encode()) > MAX_NAME_BYTES:
            raise FormatError(f"path {shown} has a part longer than {MAX_NAME_BYTES} bytes")
        if name.startswith(WHITEOUT_PREFIX):
            raise FormatError(f"path {shown} is a whiteout, which would delete files on unpacking")
    return path


def check_paths(paths: Iterable[str]) -> None:
    """Prove that all paths are allowed and can exist beside each other on any file system.

    Raises:
        FormatError: one path is not allowed, two are equal or differ only in case or Unicode
            form, one is a directory of another, or there are too many directories.
    """
    seen: dict[str, str] = {}
    parents: dict[str, str] = {}
    for path in paths:
        check_path(path)
        key = collision_key(path)
        if key in seen:
            raise FormatError(f"paths {seen[key]!a} and {path!a} collide")
        seen[key] = path
        if key == METADATA_DIR or key.startswith(METADATA_DIR + "/"):
            raise FormatError(f"path {path!a} lies in the reserved directory {METADATA_DIR}/")
        directory, spelled = parent_of(key), parent_of(path)
        while directory and directory not in parents:
            parents[directory] = spelled
            directory, spelled = parent_of(directory), parent_of(spelled)
        # What is above a known directory of the same spelling is known, too.
        if directory and parents[directory] != spelled:
            raise FormatError(f"directories {parents[directory]!a} and {spelled!a} collide")
        if len(parents) > MAX_DIRECTORIES:
            raise FormatError(f"more than {MAX_DIRECTORIES} directories")
    for key, path in seen.items():
        if key in parents:
            raise FormatError(f"path {path!a} is both a file and a directory")


def collision_key(path: str) -> str:
    """Return what a case-folding, Unicode-normalizing file system would compare."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def parent_of(path: str) -> str:
    """Return the directory above a path, "" for a path without one."""
    return path.rpartition("/")[0]


def parents_of(path: str) -> list[str]:
    """Return every directory above a path, the nearest first.

    >>> parents_of("a/b/c")
    ['a/b', 'a']
    """
    found = []
    while path := parent_of(path):
        found.append(path)
    return found
