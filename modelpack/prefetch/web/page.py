"""The status page: one file of HTML, style and script, and the policy that allows only these.

Owns the Content-Security-Policy, which names the digests of the page's own style and script, so
that nothing else can run or be loaded even if something got into the page. Leaves out the page
(``status.html``), which asks for ``/v1/status`` and draws it.
"""

import base64
import hashlib
import re
from importlib import resources

POLICY_HEADER = "Content-Security-Policy"
_INLINE = re.compile(r"<(?P<tag>style|script)>(?P<text>.*?)</(?P=tag)>", re.DOTALL)


def policy(html: str) -> str:
    """Return the policy under which exactly this page works.

    >>> policy("<script>1</script>")[:56]
    "default-src 'none'; script-src 'sha256-a4ayc/80/OGda4BO/1o/V"
    """
    found: dict[str, list[str]] = {"script": [], "style": []}
    for match in _INLINE.finditer(html):
        digest = base64.b64encode(hashlib.sha256(match["text"].encode()).digest()).decode()
        found[match["tag"]].append(f"'sha256-{digest}'")
    return "; ".join(
        [
            "default-src 'none'",
            *(
                f"{tag}-src {' '.join(digests) or chr(39) + 'none' + chr(39)}"
                for tag, digests in found.items()
            ),
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


HTML = resources.files(__package__).joinpath("status.html").read_text(encoding="utf-8")
POLICY = policy(HTML)
