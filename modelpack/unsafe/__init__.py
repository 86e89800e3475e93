"""What in a model's files could run code when they are loaded.

Pure over readers (``finding.Reader``): a file on disk, or ranges of a blob not yet downloaded, are
judged alike and before anything is loaded. Everything is told by content; a name only makes the
judgement stricter.

- ``finding``: the result, and the reader that everything here takes
- ``opcodes``, ``pickles``: pickle streams, opcode by opcode, without ever running one
- ``numpyfiles``: arrays, which may hold objects and so a pickle
- ``packed``: what is compressed or packed, and told by its first bytes only
- ``ziparchive``: zip files, refusing whatever two readers could read differently
- ``configs``: Keras layers, ``auto_map`` and chat templates in JSON
- ``scan``: which of these a file needs
"""
