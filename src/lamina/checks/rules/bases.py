"""Rules about base images."""

from __future__ import annotations

from collections.abc import Iterator

from lamina.checks.values import ADVICE, Hit, rule
from lamina.checks.view import StageView, View


@rule(
    "LatestTag",
    "A base image should have a tag, and another than latest",
    severity=ADVICE,
    aliases=("DL3006", "DL3007"),
)
def latest_tag(view: View) -> Iterator[Hit]:
    """`latest`, written or meant, is whatever was pushed last: another release tomorrow, with other programs in it."""
    for stage in _outside(view):
        name, tag, digest = _parts(stage.image.result)
        if not digest and tag in ("", "latest"):
            said = "is named latest" if tag else "has no tag, so latest is meant"
            yield Hit(f"the base image '{name}' {said}: name the release you build on", stage.source)


@rule("BaseTagMoves", "A base image should be pinned to a digest", severity=ADVICE)
def base_tag_moves(view: View) -> Iterator[Hit]:
    """A tag is pushed again with every fix of the image, so two builds of one commit can differ.

    With the digest beside the tag (`python:3.12@sha256:...`) the same commit gives the same image, and bots raise it.
    """
    for stage in _outside(view):
        name, tag, digest = _parts(stage.image.result)
        if not digest and tag not in ("", "latest"):
            yield Hit(
                f"the tag '{tag}' of '{name}' moves: add @sha256:... to build on the same image every time",
                stage.source,
            )


def _outside(view: View) -> Iterator[StageView]:
    """Yield the stages whose base is an image by a name that is known; each name once."""
    seen: set[str] = set()
    for stage in view.stages:
        name = stage.image.result
        if stage.below is not None or not name or name == "scratch" or stage.image.failed or stage.image.missing:
            continue
        if stage.reachable and name not in seen and name not in view.options.named_contexts:
            seen.add(name)
            yield stage


def _parts(image: str) -> tuple[str, str, str]:
    """Return name, tag and digest of a reference."""
    name, _, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, tag, digest
