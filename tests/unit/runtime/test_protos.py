"""The compiled descriptors are those of the .proto files, and agree with a second witness."""

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTOS = Path(__file__).parents[3] / "modelpack/runtime/protos"
# Written for the tests, by what the tests need: not by what the project uses.
WITNESS = Path(__file__).parents[2] / "support/protos/cri.proto"


def compiled(directory: Path, names: list[str], out: Path) -> descriptor_pb2.FileDescriptorSet:
    arguments = ["", f"--proto_path={directory}", f"--descriptor_set_out={out}", *names]
    assert protoc.main(arguments) == 0
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def messages(files: descriptor_pb2.FileDescriptorSet) -> dict[str, dict[str, tuple]]:
    """Return (number, type, label) of each field of each message of CRI, by their names."""
    return {
        message.name: {
            field.name: (field.number, field.type, field.label) for field in message.field
        }
        for file in files.file
        if file.package == "runtime.v1"
        for message in file.message_type
    }


def test_the_compiled_file_is_up_to_date(tmp_path):
    names = sorted(path.name for path in PROTOS.glob("*.proto"))
    fresh = compiled(PROTOS, names, tmp_path / "api.binpb")
    kept = descriptor_pb2.FileDescriptorSet.FromString((PROTOS / "api.binpb").read_bytes())
    assert kept == fresh, (
        "compile again: cd modelpack/runtime/protos && python -m grpc_tools.protoc "
        "--proto_path=. --descriptor_set_out=api.binpb *.proto"
    )


def test_cri_has_the_numbers_of_the_witness(tmp_path):
    mine = messages(compiled(PROTOS, ["cri.proto"], tmp_path / "mine"))
    theirs = messages(compiled(WITNESS.parent, [WITNESS.name], tmp_path / "theirs"))
    shared = mine.keys() & theirs.keys()
    assert {"ImageSpec", "Image", "PullImageRequest", "AuthConfig"} <= shared
    for name in shared:
        for field in mine[name].keys() & theirs[name].keys():
            assert mine[name][field] == theirs[name][field], f"{name}.{field}"


@pytest.mark.parametrize("name", ["grpc", "google.protobuf"])
def test_nothing_is_loaded_before_it_is_needed(name):
    import subprocess
    import sys

    program = (
        "import sys, modelpack.runtime.containerd, modelpack.runtime.podman; "
        f"sys.exit({name!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
