"""What an error advises a person at a keyboard, in the words that suit a daemon.

Owns the few phrases that errors share. A daemon tries again by itself, and nobody logs in where it
runs: what is left is what somebody can do about it.

    >>> for_daemon("r.example does not answer; check the network and run the same command again")
    'r.example does not answer'
    >>> for_daemon("/store: 3 MiB are free; free some space and run again")
    '/store: 3 MiB are free; free some space'
    >>> for_daemon("pull of r.example/a: access denied; try: modelpack login r.example")
    'pull of r.example/a: access denied; the daemon looks for logins in authFile, or below its HOME'
    >>> for_daemon("containerd has no such snapshotter; name it with --snapshotter")
    'containerd has no such snapshotter; name it as runtime.snapshotter'
"""

import re

_AGAIN = re.compile(
    r"(?:[;,]? (?:and|then)|[;,]) (?:check the network and )?"
    r"run (?:the same command )?again(?: later| to continue)?\b"
)
_LOGIN = re.compile(r"[;,]? try(?: others)?: modelpack login \S+")
_LOGINS = "; the daemon looks for logins in authFile, or below its HOME"
_OPTION = re.compile(r"with --(address|host-root|snapshotter)\b")
_MEMBERS = {"address": "address", "host-root": "hostRoot", "snapshotter": "snapshotter"}


def for_daemon(reason: str) -> str:
    """Return an error's text without the advice that a daemon needs or can follow itself."""
    reason = _AGAIN.sub("", _LOGIN.sub(_LOGINS, reason))
    return _OPTION.sub(lambda match: f"as runtime.{_MEMBERS[match[1]]}", reason)
