"""What a frontend may ask, and what it answers. Pure: the shapes, and what follows from them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina.llb import state as llb
from lamina.llb.pb import ops_pb2 as pb


class Reference(ABC):
    """A file system that was promised; nothing is run before somebody looks at it, or it is the answer."""

    @abstractmethod
    def read_file(self, path: str, offset: int = 0, length: int = 0) -> bytes:
        """Return bytes of a file; `length` 0 is all of it.

        Raises:
            Error: it is not there, or what it stands on fails.
        """

    @abstractmethod
    def read_dir(self, path: str) -> list[str]:
        """Return the names in a directory."""


class Gateway(ABC):
    """A build, as its frontend sees it.

    Attributes:
        opts: options that the client gave (`build-arg:NAME`, `filename`, `target`, ...).
    """

    opts: Mapping[str, str]

    @abstractmethod
    def solve(self, graph: llb.State | pb.Definition) -> Reference:
        """Return the file system that a graph stands for."""

    @abstractmethod
    def image_config(self, name: str) -> tuple[str, dict[str, Any]]:
        """Return an image's name pinned by digest, and its config.

        Raises:
            Error: it cannot be had.
        """

    @abstractmethod
    def warn(self, text: str) -> None:
        """Tell the user something that does not stop the build."""

    def read_local(self, name: str, path: str) -> bytes:
        """Return a file of one of the client's directories (`context`, `dockerfile`).

        Raises:
            Error: it is not there.
        """
        return self.solve(llb.local(name, include=[path])).read_file(path)


@dataclass(slots=True)
class Answer:
    """What a frontend makes.

    Attributes:
        reference: the file system.
        config: the image config without rootfs (`config`, `architecture`, `os`, ...).
        metadata: more for the client, by name.
    """

    reference: Reference
    config: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, bytes] = field(default_factory=dict)

    def all_metadata(self) -> dict[str, bytes]:
        """Return the metadata with the image config among them, as exporters want it."""
        return {**self.metadata, "containerimage.config": json.dumps(dict(self.config)).encode()}


Frontend = Callable[[Gateway], Answer]


def definition_of(graph: llb.State | pb.Definition) -> pb.Definition:
    """Return a graph in the form in which it travels."""
    return graph.marshal() if isinstance(graph, llb.State) else graph
