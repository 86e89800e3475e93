"""Names that Kubernetes accepts: labels, subdomains, resource names and keys of attributes.

Owns the checks and the shortening of names that are made up. Leaves out what is named.

>>> fit_label("My_Model:v1"), fit_label("a" * 70)[:10], len(fit_label("a" * 70))
('my-model-v1', 'aaaaaaaaaa', 63)
"""

import hashlib
import re

from cdi.errors import CdiUsageError

# RFC 1123 as Kubernetes applies it: k8s.io/apimachinery/pkg/util/validation.
MAX_LABEL = 63
MAX_SUBDOMAIN = 253
# resource.k8s.io/v1: DeviceMaxIDLength.
MAX_ATTRIBUTE = 32

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_C_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_IN_LABEL = re.compile(r"[^a-z0-9]+")
_HASH_DIGITS = 8


def is_label(name: str) -> bool:
    """Tell whether a name is a DNS-1123 label: a container, a volume, a claim of a Pod."""
    return len(name) <= MAX_LABEL and _LABEL.fullmatch(name) is not None


def is_subdomain(name: str) -> bool:
    """Tell whether a name is a DNS-1123 subdomain: a node, a driver, most objects."""
    return len(name) <= MAX_SUBDOMAIN and _SUBDOMAIN.fullmatch(name) is not None


def is_attribute(name: str) -> bool:
    """Tell whether a name is the key of a device attribute or capacity, without a domain."""
    return len(name) <= MAX_ATTRIBUTE and _C_IDENTIFIER.fullmatch(name) is not None


def require_label(what: str, name: str) -> str:
    """Return the name when it is a DNS-1123 label.

    Raises:
        CdiUsageError: it is not.
    """
    if not is_label(name):
        raise CdiUsageError(
            f"{what} {name[:80]!a} is no DNS label: lower-case letters, digits and '-', starting "
            f"and ending with a letter or digit, at most {MAX_LABEL}"
        )
    return name


def require_subdomain(what: str, name: str) -> str:
    """Return the name when it is a DNS-1123 subdomain.

    Raises:
        CdiUsageError: it is not.
    """
    if not is_subdomain(name):
        raise CdiUsageError(
            f"{what} {name[:80]!a} is no DNS name: lower-case letters, digits, '-' and '.', each "
            f"part starting and ending with a letter or digit, at most {MAX_SUBDOMAIN}"
        )
    return name


def fit_label(text: str, fallback: str = "model") -> str:
    """Return a DNS-1123 label as close to the text as can be; the same text gives the same label.

    What is cut off is replaced by a hash of the whole text, so that two long texts stay apart.
    """
    label = _NOT_IN_LABEL.sub("-", text.lower()).strip("-") or fallback
    if len(label) <= MAX_LABEL:
        return label
    return add_suffix(label, hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS])


def add_suffix(label: str, suffix: str) -> str:
    """Return ``label-suffix``, the label cut so that the whole stays a label."""
    return f"{label[: MAX_LABEL - len(suffix) - 1].rstrip('-.')}-{suffix}"
