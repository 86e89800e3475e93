"""Make the pictures of the status page from recorded statuses, with the real server and browser.

    .venv/bin/python docs/pictures/make_status.py     # needs chromium-headless-shell
    .venv/bin/python docs/pictures/make_status.py --serve   # look at one in your own browser

The times in a recording are moved so that it is of this moment. The pictures that are kept were
made with the font Inter (Debian: fonts-inter), and made small with pngquant.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PICTURES = Path(__file__).resolve().parent
sys.path.insert(0, str(PICTURES.parents[1]))

from modelpack.prefetch.status import DaemonStatus  # noqa: E402
from modelpack.prefetch.statusjson import parse_status  # noqa: E402
from modelpack.prefetch.web import serve  # noqa: E402
from tests.support.browser import Browser  # noqa: E402

_TIMES = ("started_at", "now", "alive_at", "loaded_at", "ready_at", "used_at", "next_attempt")
# Name, recording, colours, width.
SHOTS = (
    ("status-light", "status-busy", "light", 1120),
    ("status-dark", "status-busy", "dark", 1120),
    ("status-trouble", "status-trouble", "light", 1120),
)


class NoControl:
    """Nobody may ask anything of a recording."""

    def __getattr__(self, verb: str) -> Callable[[str | None], str]:
        """Answer every verb by saying so."""
        return lambda name: f"{verb} {name}: this is a recording"


def playing(recording: str) -> Callable[[], DaemonStatus]:
    """Return a function that gives the recorded status as if it were of now."""
    recorded = json.loads((PICTURES / f"{recording}.json").read_text())

    def status() -> DaemonStatus:
        return parse_status(moved(recorded, time.time() - recorded["now"]))

    return status


def moved(value: object, seconds: float) -> object:
    """Return a JSON value whose members that are times are later by so many seconds."""
    if isinstance(value, list):
        return [moved(item, seconds) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: item + seconds if name in _TIMES and item is not None else moved(item, seconds)
        for name, item in value.items()
    }


def shrink(pictures: list[Path]) -> None:
    """Use fewer colours, where there is a program for that."""
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--ext=.png", "--force", "64", *pictures], check=True)


def main(arguments: list[str]) -> int:
    """Make every picture, or serve one recording."""
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory, "control.sock")
        if "--serve" in arguments:
            recording = arguments[-1] if arguments[-1] != "--serve" else "status-busy"
            with serve(
                playing(recording), NoControl(), listen="127.0.0.1:0", socket_path=socket
            ) as at:
                sys.stdout.write(f"{at.url} and {at.socket_path}, until interrupted\n")
                sys.stdout.flush()
                time.sleep(24 * 3600)
        for name, recording, scheme, width in SHOTS:
            with (
                serve(
                    playing(recording), NoControl(), listen="127.0.0.1:0", socket_path=socket
                ) as at,
                Browser() as browser,
            ):
                browser.look(width=width, scheme=scheme, prefers_reduced_motion="reduce")
                browser.open(at.url)
                browser.wait_for("document.querySelectorAll('.model').length > 0")
                browser.picture(PICTURES / f"{name}.png")
        shrink([PICTURES / f"{name}.png" for name, *_ in SHOTS])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
