"""Streams of JSON documents, one a line: how docker's daemon tells of what goes on, and of what went wrong midway."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

from lamina.daemon.docker.exchange import Stream
from lamina.daemon.docker.failures import text_of

TRACE, IMAGE = "moby.buildkit.trace", "moby.image.id"


class Lines:
    """Writes them. Thread-safe."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._guard = stream, threading.Lock()

    def send(self, line: dict[str, Any]) -> None:
        """Write one document."""
        data = json.dumps(line, ensure_ascii=True).encode() + b"\r\n"
        with self._guard:
            self._stream.write(data)

    def text(self, text: str) -> None:
        """Write text that the client shows as it is."""
        self.send({"stream": text})

    def status(self, text: str, **more: Any) -> None:
        """Write a line of status: of one thing where `id` names it, with `progressDetail` where it has come so far."""
        self.send({"status": text, **more})

    def trace(self, message: bytes) -> None:
        """Write a message of BuildKit's progress."""
        self.send({"id": TRACE, "aux": base64.b64encode(message).decode()})

    def image(self, image_id: str, *, name: str = IMAGE) -> None:
        """Tell the ID of the image that was made; `name` is "" for the classic builder."""
        self.send({**({"id": name} if name else {}), "aux": {"ID": image_id}})

    def error(self, error: Exception) -> None:
        """Tell what went wrong."""
        text = text_of(error)
        self.send({"errorDetail": {"message": text}, "error": text})
