"""Serves the tables of `api.services` with grpcio: one function for each method; what they raise becomes a status.

A handler takes `(request, context)`, or `(iterator of requests, context)` where the client streams, and returns a
message, or an iterator of messages where the server streams; as grpcio has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc

from lamina.api.errors import status_of
from lamina.api.services import Method, Service

Handler = Callable[[Any, grpc.ServicerContext], Any]

_log = logging.getLogger(__name__)


def serve(service: Service, handlers: Mapping[str, Handler]) -> grpc.GenericRpcHandler:
    """Return what `grpc.Server.add_generic_rpc_handlers` takes; a method without handler is UNIMPLEMENTED."""
    unknown = handlers.keys() - service.methods.keys()
    assert not unknown, unknown
    found = {name: _method_handler(service.methods[name], handler) for name, handler in handlers.items()}
    return grpc.method_handlers_generic_handler(service.name, found)


def _method_handler(method: Method, handler: Handler) -> Any:
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.client_streams, method.server_streams]
    guarded = _guard_stream(method, handler) if method.server_streams else _guard(method, handler)
    return make(
        guarded,
        request_deserializer=method.request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _guard(method: Method, handler: Handler) -> Handler:
    def guarded(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return handler(request, context)
        except Exception as error:
            return _fail(method, error, context)

    return guarded


def _guard_stream(method: Method, handler: Handler) -> Handler:
    def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from handler(request, context)
        except Exception as error:
            _fail(method, error, context)

    return guarded


def _fail(method: Method, error: Exception, context: grpc.ServicerContext) -> Any:
    """End a call with the status that tells of an error; does not return."""
    status = status_of(error)
    _log.debug("%s: %s", method.path, status.message, exc_info=error)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    context.abort(code, status.message)
