"""The gRPC service `LLBBridge` over bridges: for clients on the control socket, and for frontends in containers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lamina.api.errors import UNAUTHENTICATED, UNKNOWN, RemoteError
from lamina.api.pb import gateway_pb2 as gw
from lamina.api.pb import worker_pb2
from lamina.api.services import LLB_BRIDGE, Service
from lamina.bridge.bridge import Bridge
from lamina.bridge.caps import served
from lamina.bridge.exec_stream import run_processes
from lamina.bridge.messages import platform_of, result_message, result_of, stat_message
from lamina.errors import InputError, SourceRange
from lamina.policy.read import policy_of
from lamina.policy.values import Policy
from lamina.progress import WarningEvent
from lamina.rpc.call import Handler, ServedCall

FindBridge = Callable[[ServedCall], Bridge]


def bridge_service(
    find: FindBridge, workers: Callable[[], Sequence[worker_pb2.WorkerRecord]]
) -> tuple[Service, dict[str, Handler]]:
    """Return the service and its handlers.

    Args:
        find: returns the bridge that a call is for, or raises.
        workers: what `Ping` tells of workers.
    """

    def ping(_request: Any, call: ServedCall) -> gw.PongResponse:
        find(call)
        gateway, llb = served()
        return gw.PongResponse(FrontendAPICaps=gateway, LLBCaps=llb, Workers=workers())

    def on_bridge(handler: Callable[[Bridge, Any], Any]) -> Handler:
        return lambda request, call: handler(find(call), request)

    calls: dict[str, Callable[[Bridge, Any], Any]] = {
        "Solve": _solve,
        "Return": _return,
        "ReadFile": _read_file,
        "ReadDir": _read_dir,
        "StatFile": _stat_file,
        "Evaluate": _evaluate,
        "Inputs": _inputs,
        "ResolveImageConfig": _resolve_image_config,
        "ResolveSourceMeta": _resolve_source_meta,
        "Warn": _warn,
        "NewContainer": _new_container,
        "ReleaseContainer": _release_container,
    }

    def exec_process(messages: Iterable[gw.ExecMessage], call: ServedCall) -> Iterator[gw.ExecMessage]:
        return run_processes(find(call).containers, messages, call)

    return LLB_BRIDGE, {
        "Ping": ping,
        "ExecProcess": exec_process,
        **{name: on_bridge(one) for name, one in calls.items()},
    }


def _solve(bridge: Bridge, request: gw.SolveRequest) -> gw.SolveResponse:
    result = bridge.solve(
        definition=request.Definition if request.HasField("Definition") else None,
        frontend=request.Frontend,
        opts=dict(request.FrontendOpt),
        inputs=dict(request.FrontendInputs),
        evaluate=request.Evaluate,
        policies=_policies(request),
    )
    if result.refs and not request.allowResultReturn:
        raise InputError("the result has several references, and the client takes one")
    if request.Final:  # how clients returned their result before there was `Return`
        bridge.returned(result)
    message = result_message(result, bridge.keep, arrays=request.allowResultArrayRef)
    if request.allowResultReturn:
        return gw.SolveResponse(result=message)
    return gw.SolveResponse(ref=bridge.keep(result.ref), result=message)


def _policies(request: Any) -> list[Policy]:
    return [policy_of(one, "the frontend's policy") for one in request.SourcePolicies]


def _return(bridge: Bridge, request: gw.ReturnRequest) -> gw.ReturnResponse:
    if request.HasField("error") and request.error.code:
        if not 0 < request.error.code <= UNAUTHENTICATED:  # no status that gRPC could carry
            request.error.code = UNKNOWN
        bridge.returned(RemoteError(request.error))
    else:
        bridge.returned(result_of(request.result, bridge.ref))
    return gw.ReturnResponse()


def _read_file(bridge: Bridge, request: gw.ReadFileRequest) -> gw.ReadFileResponse:
    ref = bridge.ref(request.Ref)
    return gw.ReadFileResponse(Data=bridge.read_file(ref, request.FilePath, request.Range.Offset, request.Range.Length))


def _read_dir(bridge: Bridge, request: gw.ReadDirRequest) -> gw.ReadDirResponse:
    found = bridge.read_dir(bridge.ref(request.Ref), request.DirPath, request.IncludePattern)
    return gw.ReadDirResponse(entries=map(stat_message, found))


def _stat_file(bridge: Bridge, request: gw.StatFileRequest) -> gw.StatFileResponse:
    return gw.StatFileResponse(stat=stat_message(bridge.stat_file(bridge.ref(request.Ref), request.Path)))


def _evaluate(bridge: Bridge, request: gw.EvaluateRequest) -> gw.EvaluateResponse:
    ref = bridge.ref(request.Ref)
    if ref is not None:
        bridge.evaluate([ref])
    return gw.EvaluateResponse()


def _inputs(bridge: Bridge, _request: gw.InputsRequest) -> gw.InputsResponse:
    message = gw.InputsResponse()
    for name, definition in bridge.inputs.items():
        message.Definitions[name].CopyFrom(definition)
    return message


def _resolve_image_config(bridge: Bridge, request: gw.ResolveImageConfigRequest) -> gw.ResolveImageConfigResponse:
    reference, digest, config = bridge.image_config(request.Ref, platform_of(request.Platform), _policies(request))
    return gw.ResolveImageConfigResponse(Ref=reference, Digest=digest, Config=config)


def _resolve_source_meta(bridge: Bridge, request: gw.ResolveSourceMetaRequest) -> gw.ResolveSourceMetaResponse:
    return bridge.source_meta(request, _policies(request))


def _new_container(bridge: Bridge, request: gw.NewContainerRequest) -> gw.NewContainerResponse:
    bridge.containers.new(request)
    return gw.NewContainerResponse()


def _release_container(bridge: Bridge, request: gw.ReleaseContainerRequest) -> gw.ReleaseContainerResponse:
    bridge.containers.release(request.ContainerID)
    return gw.ReleaseContainerResponse()


def _warn(bridge: Bridge, request: gw.WarnRequest) -> gw.WarnResponse:
    source = None
    if request.ranges:
        first = request.ranges[0]
        text = request.info.data.decode("utf-8", "replace")
        source = SourceRange(request.info.filename, first.start.line, first.end.line, text)
    detail = tuple(line.decode("utf-8", "replace") for line in request.detail)
    short = request.short.decode("utf-8", "replace")
    bridge.job.sink(WarningEvent(request.digest, short, detail, request.url, request.level, source))
    return gw.WarnResponse()
