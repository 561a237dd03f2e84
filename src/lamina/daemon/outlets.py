"""Outputs that go to the client: archives as a stream of bytes, layouts blob by blob, directories file by file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from lamina.errors import InputError
from lamina.exporter.outputs import OutputSpec
from lamina.exporter.protocol import Keep, Receive
from lamina.remote.session import RemoteSession


class ClientOutlets:
    """`engine.outputs.Outlets` through a client's session; outputs are known there by their number."""

    def __init__(self, session: RemoteSession, specs: Sequence[OutputSpec]) -> None:
        self._session, self._specs = session, specs

    def blobs(self, number: int) -> Keep | None:
        """Return what takes the blobs of a layout.

        Raises:
            InputError: the client has no place for them.
        """
        spec = self._specs[number]
        if spec.type not in ("oci", "docker") or spec.tar:
            return None
        store = self._session.store("export")
        if store is None:
            raise InputError("the client offers no store for the layout", hint="write an archive: tar=true")
        return lambda descriptor, pieces: store.write(descriptor.digest, descriptor.size, pieces)

    def stream(self, number: int) -> BinaryIO | None:
        """Return what takes the bytes of an archive."""
        if self._specs[number].type not in ("tar", "oci", "docker"):
            return None
        return self._session.send_stream(number)

    def tree(self, number: int) -> Receive | None:
        """Return what takes files."""
        if self._specs[number].type != "local":
            return None
        return self._session.send_tree(number)
