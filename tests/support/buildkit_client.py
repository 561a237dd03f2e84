"""A client of BuildKit's API for tests: it drives a daemon over gRPC, and serves the session's services itself.

Written from the .proto files and what BuildKit's documentation says of the protocol; shares no code with `remote/`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import stat
import tempfile
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc
from google.rpc.status_pb2 import Status

from lamina.api import services
from lamina.api.pb import (
    auth_pb2,
    content_pb2,
    control_pb2,
    exporter_pb2,
    filesync_pb2,
    fsutil_pb2,
    gateway_pb2,
    secrets_pb2,
    ssh_pb2,
    upload_pb2,
)

STAT, REQ, DATA, FIN, ERR = range(5)
Packet = fsutil_pb2.Packet


def stub(channel: grpc.Channel, method: services.Method) -> Any:
    """Return a callable for one method."""
    make = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[method.client_streams, method.server_streams]
    return make(method.path, method.request.SerializeToString, method.response.FromString)


def details(error: grpc.RpcError) -> Status:
    """Return the status with its details that an error carries."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return Status.FromString(value)
    return Status()


@dataclass
class Offers:
    """What the client offers in its session.

    Attributes:
        dirs: by name.
        secrets: by id.
        agents: sockets of agents by id.
        logins: (user, password) by host.
        exporters: what is to be exported besides; None without that service.
        fetches_tokens: of registries, as docker does, with `logins`.
        uploads: streams by the path of their URL.
        stores: directories with blobs, by the ids of content stores (`oci:NAME`, `local:DIR`, `export`).
        outputs: by the number of the exporter: a path for a file, or a directory.
        sent: bytes of file contents that were sent, by directory name.
        asked: what was asked for, in order.
        hold: nothing of a directory is sent before it is set.
        stall: by directory name, how many bytes of contents are sent before `resume` is waited for; `stalled` is set
            then, and `resume` is waited for before an output is taken, too, where `stall_outputs`.
        judge: answers `CheckPolicyRequest`s; None for a client that judges no sources.
    """

    dirs: dict[str, Path] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    agents: dict[str, Path] = field(default_factory=dict)
    logins: dict[str, tuple[str, str]] = field(default_factory=dict)
    exporters: list[tuple[str, dict[str, str]]] | None = None
    fetches_tokens: bool = False
    uploads: dict[str, bytes] = field(default_factory=dict)
    stores: dict[str, Path] = field(default_factory=dict)
    outputs: dict[int, Path] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    hold: threading.Event | None = None
    judge: Callable[[Any], Any] | None = None
    stall: dict[str, int] = field(default_factory=dict)
    stall_outputs: bool = False
    stalled: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)

    def wait_to_resume(self) -> None:
        self.stalled.set()
        self.resume.wait(60)


