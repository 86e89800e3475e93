"""A model of about a megabyte with both kinds of tensor files, for tests that look into it.

model = write_small_model(tmp_path / "model")
"""

from pathlib import Path

import numpy as np

from tests.support.tensorfiles import STRING, gguf_file, gguf_pair, safetensors_file


def weights(seed=0, **extra):
    """A safetensors file of two tensors with chunks of their own and two that share one."""
    random = np.random.default_rng(seed)
    return safetensors_file(
        [
            ("layers.0.big", "F32", [300, 256], random.bytes(300 * 256 * 4)),
            ("layers.0.bias", "F16", [64], random.bytes(128)),
            ("layers.0.norm", "BF16", [64], random.bytes(128)),
            ("layers.1.big", "I8", [512, 1024], random.bytes(512 * 1024)),
        ],
        extra or None,
    )


def gguf(seed=9):
    """A GGUF file of two tensors, none of whose bytes are those of ``weights``."""
    data = np.random.default_rng(seed).bytes(300 * 256 * 4)
    return gguf_file(
        [("blk.0.ffn.weight", [256, 300], 0, data), ("blk.0.norm.weight", [64], 0, data[:256])],
        [gguf_pair("general.architecture", STRING, "llama")],
    )


def write_small_model(root: Path) -> Path:
    """Write six files below ``root``, one executable and one empty; return ``root``."""
    (root / "sub").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(weights())
    (root / "sub/q4.gguf").write_bytes(gguf())
    (root / "config.json").write_text('{"architectures": ["TestModel"], "hidden_size": 256}')
    (root / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (root / "run.sh").write_text("echo\n")
    (root / "run.sh").chmod(0o755)
    (root / "empty.txt").touch()
    return root
