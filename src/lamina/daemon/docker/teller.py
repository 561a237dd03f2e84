"""How a build is told to docker's client: as BuildKit's messages, or in the words of the classic builder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from lamina.api.pb import control_pb2
from lamina.daemon.docker.lines import Lines
from lamina.daemon.docker.shapes import familiar, short

_MOST_KEPT = 8 << 20


class Teller(Protocol):
    """Tells of one build."""

    def begin(self, ignored: Sequence[str]) -> None:
        """Tell of options that mean nothing here."""

    def progress(self, message: control_pb2.StatusResponse) -> None:
        """Tell what happened."""

    def done(self, image_id: str, names: Sequence[str]) -> None:
        """Tell of the image that was made."""

    def failed(self, error: Exception) -> None:
        """Tell what went wrong."""


def teller_of(lines: Lines, *, classic: bool) -> Teller:
    """Return who tells in the way that the client understands."""
    return ClassicTeller(lines) if classic else BuildKitTeller(lines)


class BuildKitTeller:
    """Hands BuildKit's own messages on."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def begin(self, ignored: Sequence[str]) -> None:
        """Tell nothing: docker's daemon does not either."""

    def progress(self, message: control_pb2.StatusResponse) -> None:
        """Hand a message on."""
        self._lines.trace(message.SerializeToString())

    def done(self, image_id: str, names: Sequence[str]) -> None:
        """Tell the image's ID."""
        self._lines.image(image_id)

    def failed(self, error: Exception) -> None:
        """Tell what went wrong."""
        self._lines.error(error)


class ClassicTeller:
    """Tells steps and their output as text, and ends with the words that old clients look for."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._at_start = True

    def begin(self, ignored: Sequence[str]) -> None:
        """Tell of options that mean nothing here."""
        if ignored:
            self._lines.text(f"Ignored, since it means nothing to this builder: {', '.join(ignored)}\n")

    def progress(self, message: control_pb2.StatusResponse) -> None:
        """Tell of steps that begin, of those that were cached, and of what they write."""
        told: list[Any] = [vertex for vertex in message.vertexes if not vertex.name.startswith("[internal]")]
        for one in sorted([*told, *message.logs], key=_moment):
            if isinstance(one, control_pb2.VertexLog):
                text = one.msg.decode("utf-8", "replace")
                self._lines.text(text)
                self._at_start = text.endswith("\n")
            else:
                self._step(one)
        for warning in message.warnings:
            self._say(f"WARNING: {warning.short.decode('utf-8', 'replace')}\n")

    def _step(self, vertex: control_pb2.Vertex) -> None:
        if vertex.HasField("started") and vertex.digest not in self._begun:
            self._begun.add(vertex.digest)
            self._say(f"Step {len(self._begun)} : {vertex.name}\n")
        if vertex.cached and vertex.HasField("completed") and vertex.digest not in self._ended:
            self._ended.add(vertex.digest)
            self._say(" ---> Using cache\n")

    def done(self, image_id: str, names: Sequence[str]) -> None:
        """Tell the image's ID and names."""
        self._lines.image(image_id, name="")
        self._say(f"Successfully built {short(image_id)}\n")
        for name in names:
            self._say(f"Successfully tagged {familiar(name)}\n")

    def failed(self, error: Exception) -> None:
        """Tell what went wrong."""
        self._lines.error(error)

    def _say(self, text: str) -> None:
        self._lines.text(text if self._at_start else f"\n{text}")
        self._at_start = True


def _moment(one: Any) -> int:
    """Return when a step began, or a line was written, in nanoseconds."""
    return int((one.timestamp if isinstance(one, control_pb2.VertexLog) else one.started).ToNanoseconds())


class QuietLines(Lines):
    """Keeps lines back: they are told only when something goes wrong. Of too many the first are kept."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._kept: list[dict[str, Any]] = []
        self._size = 0

    def send(self, line: dict[str, Any]) -> None:
        """Keep a line."""
        if "errorDetail" in line:
            for kept in self._kept:
                self._lines.send(kept)
            self._lines.send(line)
            self._kept.clear()
        elif self._size < _MOST_KEPT:
            self._size += sum(len(value) for value in line.values() if isinstance(value, str))
            self._kept.append(line)

    def image(self, image_id: str, *, name: str = "") -> None:
        """Tell the image's ID, and nothing else."""
        self._lines.text(f"{image_id}\n")
