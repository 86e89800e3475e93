"""A model of a dozen megabytes that holds every shape the delivery has to carry.

model = build_sample(tmp_path / "model")
assert digests_of(out) == digests_of(model)
"""

import hashlib
import os
from pathlib import Path

from tests.support.models import CHUNK, one_shard, random_bytes, read_tree, write_files

# A directory three names deep and a file name of 250 bytes: only a pax header holds them.
LONG_PATH = "/".join(["d" * 60] * 3) + "/" + "f" * 250
README = b"""---
license: apache-2.0
language: [en, de]
base_model: example/base
datasets: [example/text]
---
# A sample
"""


def build_sample(root: Path, *, seed: int = 1) -> Path:
    """Write the model below ``root`` with modes 0644 and 0755; return ``root``."""
    write_files(
        root,
        {
            "model-00001-of-00002.safetensors": one_shard(range(8), size=700_000, seed=seed),
            "model-00002-of-00002.safetensors": one_shard(range(8, 16), size=700_000, seed=seed),
            "model.safetensors.index.json": b'{"weight_map":{}}',
            "config.json": b'{"model_type":"llama","architectures":["LlamaForCausalLM"],'
            b'"num_attention_heads":4,"torch_dtype":"bfloat16"}',
            "README.md": README,
            ".gitattributes": b"*.safetensors filter=lfs\n",
            "empty": b"",
            "tokenizer/deep/vocab.txt": b"a\nb\n",
            "one-chunk-and-a-byte.bin": random_bytes(CHUNK + 1, seed),
            LONG_PATH: b"long",
            "наука/модель-日本語.txt": "содержание".encode(),
            "run.sh": b"#!/bin/sh\n",
        },
    )
    for path, _, files in os.walk(root):
        for name in files:
            Path(path, name).chmod(0o755 if name == "run.sh" else 0o644)
    return root


def digests_of(root: Path) -> dict[str, tuple[int, str]]:
    """Return (mode, SHA-256) of every file below ``root`` but modelpack's own, by path."""
    return {
        path: (mode, hashlib.sha256(data).hexdigest())
        for path, (mode, data) in read_tree(root).items()
    }
