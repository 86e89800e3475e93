"""Use the Python API: upgrade a directory and report what the upgrade cost.

python examples/pull_only_what_changed.py localhost:5000/team/model:v2 /models/llama
"""

import sys

import modelpack


def main(reference: str, destination: str) -> int:
    """Pull a version over another one; return the exit status."""
    connection = modelpack.ConnectionOptions(max_connections=8)
    try:
        result = modelpack.pull(reference, destination, exclude=["original"], connection=connection)
    except modelpack.ModelpackError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    share = result.fetched_bytes / result.bytes if result.bytes else 0.0
    print(
        f"{result.digest}: {result.files} files, {result.fetched_bytes} bytes fetched "
        f"({share:.1%} of the model), {result.reused_bytes} reused, {result.removed} removed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
