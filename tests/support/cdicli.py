"""What the tests of ``modelpack cdi`` share: the smallest inventory, and what a failure looks like.

fails(call("cdi", "lint", "nothing"), 3, "nothing")
"""

from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples/inventories"
SMALLEST = """\
driver: {version: "580.95.05"}
devices:
  - {vendor: nvidia, index: 0, uuid: GPU-6d1c, product: NVIDIA H200, memory: 141Gi,
     pci: "0000:17:00.0", major: 195, minor: 0}
"""


def fails(done, code, *words):
    """Require an exit status and one line on stderr that has these words, and no output."""
    assert done.code == code, done.err
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("modelpack: ")
    for word in words:
        assert word in line
