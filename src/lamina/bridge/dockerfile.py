"""The frontend `dockerfile.v0`: options and inputs of a client in, a result with one reference for each platform out.

The same parser, conversion and checks as `lamina build`; here the Dockerfile and the context are the client's, or
come from a repository, a server, or another build.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lamina.attest.request import requests_of
from lamina.bridge.options import options_of, unknown_options
from lamina.bridge.sources import Sources
from lamina.bridge.subrequests import answer
from lamina.bridge.values import CONFIG, PLATFORMS, Ref, Result
from lamina.dockerfile.convert import ConvertOptions, Input, convert
from lamina.dockerfile.instructions import Dockerfile
from lamina.dockerfile.parser import parse
from lamina.dockerfile.syntax import BUILD_ARG, find_syntax, is_built_in
from lamina.engine.build import convert_options, extras_of, wanted_platforms
from lamina.engine.check import check_in_build
from lamina.engine.options import BuildOptions
from lamina.errors import InputError
from lamina.llb.definition import load_definition
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform
from lamina.patterns import parse_ignore
from lamina.progress import WarningEvent

if TYPE_CHECKING:
    from lamina.bridge.bridge import Bridge

_ON = ("1", "t", "true")


class DockerfileFrontend:
    """One call of the frontend. Nothing is run but what it takes to read the Dockerfile.

    Args:
        inputs: definitions that contexts named `input:NAME` mean.
    """

    def __init__(self, bridge: Bridge, attrs: Mapping[str, str], inputs: Mapping[str, pb.Definition]) -> None:
        self._bridge, self._job, self._attrs = bridge, bridge.job, attrs
        for definition in inputs.values():
            if len(getattr(definition, "def")):
                load_definition(definition)
        self._inputs = {name: Input(definition, self._config(name)) for name, definition in inputs.items()}
        self._definitions = inputs
        self._sources = Sources(bridge, attrs, self._inputs)

    def solve(self) -> Result:
        """Convert the Dockerfile.

        Raises:
            Error: it is not there, or cannot be built.
        """
        unknown = unknown_options(self._attrs)
        if unknown:
            self._job.sink(WarningEvent("", f"options of the frontend that mean nothing here: {', '.join(unknown)}"))
        options = self._read()
        other = "" if self._attrs.get("cmdline") else _other_frontend(options)
        if other:
            opts = {**self._attrs, "source": other.split(" ")[0], "cmdline": other}
            return self._bridge.run_frontend("gateway.v0", opts, self._definitions)
        request = self._attrs.get("requestid", "")
        if request:
            return answer(request, options, self._job)
        return self._convert(options, parse(options.dockerfile, options.dockerfile_name))

    def _convert(self, options: BuildOptions, dockerfile: Dockerfile) -> Result:
        job, platforms = self._job, wanted_platforms(options)
        excludes = self._context_excludes(options)
        converted = [
            convert(dockerfile, self._convert_options(options, platform, excludes), job.resolve)
            for platform in platforms
        ]
        options = replace(options, source_date_epoch=converted[0].source_date_epoch)
        job.describe(options)
        check_in_build(dockerfile, options, platforms, job.resolve.configs, job.sink)
        for warning in dict.fromkeys(warning for one in converted for warning in one.warnings):
            job.sink(WarningEvent("", warning.message, url=warning.rule, source=warning.source))
        found = [(Ref(one.definition, job), one.image_config) for one in converted]
        for (ref, _), one in zip(found, converted, strict=True):
            ref.scanned = extras_of(ref.graph, one)
        several = len(platforms) > 1 or self._attrs.get("multi-platform", "").lower() in _ON
        return _result(platforms, found, several=several)

    def _convert_options(
        self, options: BuildOptions, platform: Platform, excludes: Mapping[str, tuple[str, ...]]
    ) -> ConvertOptions:
        return replace(
            convert_options(options, platform),
            inputs=self._inputs,
            context=self._sources.context,
            context_excludes=excludes,
        )

    def _read(self) -> BuildOptions:
        """Return the options of the build with the Dockerfile and the ignore file."""
        read = self._sources.read()
        given, held = options_of(self._attrs), self._job.options
        if given["network"] == "host" and "network.host" not in held.allow:
            hint = "buildctl --allow network.host, and lamina serve --allow-insecure-entitlement network.host"
            raise InputError("the host's network was not granted to this build", hint=hint)
        cache_from = [*held.cache_from, *given.pop("cache_from")]
        # outputs, caches and what steps may do stand in the request of the build, not in options of the frontend
        return replace(
            held,
            **{**given, "network": given["network"] or held.network},
            cache_from=list(dict.fromkeys(cache_from)),
            attests={**requests_of(self._attrs), **held.attests},
            dockerfile=read.dockerfile,
            dockerfile_name=read.name,
            ignore=read.ignore,
            ignore_name=read.ignore_name,
        )

    def _context_excludes(self, options: BuildOptions) -> dict[str, tuple[str, ...]]:
        """Return the rules of the ignore files in named contexts that are directories of the client's."""
        found = {}
        for source in options.build_contexts.values():
            name = source.removeprefix("local:")
            if source.startswith("local:") and name not in found:
                data = self._sources.read_one(name, ".dockerignore")
                if data is not None:
                    found[name] = tuple(parse_ignore(data))
        return found

    def _config(self, name: str) -> Mapping[str, Any]:
        """Return the image config that the client gives beside an input."""
        text = self._attrs.get(f"input-metadata:{name}", "")
        if not text:
            return {}
        try:
            found = json.loads(text)
            config = json.loads(base64.b64decode(found[CONFIG])) if CONFIG in found else {}
        except (ValueError, TypeError, binascii.Error) as error:
            raise InputError(f"input-metadata:{name} is not what it should be") from error
        if not isinstance(config, dict):
            raise InputError(f"the image config of the input {name!r} is not a JSON object")
        return config


def _other_frontend(options: BuildOptions) -> str:
    """Return the image of the frontend that is asked for, "" where it is this one."""
    given = options.build_args.get(BUILD_ARG, "")
    found = find_syntax(options.dockerfile) if not given else None
    image = given or (found.image if found is not None else "")
    return "" if not image or is_built_in(image.split(" ")[0]) else image


def _result(platforms: Sequence[Platform], found: Sequence[tuple[Ref, Mapping[str, Any]]], *, several: bool) -> Result:
    """Return the result as BuildKit's exporters and clients know it."""
    result = Result()
    listed = []
    for platform, (ref, config) in zip(platforms, found, strict=True):
        text = json.dumps(config).encode()
        if not several:
            result.ref, result.metadata[CONFIG] = ref, text
            break
        key = str(platform)
        result.refs[key], result.metadata[f"{CONFIG}/{key}"] = ref, text
        fields = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            fields["variant"] = platform.variant
        listed.append({"ID": key, "Platform": fields})
    if listed:
        result.metadata[PLATFORMS] = json.dumps({"Platforms": listed}).encode()
    return result