class Client:
    """A connection to a daemon."""

    def __init__(self, address: str) -> None:
        self._use(grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]))

    @classmethod
    def over(cls, channel: grpc.Channel) -> Client:
        """Return a client over a channel that somebody else opened."""
        found = cls.__new__(cls)
        found._use(channel)
        return found

    def _use(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.control = {name: stub(channel, method) for name, method in services.CONTROL.methods.items()}
        self.trace = {name: stub(channel, method) for name, method in services.TRACE.methods.items()}
        self.content = {name: stub(channel, method) for name, method in services.CONTENT.methods.items()}
        self.bridge = {name: stub(channel, method) for name, method in services.LLB_BRIDGE.methods.items()}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def solve(self, session: str = "", ref: str = "", **fields: Any) -> dict[str, str]:
        """Build, and return the exporters' response."""
        exporters = [control_pb2.Exporter(Type=kind, Attrs=attrs) for kind, attrs in fields.pop("exporters", ())]
        request = control_pb2.SolveRequest(Ref=ref or new_ref(), Session=session, Exporters=exporters, **fields)
        return dict(self.control["Solve"](request, timeout=120).ExporterResponse)

    def dockerfile(
        self, session: str, ref: str = "", opts: Mapping[str, str] | None = None, **fields: Any
    ) -> dict[str, str]:
        """Build the session's Dockerfile."""
        return self.solve(session, ref, Frontend="dockerfile.v0", FrontendAttrs=opts or {}, **fields)

    def watch(self, ref: str) -> Iterator[control_pb2.StatusResponse]:
        """Yield what is told of a build while it is told."""
        call = self.control["Status"](control_pb2.StatusRequest(Ref=ref), timeout=120)
        try:
            yield from call
        finally:
            call.cancel()

    def status(self, ref: str) -> list[control_pb2.StatusResponse]:
        """Return all that is told of a build."""
        return list(self.control["Status"](control_pb2.StatusRequest(Ref=ref), timeout=120))

    def ask(self, ref: str, method: str, request: Any) -> Any:
        """Call the bridge of a build."""
        return self.bridge[method](request, metadata=[("buildkit-controlapi-buildid", ref)], timeout=60)

    @contextmanager
    def session(self, offers: Offers, name: str = "", shared_key: str = "test") -> Iterator[str]:
        """Open a session, and return its id."""
        name = name or new_ref()
        with _serving(offers) as (address, methods):
            metadata = [("x-docker-expose-session-uuid", name), ("x-docker-expose-session-sharedkey", shared_key)]
            metadata += [("x-docker-expose-session-grpc-method", method) for method in methods]
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(address)
                call = self.control["Session"](_outgoing(connection), metadata=metadata)
                thread = threading.Thread(target=_incoming, args=(call, connection), daemon=True)
                thread.start()
                try:
                    yield name
                finally:
                    call.cancel()
                    thread.join(10)


def new_ref() -> str:
    """Return a name nobody else has."""
    return uuid.uuid4().hex


def _outgoing(connection: socket.socket) -> Iterator[control_pb2.BytesMessage]:
    try:
        while data := connection.recv(64 << 10):
            yield control_pb2.BytesMessage(data=data)
    except OSError:
        return


def _incoming(call: Any, connection: socket.socket) -> None:
    try:
        for message in call:
            connection.sendall(message.data)
    except (grpc.RpcError, OSError):
        pass
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


@contextmanager
def _serving(offers: Offers) -> Iterator[tuple[str, list[str]]]:
    """Serve what is offered on a socket of its own; yield its path and the methods."""
    handlers: dict[str, tuple[services.Service, dict[str, Callable[..., Any]]]] = {
        "files": (services.FILE_SYNC, {"DiffCopy": lambda packets, context: _send_dir(offers, packets, context)}),
        "secrets": (services.SECRETS, {"GetSecret": lambda request, context: _secret(offers, request, context)}),
        "auth": (services.AUTH, {"Credentials": lambda request, context: _login(offers, request)}),
    }
    if offers.fetches_tokens:
        handlers["auth"][1]["FetchToken"] = lambda request, context: _fetch_token(offers, request, context)
    if offers.agents:
        calls = {
            "CheckAgent": lambda request, context: _check_agent(offers, request, context),
            "ForwardAgent": lambda messages, context: _forward(offers, messages, context),
        }
        handlers["ssh"] = (services.SSH, calls)
    if offers.uploads:
        handlers["upload"] = (services.UPLOAD, {"Pull": lambda messages, context: _give_upload(offers, context)})
    if offers.exporters is not None:
        hooks = {
            "FindExporters": lambda request, context: _find_exporters(offers, request),
            "FinalizeExport": lambda request, context: _finalize(offers, request, context),
        }
        handlers["exporter"] = (services.EXPORTER, hooks)
    if offers.stores:
        content = {
            "Info": lambda request, context: _tell_blob(offers, request, context),
            "Read": lambda request, context: _give_blob(offers, request, context),
            "Write": lambda requests, context: _take_blob(offers, requests, context),
        }
        handlers["content"] = (services.CONTENT, content)
    if offers.judge is not None:
        handlers["policy"] = (
            services.POLICY_VERIFIER,
            {"CheckPolicy": lambda request, context: _judged(offers, request)},
        )
    server = grpc.server(ThreadPoolExecutor(32))
    methods = []
    for service, calls in handlers.values():
        found = {}
        for name, call in calls.items():
            method = service.methods[name]
            methods.append(method.path)
            make = {
                (False, False): grpc.unary_unary_rpc_method_handler,
                (False, True): grpc.unary_stream_rpc_method_handler,
                (True, True): grpc.stream_stream_rpc_method_handler,
            }[method.client_streams, method.server_streams]
            found[name] = make(call, method.request.FromString, method.response.SerializeToString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, found),))
    if offers.outputs:
        methods.append(services.FILE_SEND.DiffCopy.path)
        raw = grpc.stream_stream_rpc_method_handler(lambda messages, context: _take_output(offers, messages, context))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(services.FILE_SEND.name, {"DiffCopy": raw}),)
        )
    with tempfile.TemporaryDirectory(prefix="bk-") as folder:
        path = f"{folder}/s"
        server.add_insecure_port(f"unix:{path}")
        server.start()
        try:
            yield path, methods
        finally:
            server.stop(None).wait()


