"""What clients are told of a build, line by line."""

from __future__ import annotations

import base64
import json
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from lamina.api.pb import control_pb2
from lamina.daemon.docker.lines import Lines
from lamina.daemon.docker.teller import QuietLines, teller_of
from lamina.errors import CancelledError, InputError, SourceRange

IMAGE = "sha256:" + "ab" * 32


class Out:
    """Collects what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.splitlines()]

    @property
    def text(self) -> str:
        return "".join(line.get("stream", "") for line in self.lines)


def at(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


def vertex(name: str, started: int, **more: Any) -> control_pb2.Vertex:
    return control_pb2.Vertex(digest=f"sha256:{name}", name=name, started=at(started), **more)


def log(seconds: int, text: bytes) -> control_pb2.VertexLog:
    return control_pb2.VertexLog(timestamp=at(seconds), msg=text)


def test_buildkits_messages_are_handed_on_whole():
    out = Out()
    teller = teller_of(Lines(out), classic=False)  # type: ignore[arg-type]
    message = control_pb2.StatusResponse(vertexes=[vertex("a", 1)])
    teller.begin(["memory"])
    teller.progress(message)
    teller.done(IMAGE, ["docker.io/library/app:latest"])

    trace, image = out.lines
    assert trace["id"] == "moby.buildkit.trace"
    assert control_pb2.StatusResponse.FromString(base64.b64decode(trace["aux"])) == message
    assert image == {"id": "moby.image.id", "aux": {"ID": IMAGE}}


def test_old_clients_are_told_in_the_order_in_which_things_happened():
    out = Out()
    teller = teller_of(Lines(out), classic=True)  # type: ignore[arg-type]
    teller.begin(["memory"])
    first = vertex("[1/2] RUN a", 2)
    teller.progress(
        control_pb2.StatusResponse(
            vertexes=[vertex("exporting", 5), first, vertex("[internal] load", 1)],
            logs=[log(3, b"one\ntw"), log(4, b"o")],
        )
    )
    teller.progress(control_pb2.StatusResponse(vertexes=[first]))
    teller.done(IMAGE, ["docker.io/library/app:latest", "host:5000/x:1"])

    assert out.text == (
        "Ignored, since it means nothing to this builder: memory\n"
        "Step 1 : [1/2] RUN a\none\ntwo\nStep 2 : exporting\n"
        "Successfully built abababababab\nSuccessfully tagged app:latest\nSuccessfully tagged host:5000/x:1\n"
    )
    assert {"aux": {"ID": IMAGE}} in out.lines


def test_old_clients_hear_of_the_cache():
    out = Out()
    teller = teller_of(Lines(out), classic=True)  # type: ignore[arg-type]
    cached = vertex("RUN a", 1, completed=at(1), cached=True)
    teller.progress(control_pb2.StatusResponse(vertexes=[cached]))
    teller.progress(control_pb2.StatusResponse(vertexes=[cached]))

    assert out.text == "Step 1 : RUN a\n ---> Using cache\n"


def test_an_error_shows_the_lines_it_comes_from():
    out = Out()
    source = SourceRange("Dockerfile", 2, text="FROM a\nRUN false\n")
    Lines(out).error(InputError("it failed", source=source, hint="do not"))  # type: ignore[arg-type]

    (line,) = out.lines
    assert line["error"] == line["errorDetail"]["message"]
    assert line["error"].endswith("Dockerfile:2: it failed (do not)")
    assert "   2 | >>> RUN false" in line["error"]


def test_what_was_cancelled_is_called_as_docker_calls_it():
    out = Out()
    Lines(out).error(CancelledError())  # type: ignore[arg-type]

    assert out.lines[0]["error"] == "context canceled"


def test_quiet_means_the_id_alone():
    for classic in (True, False):
        out = Out()
        teller = teller_of(QuietLines(Lines(out)), classic=classic)  # type: ignore[arg-type]
        teller.progress(control_pb2.StatusResponse(vertexes=[vertex("a", 1)]))
        teller.done(IMAGE, ["docker.io/library/app:latest"])

        assert out.lines == [{"stream": f"{IMAGE}\n"}]


def test_quiet_ends_when_something_goes_wrong():
    out = Out()
    teller = teller_of(QuietLines(Lines(out)), classic=True)  # type: ignore[arg-type]
    teller.progress(control_pb2.StatusResponse(vertexes=[vertex("a", 1)]))
    teller.failed(InputError("no"))

    assert [set(line) for line in out.lines] == [{"stream"}, {"errorDetail", "error"}]
