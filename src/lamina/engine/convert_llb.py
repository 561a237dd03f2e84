"""`--call=convertllb`: the graph that a Dockerfile becomes, as JSON; nothing is carried out.

Images are looked up, since the graph names them by digest. The fields are those of BuildKit's subrequest of that name:
`def` holds the ops by their digests (protobuf's JSON form), `metadata` their names, `source` the lines they come from.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.json_format import MessageToDict

from lamina.cancel import Cancel
from lamina.dockerfile.convert import convert
from lamina.dockerfile.parser import parse
from lamina.dockerfile.syntax import check_syntax
from lamina.engine.build import convert_options, wanted_platforms
from lamina.engine.gate import open_gate
from lamina.engine.options import BuildOptions, Environment
from lamina.engine.place import Place
from lamina.engine.resolve import Resolver
from lamina.errors import InputError
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.digest import sha256_digest
from lamina.session import Session


def convert_llb(options: BuildOptions, session: Session, environment: Environment, cancel: Cancel) -> str:
    """Return the graph as JSON.

    Raises:
        Error: the Dockerfile does not become a graph; several platforms (each has a graph of its own).
    """
    platforms = wanted_platforms(options)
    if len(platforms) > 1:
        raise InputError("each platform has a graph of its own", hint="ask for one with --platform")
    check_syntax(options.dockerfile, options.dockerfile_name, options.build_args)
    dockerfile = parse(options.dockerfile, options.dockerfile_name)
    with Place(environment, cancel, credentials=session.credentials, platform=platforms[0], pull=options.pull) as place:
        resolve = Resolver(place, cancel, lambda _event: None, open_gate(options))
        definition = convert(dockerfile, convert_options(options, platforms[0]), resolve).definition
    return json.dumps(as_json(definition), indent=2, ensure_ascii=False) + "\n"


def as_json(definition: pb.Definition) -> dict[str, Any]:
    """Return a definition in BuildKit's JSON form."""
    ops = {str(sha256_digest(data)): pb.Op.FromString(data) for data in getattr(definition, "def")}
    metadata = {digest: MessageToDict(one, preserving_proto_field_name=True) for digest, one in _sorted(definition)}
    return {
        "def": {digest: MessageToDict(op) for digest, op in sorted(ops.items())},
        "metadata": metadata,
        "source": MessageToDict(definition.Source),
    }


def _sorted(definition: pb.Definition) -> list[tuple[str, Any]]:
    return sorted(definition.metadata.items())