def _metadata(context: grpc.ServicerContext, name: str) -> list[str]:
    return [value for key, value in context.invocation_metadata() if key == name]


def go_mode(status: os.stat_result) -> int:
    """Return a mode as Go's os.FileMode has it."""
    kinds = {
        stat.S_IFDIR: 1 << 31,
        stat.S_IFLNK: 1 << 27,
        stat.S_IFIFO: 1 << 25,
        stat.S_IFREG: 0,
        stat.S_IFSOCK: 1 << 24,
    }
    mode = status.st_mode
    found = (mode & 0o777) | kinds[stat.S_IFMT(mode)]
    return found | bool(mode & stat.S_ISUID) << 23 | bool(mode & stat.S_ISGID) << 22 | bool(mode & stat.S_ISVTX) << 20


def walk(root: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield paths below a directory in the order in which they are sent."""
    pending = [""]
    while pending:
        path = pending.pop()
        status = os.lstat(root / path)
        if path:
            yield path, status
        if stat.S_ISDIR(status.st_mode):
            names = sorted(os.listdir(root / path), key=os.fsencode, reverse=True)
            below = [f"{path}/{name}" if path else name for name in names]
            pending += [one for one in below if wanted(one)]


def _send_dir(offers: Offers, packets: Iterator[Packet], context: grpc.ServicerContext) -> Iterator[Packet]:
    name = (_metadata(context, "dir-name") or [""])[0]
    offers.asked.append(f"dir {name}")
    root = offers.dirs.get(name)
    if root is None:
        context.abort(grpc.StatusCode.NOT_FOUND, f"no access allowed to dir {name!r}")
    if offers.hold is not None:
        offers.hold.wait(60)
    follow = _metadata(context, "followpaths")
    files: dict[int, str] = {}
    names: dict[tuple[int, int], str] = {}
    for count, (path, status) in enumerate(walk(root, lambda one: _is_wanted(one, follow))):
        message = fsutil_pb2.Stat(path=path, mode=go_mode(status), size=status.st_size, modTime=status.st_mtime_ns)
        if stat.S_ISLNK(status.st_mode):
            message.linkname = os.readlink(root / path)
        elif stat.S_ISREG(status.st_mode):
            inode = (status.st_dev, status.st_ino)
            if inode in names:
                message.linkname = names[inode]
            elif status.st_nlink > 1:
                names[inode] = path
            files[count] = path
        else:
            message.size = 0
        yield Packet(type=STAT, stat=message)
    yield Packet(type=STAT)
    for packet in packets:
        if packet.type == REQ:
            with open(root / files[packet.ID], "rb") as file:
                while data := file.read(32 << 10):
                    if offers.sent.get(name, 0) >= offers.stall.get(name, 1 << 60):
                        offers.wait_to_resume()
                    offers.sent[name] = offers.sent.get(name, 0) + len(data)
                    yield Packet(type=DATA, ID=packet.ID, data=data)
            yield Packet(type=DATA, ID=packet.ID)
        elif packet.type == FIN:
            yield Packet(type=FIN)
            return
        elif packet.type == ERR:
            return


def _is_wanted(path: str, follow: list[str]) -> bool:
    """Tell whether a path is one of those to follow, or leads to one, or is below one."""
    if not follow or "." in follow:
        return True
    return any(path == one or one.startswith(f"{path}/") or path.startswith(f"{one}/") for one in follow)


def _secret(offers: Offers, request: secrets_pb2.GetSecretRequest, context: grpc.ServicerContext) -> Any:
    offers.asked.append(f"secret {request.ID}")
    if request.ID not in offers.secrets:
        context.abort(grpc.StatusCode.NOT_FOUND, f"secret {request.ID}: not found")
    return secrets_pb2.GetSecretResponse(data=offers.secrets[request.ID])


def _judged(offers: Offers, request: Any) -> Any:
    assert offers.judge is not None
    offers.asked.append(f"judge {request.Source.Source.identifier}")
    return offers.judge(request)


def _login(offers: Offers, request: auth_pb2.CredentialsRequest) -> Any:
    offers.asked.append(f"login {request.Host}")
    user, password = offers.logins.get(request.Host, ("", ""))
    return auth_pb2.CredentialsResponse(Username=user, Secret=password)


def _fetch_token(offers: Offers, request: auth_pb2.FetchTokenRequest, context: grpc.ServicerContext) -> Any:
    """Ask the realm, as docker's client does."""
    offers.asked.append(f"token {request.Host} {' '.join(request.Scopes)}")
    query = urlencode([("service", request.Service), *(("scope", scope) for scope in request.Scopes)])
    ask = urllib.request.Request(f"{request.Realm}?{query}")
    if request.Host in offers.logins:
        text = base64.b64encode(":".join(offers.logins[request.Host]).encode()).decode()
        ask.add_header("Authorization", f"Basic {text}")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(ask, timeout=20) as answer:
            found = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        context.abort(grpc.StatusCode.UNKNOWN, f"failed to fetch oauth token: unexpected status: {error.code}")
    return auth_pb2.FetchTokenResponse(Token=found["token"], ExpiresIn=found.get("expires_in", 0))


def _check_agent(offers: Offers, request: ssh_pb2.CheckAgentRequest, context: grpc.ServicerContext) -> Any:
    if request.ID not in offers.agents:
        context.abort(grpc.StatusCode.NOT_FOUND, f"unset ssh forward key {request.ID}")
    return ssh_pb2.CheckAgentResponse()


def _forward(offers: Offers, messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    name = (_metadata(context, "buildkit.ssh.id") or ["default"])[0]
    with socket.socket(socket.AF_UNIX) as agent:
        agent.connect(str(offers.agents[name]))

        def send() -> None:
            for message in messages:
                agent.sendall(message.data)
            agent.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        while data := agent.recv(32 << 10):
            yield ssh_pb2.BytesMessage(data=data)


def _find_exporters(offers: Offers, request: exporter_pb2.FindExportersRequest) -> Any:
    offers.asked.append(f"exporters for {len(request.refs)} {','.join(sorted(request.metadata))}")
    found = [exporter_pb2.ExporterRequest(Type=kind, Attrs=attrs) for kind, attrs in offers.exporters or ()]
    return exporter_pb2.FindExportersResponse(exporters=found)


def _finalize(offers: Offers, request: exporter_pb2.FinalizeExportRequest, context: grpc.ServicerContext) -> Any:
    offers.asked.append(f"finalize {','.join(sorted(request.exporter_response))}")
    if "refuse" in offers.secrets:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the hook says no")
    return exporter_pb2.FinalizeExportResponse()


def _give_upload(offers: Offers, context: grpc.ServicerContext) -> Iterator[Any]:
    """Give a stream, once."""
    name = (_metadata(context, "urlpath") or [""])[0].removeprefix("/")
    offers.asked.append(f"upload {name}")
    if name not in offers.uploads:
        context.abort(grpc.StatusCode.UNKNOWN, f"no http response from session for {name}")
    data = offers.uploads.pop(name)
    for start in range(0, len(data), 100_000):
        yield upload_pb2.BytesMessage(data=data[start : start + 100_000])


def _blob(offers: Offers, digest: str, context: grpc.ServicerContext) -> Path:
    store = (_metadata(context, "buildkit-attachable-store-id") or [""])[0]
    if store not in offers.stores:
        context.abort(grpc.StatusCode.NOT_FOUND, f"no content store {store}: not found")
    return offers.stores[store] / "blobs" / digest.replace(":", "/")


def _tell_blob(offers: Offers, request: content_pb2.InfoRequest, context: grpc.ServicerContext) -> Any:
    path = _blob(offers, request.digest, context)
    if not path.is_file():
        context.abort(grpc.StatusCode.NOT_FOUND, f"{request.digest}: not found")
    return content_pb2.InfoResponse(info=content_pb2.Info(digest=request.digest, size=path.stat().st_size))


def _give_blob(offers: Offers, request: content_pb2.ReadContentRequest, context: grpc.ServicerContext) -> Iterator[Any]:
    offers.asked.append(f"blob {request.digest}")
    path = _blob(offers, request.digest, context)
    if not path.is_file():
        context.abort(grpc.StatusCode.NOT_FOUND, f"{request.digest}: not found")
    data = path.read_bytes()
    for start in range(0, len(data), 100_000):
        yield content_pb2.ReadContentResponse(offset=start, data=data[start : start + 100_000])


def _take_blob(offers: Offers, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    """Keep a blob if it is what it is said to be."""
    data = bytearray()
    for request in requests:
        if request.offset != len(data):
            context.abort(grpc.StatusCode.OUT_OF_RANGE, f"{request.offset} instead of {len(data)}")
        data += request.data
        if request.action == content_pb2.COMMIT:
            found = "sha256:" + hashlib.sha256(data).hexdigest()
            if (found, len(data)) != (request.expected, request.total):
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "unexpected commit digest")
            path = _blob(offers, found, context)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            offers.asked.append(f"keep {found}")
        yield content_pb2.WriteContentResponse(action=request.action, offset=len(data))


def _take_output(offers: Offers, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Take what comes for one exporter: bytes into a file, or the entries of a directory."""
    number = int((_metadata(context, "buildkit-attachable-exporter-id") or ["0"])[0])
    target = offers.outputs[number]
    if offers.stall_outputs:
        offers.wait_to_resume()
    if not target.is_dir():
        with open(target, "wb") as file:
            for message in messages:
                file.write(filesync_pb2.BytesMessage.FromString(message).data)
        return
    yield from _take_tree(target, (Packet.FromString(message) for message in messages))


def _take_tree(target: Path, packets: Iterator[Packet]) -> Iterator[bytes]:
    wanted: dict[int, Path] = {}
    count = 0
    for packet in packets:
        if packet.type == STAT and packet.HasField("stat"):
            one = packet.stat
            path = target / one.path
            if one.mode & 1 << 31:
                path.mkdir(exist_ok=True)
            elif one.mode & 1 << 27:
                path.symlink_to(one.linkname)
            elif one.linkname:
                os.link(target / one.linkname, path)
            else:
                path.write_bytes(b"")
                path.chmod(one.mode & 0o777)
                wanted[count] = path
                yield Packet(type=REQ, ID=count).SerializeToString()
            count += 1
        elif packet.type == DATA:
            if packet.data:
                with open(wanted[packet.ID], "ab") as file:
                    file.write(packet.data)
            else:
                del wanted[packet.ID]
        elif packet.type == FIN:
            return
        listed = packet.type == STAT and not packet.HasField("stat")
        if (listed or packet.type == DATA) and not wanted:
            yield Packet(type=FIN).SerializeToString()


def raw_solve(definition: Any) -> gateway_pb2.SolveRequest:
    """Return a frontend's request to solve a definition."""
    return gateway_pb2.SolveRequest(Definition=definition, allowResultReturn=True, allowResultArrayRef=True)
