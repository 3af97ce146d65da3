"""gRPC reflection, by which tools such as grpcurl find the API without the .proto file."""

from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2


def add_reflection(services: tuple[str, ...], server: Any) -> None:
    """Adds reflection to a server, or to its routes, under its old and its current name.

    grpcio-reflection knows v1alpha only; the messages of v1 have the same bytes, so the same servicer answers both.
    """
    names = (*services, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    servicer: Any = reflection.aio.ReflectionServicer(service_names=names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_registered_method_handlers("grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": handler})
