"""The Container Runtime Interface, spoken the way a kubelet speaks it.

``protos/cri.proto`` is compiled when a client is first made, into message classes in memory: no
generated code lies in the repository, and nothing here can clash with the stubs of the project.

    cri = Cri(socket)
    image = cri.images("PullImage", image={"image": "127.0.0.1:5000/team/model:v1"}).image_ref
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

PROTO = Path(__file__).parent / "protos" / "cri.proto"
CALL_SECONDS = 120  # a pull of a few hundred megabytes on a busy machine
MAX_MESSAGE_BYTES = 16 << 20  # containerd's own limit

Call = Callable[..., Any]


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    with tempfile.NamedTemporaryFile(suffix=".binpb") as compiled:
        arguments = ["", f"--proto_path={PROTO.parent}", f"--descriptor_set_out={compiled.name}"]
        if protoc.main([*arguments, PROTO.name]) != 0:
            raise RuntimeError(f"protoc does not accept {PROTO}")
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(compiled.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


class Cri:
    """The two services of a runtime behind one socket.

    ``runtime`` and ``images`` make a call by name; keyword arguments are the request's fields,
    with dictionaries for messages. They return the response message and raise
    :class:`grpc.RpcError`.
    """

    def __init__(self, socket: Path):
        self._channel = grpc.insecure_channel(
            f"unix://{socket}",
            options=[
                ("grpc.default_authority", "localhost"),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ],
        )
        self.runtime = self._service("runtime.v1.RuntimeService")
        self.images = self._service("runtime.v1.ImageService")

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _service(self, name: str) -> Call:
        methods = _pool().FindServiceByName(name).methods_by_name

        def call(method: str, /, *, timeout: float = CALL_SECONDS, **fields: object) -> Any:
            request = message_factory.GetMessageClass(methods[method].input_type)
            response = message_factory.GetMessageClass(methods[method].output_type)
            stub = self._channel.unary_unary(
                f"/{name}/{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            return stub(request(**fields), timeout=timeout)

        return call
