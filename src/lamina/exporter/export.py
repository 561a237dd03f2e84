"""Gives a result to the outputs that were asked for. The only place that knows every exporter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lamina.errors import InputError, NotYetError
from lamina.exporter.outputs import OutputSpec
from lamina.exporter.protocol import Outcome, Result, Surroundings
from lamina.layer.entry import Entry, Item


def check_outputs(specs: Sequence[OutputSpec]) -> None:
    """Raise `InputError` for outputs that cannot all be had: two to standard output, two to one place."""
    taken: set[str] = set()
    for spec in specs:
        if spec.type == "image":
            continue
        dest = spec.dest or "-"
        if dest in taken:
            raise InputError(f"--output: two outputs go to {'standard output' if dest == '-' else dest!r}")
        taken.add(dest)


def export(result: Result, spec: OutputSpec, around: Surroundings) -> Outcome:
    """Write `result` as `spec` asks and say what was written.

    Raises:
        InputError: the output does not fit the result, or its destination cannot be used.
        StorageError, NetworkError, CancelledError: it could not be written.
    """
    if not result.platforms:
        raise InputError("there is nothing to export")
    if spec.files_wanted:
        return _export_files(result, spec, around)
    from lamina.exporter.images import collect_images

    images = collect_images(result, spec, around)
    if spec.type == "image":
        from lamina.exporter.image import export_image

        return export_image(result, spec, images, around)
    from lamina.exporter.layout_out import export_layout

    return export_layout(result, spec, images, around)


def _export_files(result: Result, spec: OutputSpec, around: Surroundings) -> Outcome:
    """Write the merged files; several platforms into a directory each unless told otherwise, as BuildKit does."""
    from lamina.exporter.files_out import export_tree

    trees = _trees(result, spec, around)
    if spec.type == "tar":
        from lamina.exporter.tar_out import write_tar

        write_tar(_together(trees), spec.dest, around)
        return Outcome("tar", dest=spec.dest or "-")
    if spec.delete:
        if around.receive is None:
            raise NotYetError("--output mode=delete on this machine", hint="empty the directory first")
        if len(trees) > 1 and not trees[0][0]:
            raise NotYetError("--output mode=delete for several platforms in one directory")
        around.receive("", _together(trees))  # all at once: the other side removes what does not come
        return Outcome("local", dest=spec.dest)
    for folder, items in trees:
        if around.receive is not None:
            around.receive(folder, items)
        else:
            export_tree(items, around.directory / spec.dest / folder, around)
    return Outcome("local", dest=spec.dest)


def _trees(result: Result, spec: OutputSpec, around: Surroundings) -> list[tuple[str, Iterable[Item]]]:
    """Return each platform's directory ("" for the destination itself) and files, in order of the directories."""
    from lamina.exporter.attestations import files_with

    several = len(result.platforms) > 1 or (result.multi and spec.type == "local")
    split = several if spec.platform_split is None else spec.platform_split
    taken: dict[str, str] = {}
    found: list[tuple[str, Iterable[Item]]] = []
    for platform in result.platforms:
        name, items = str(platform.platform), files_with(result, platform, spec, around.cancel)
        if split:
            found.append((name.replace("/", "_"), items))
        else:
            found.append(("", _distinct(items, name, taken) if several else items))
    return sorted(found, key=lambda tree: tree[0])


def _distinct(items: Iterable[Item], platform: str, taken: dict[str, str]) -> Iterator[Item]:
    """Yield files that no other platform has, and directories once."""
    for item in items:
        path, folder = item.entry.path, item.entry.kind == "d"
        if taken.setdefault(path, platform) != platform:
            if folder:
                continue
            what = f"{path!r} of {platform} would overwrite that of {taken[path]}"
            raise InputError(what, hint="platform-split=true gives each platform a directory of its own")
        yield item


def _together(trees: Iterable[tuple[str, Iterable[Item]]]) -> Iterator[Item]:
    """Yield the files of all trees, each below its directory."""
    for folder, items in trees:
        if not folder:
            yield from items
            continue
        yield Item(Entry(folder, "d", 0o755))
        for item in items:
            entry = item.entry
            if not entry.path:
                continue
            target = f"{folder}/{entry.target}" if entry.kind == "h" else entry.target
            yield item._replace(entry=entry._replace(path=f"{folder}/{entry.path}", target=target))
