"""The standard reflection service (`grpc.reflection.v1` and `v1alpha`): what the agent serves, told by the agent.

The contracts are those that the messages were generated from; none of them imports another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightkeeper.transport import codec
from lightkeeper.transport.method import Caller, Kind, Method

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

    from lightkeeper.transport import reflection_pb2

REFLECTION = "grpc.reflection.v1.ServerReflection"
ALPHA = "grpc.reflection.v1alpha.ServerReflection"
_NOT_FOUND, _INVALID_ARGUMENT = 5, 3


class Reflection:
    """The contracts of one agent."""

    def methods(self) -> Mapping[str, Method]:
        """Return the method by its full path, under both of its names."""
        method = Method(self._info, kind=Kind.CONVERSATION)
        return {f"/{service}/ServerReflectionInfo": method for service in (REFLECTION, ALPHA)}

    def _info(self, body: bytes, _caller: Caller) -> bytes:
        from lightkeeper.transport import reflection_pb2 as wire  # for whoever asks: an agent starts without it

        request = codec.parse(wire.ServerReflectionRequest, body)
        response = wire.ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            self._answer(request, response)
        except KeyError as error:
            response.error_response.error_code = _NOT_FOUND
            response.error_response.error_message = f"the agent knows no {error.args[0]!r}"
        return response.SerializeToString()

    def _answer(
        self, request: reflection_pb2.ServerReflectionRequest, response: reflection_pb2.ServerReflectionResponse
    ) -> None:
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in sorted(name for file in _contracts() for name in _services(file)):
                    response.list_services_response.service.add(name=name)
            case "file_by_filename":
                files = {file.name: file for file in _contracts()}
                _tell(files[request.file_by_filename], response)
            case "file_containing_symbol":
                _tell(_file_with(request.file_containing_symbol), response)
            case "file_containing_extension":
                # the contracts are proto3, and nothing extends them
                raise KeyError(request.file_containing_extension.containing_type)
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                _file_with(name)
                response.all_extension_numbers_response.base_type_name = name
            case _:
                response.error_response.error_code = _INVALID_ARGUMENT
                response.error_response.error_message = "the request asks for nothing"


def _contracts() -> Sequence[FileDescriptor]:
    from lightkeeper.transport import agent_pb2, control_pb2, health_pb2, reflection_pb2

    return [module.DESCRIPTOR for module in (agent_pb2, control_pb2, health_pb2, reflection_pb2)]


def _services(file: FileDescriptor) -> list[str]:
    return [service.full_name for service in file.services_by_name.values()]


def _tell(file: FileDescriptor, response: reflection_pb2.ServerReflectionResponse) -> None:
    response.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)


def _file_with(symbol: str) -> FileDescriptor:
    """Return the contract that defines a symbol, or raise KeyError."""
    owner, _, member = symbol.rpartition(".")
    for file in _contracts():
        for service in file.services_by_name.values():
            if service.full_name == owner and member in service.methods_by_name:
                return file
        try:
            return file.pool.FindFileContainingSymbol(symbol)
        except KeyError:
            continue
    raise KeyError(symbol)
