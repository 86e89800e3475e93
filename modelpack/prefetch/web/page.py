"""The status page: HTML, style and script in one document, and the policy that allows only these.

Owns putting them together and the Content-Security-Policy, which names the digests of the page's
own style and script: nothing else can run or be loaded, even if something got into the page. Leaves
out the page itself, ``status.html``, ``.css`` and ``.js``, which asks for ``/v1/status`` and draws
it.
"""

import base64
import hashlib
from importlib import resources

POLICY_HEADER = "Content-Security-Policy"


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """Return what stands for one inline element in a policy (CSP 3, section 2.3.1).

    >>> _source("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE, _SCRIPT = _part("status.css"), _part("status.js")
HTML = _part("status.html").replace("/*style*/", _STYLE).replace("/*script*/", _SCRIPT)
POLICY = (
    f"default-src 'none'; script-src {_source(_SCRIPT)}; style-src {_source(_STYLE)}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
