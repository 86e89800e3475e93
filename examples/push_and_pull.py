"""Use the Python API: package a directory, pull it elsewhere, and watch it happen.

python examples/push_and_pull.py MODEL_DIRECTORY oci:/tmp/store:v1 /tmp/copy
"""

import sys

import modelpack
from modelpack.events import Event, Finished, Moved, Planned


class Watch:
    """An observer that prints each finished file and counts bytes."""

    def __init__(self) -> None:
        """Start counting."""
        self.moved = 0

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, Planned):
            print(f"{len(event.items)} items, {event.total_bytes} bytes")
        elif isinstance(event, Moved):
            self.moved += event.size
        elif isinstance(event, Finished):
            print(f"done: {event.item} ({self.moved} bytes so far)")


def main(directory: str, reference: str, destination: str) -> int:
    """Push, pull and verify; return the exit status."""
    try:
        pushed = modelpack.push(directory, reference, observer=Watch())
        pulled = modelpack.pull(reference, destination, observer=Watch())
    except modelpack.ModelpackError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    report = modelpack.verify(destination)
    print(f"{pushed.digest} -> {destination}: {pulled.files} files, ok={report.ok}")
    return 0 if report.ok and pulled.digest == pushed.digest else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
