"""`type=tar`: the merged file system of a result as one tar archive, owners and all."""

from __future__ import annotations

from collections.abc import Iterable

from lamina.exporter.files_out import links_last
from lamina.exporter.protocol import Surroundings
from lamina.exporter.target import open_target
from lamina.layer.entry import Item
from lamina.layer.tar_write import write_items


def write_tar(items: Iterable[Item], dest: str, around: Surroundings) -> None:
    """Write items as a tar to `dest` ("-" or "": standard output).

    Raises:
        InputError: the destination cannot be used.
        StorageError: it could not be written, or a file of the result is damaged.
    """
    with open_target(dest, around) as write:
        write_items(links_last(items), write, cancel=around.cancel)
