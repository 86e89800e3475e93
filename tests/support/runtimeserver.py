"""A gRPC server on a Unix socket that answers as a test tells it to.

with RuntimeServer(tmp_path / "socket") as server:
    server.answers["Version"] = [Failure("UNAVAILABLE", "restarting"), {"version": "2.1.9"}]
"""

from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from modelpack.runtime import grpcapi


@dataclass(frozen=True)
class Failure:
    """An answer that is an error."""

    code: str
    details: str = ""


class RuntimeServer(grpc.GenericRpcHandler):
    """Answers each method with the next of its answers, and its last one for ever."""

    def __init__(self, socket: Path, *, patience: float = 5.0):
        self.answers: dict[str, list[Any]] = {}
        self.calls: list[tuple[str, Any, dict[str, str]]] = []
        self.socket = socket
        self.patience = patience
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((self,))
        self._server.add_insecure_port(f"unix://{socket}")

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()

    def connect(self) -> grpcapi.Connection:
        """Return a connection to this server."""
        return grpcapi.Connection(self.socket, patience=self.patience)

    def service(self, details):
        """Return what handles one call."""
        service, _, name = details.method.strip("/").partition("/")
        if name not in self.answers:
            return None
        method = grpcapi._service(service).methods_by_name[name]
        request, answer = grpcapi._classes(method.input_type, method.output_type)

        def act(message, context):
            self.calls.append((name, message, dict(context.invocation_metadata())))
            queue = self.answers[name]
            said = queue.pop(0) if len(queue) > 1 else queue[0]
            if isinstance(said, Failure):
                context.abort(grpc.StatusCode[said.code], said.details)
            return answer(**said)

        def act_on_stream(messages, context):
            yield act(next(iter(messages)), context)

        kind, behaviour = grpc.unary_unary_rpc_method_handler, act
        if method.client_streaming:
            kind, behaviour = grpc.stream_stream_rpc_method_handler, act_on_stream
        elif method.server_streaming:
            kind = grpc.unary_stream_rpc_method_handler
            behaviour = lambda message, context: iter([act(message, context)])  # noqa: E731
        return kind(
            behaviour,
            request_deserializer=request.FromString,
            response_serializer=answer.SerializeToString,
        )
