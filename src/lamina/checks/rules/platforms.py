"""Rules about `FROM --platform`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lamina.checks.edits import replace_once
from lamina.checks.values import Hit, rule
from lamina.checks.view import View
from lamina.errors import InputError
from lamina.oci.platform import Platform

_PLATFORM = re.compile(r"(?<!\S)--platform=\S+[ \t]+")


@rule("RedundantTargetPlatform", "--platform=$TARGETPLATFORM is what FROM does anyway", buildkit=True)
def redundant_target_platform(view: View) -> Iterator[Hit]:
    """A base is taken for the target platform unless something else is said; saying it distracts."""
    for stage in view.stages:
        platform = stage.platform
        only = platform.used == {"TARGETPLATFORM"} and not platform.missing and not platform.failed
        if only and platform.result == view.globals["TARGETPLATFORM"]:
            yield Hit(
                f"--platform={platform.text} says what is so without it: leave it out",
                stage.source,
                fix=replace_once(view, stage.stage.base, _PLATFORM, "", "leave it out"),
            )


@rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform should not be a constant",
    buildkit=True,
    aliases=("DL3029",),
)
def from_platform_flag_const_disallowed(view: View) -> Iterator[Hit]:
    """A constant makes the stage ignore `--platform`; the image is then for another processor than its name says.

    A stage that has the platform in its name is meant to be so.
    """
    for stage in view.stages:
        platform = stage.platform
        if not platform.text or platform.failed or platform.used or platform.missing:
            continue
        try:
            parsed = Platform.parse(platform.result)
        except InputError:
            continue
        if parsed.os in stage.stage.name or parsed.architecture in stage.stage.name:
            continue
        yield Hit(
            f"--platform={platform.result} is a constant: use $BUILDPLATFORM or $TARGETPLATFORM, "
            "give --platform to the build, or name the stage after the platform",
            stage.source,
        )


@rule(
    "InvalidBaseImagePlatform",
    "A base image should be for the platform that was asked for",
    buildkit=True,
    needs_bases=True,
)
def invalid_base_image_platform(view: View) -> Iterator[Hit]:
    """A base without variants is taken as it is, whatever was asked for; its programs will not run on the target."""
    for stage in view.stages:
        config = stage.config
        if config is None or stage.below is not None:
            continue
        if not config.get("os") and not config.get("architecture"):
            continue  # it does not say
        try:
            wanted = Platform.parse(stage.platform.result) if stage.platform.result else view.options.platform
        except InputError:
            continue
        actual = Platform.normal(
            str(config.get("os") or ""), str(config.get("architecture") or ""), str(config.get("variant") or "")
        )
        if (actual.os, actual.architecture) != (wanted.os, wanted.architecture):
            yield Hit(
                f"the base image {stage.image.result} is for {actual}, the build asks for {wanted}: "
                "choose an image that has this platform",
                stage.source,
            )
