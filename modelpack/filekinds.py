"""What kind of file a name promises, in the words of CNCF ModelPack's model-spec. Pure.

>>> file_kind("model-00001-of-00002.safetensors"), file_kind("README.md"), file_kind("config.json")
('weight', 'doc', 'weight.config')
"""

# ModelPack model-spec, "Layer media types", by what a file's name says of it.
_WEIGHT = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".keras",
           ".npz", ".msgpack", ".tflite", ".engine", ".pdparams", ".mlmodel", ".om")  # fmt: skip
_DOC = (".md", ".txt", ".pdf", ".rst", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".html")
_CODE = (".py", ".ipynb", ".sh", ".cpp", ".cu", ".c", ".h", ".js", ".ts")
_DATASET = (".parquet", ".csv", ".tsv", ".jsonl", ".arrow")
_DOC_NAMES = ("license", "readme", "notice", "use_policy")
_CONFIG_TEXTS = ("merges.txt", "vocab.txt", "requirements.txt")


def file_kind(path: str) -> str:
    """Return the ModelPack kind of a file: weight, weight.config, doc, code or dataset."""
    name = path.rpartition("/")[2].lower()
    if name.endswith(_WEIGHT):
        return "weight"
    if name.endswith(_CODE):
        return "code"
    if name.endswith(_DATASET):
        return "dataset"
    if name in _CONFIG_TEXTS:
        return "weight.config"
    if name.endswith(_DOC) or name.startswith(_DOC_NAMES):
        return "doc"
    return "weight.config"
