"""Gives a result to the outputs that were asked for. The only place that knows every exporter."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import InputError
from lamina.exporter.outputs import OutputSpec
from lamina.exporter.protocol import Outcome, Result, Surroundings


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
    """Write the merged files; several platforms each into a directory of their own, as BuildKit does."""
    from lamina.exporter.attestations import files_with
    from lamina.exporter.files_out import export_tree

    several = len(result.platforms) > 1 or (result.multi and spec.type == "local")
    if spec.type == "tar":
        if several:
            raise InputError("type=tar holds one platform", hint="choose one with --platform, or use type=local")
        from lamina.exporter.tar_out import write_tar

        write_tar(files_with(result, result.platforms[0], spec, around.cancel), spec.dest, around)
        return Outcome("tar", dest=spec.dest or "-")
    for platform in result.platforms:
        folder = str(platform.platform).replace("/", "_") if several else ""
        if around.receive is not None:
            around.receive(folder, files_with(result, platform, spec, around.cancel))
        else:
            export_tree(
                files_with(result, platform, spec, around.cancel), around.directory / spec.dest / folder, around
            )
    return Outcome("local", dest=spec.dest)
