"""`--output` values: what docker and buildx users write, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import Error, InputError, NotYetError
from lamina.exporter.outputs import OutputSpec, parse_output

GOOD = {
    "out": OutputSpec("local", "out"),
    "./out/dir": OutputSpec("local", "./out/dir"),
    "-": OutputSpec("tar", "-"),
    "a=b": OutputSpec("local", "a=b"),
    "type=local,dest=out": OutputSpec("local", "out"),
    "type=tar,dest=x.tar": OutputSpec("tar", "x.tar"),
    "type=tar": OutputSpec("tar"),
    "type=oci,dest=x": OutputSpec("oci", "x"),
    "type=oci,dest=x,tar=false": OutputSpec("oci", "x", tar=False),
    'type=oci,"dest=a,b.tar"': OutputSpec("oci", "a,b.tar"),
    'type=oci,"dest=a""b.tar"': OutputSpec("oci", 'a"b.tar'),
    "TYPE=oci,Dest=X.tar": OutputSpec("oci", "X.tar"),
    "type=docker": OutputSpec("docker", media_types="docker"),
    "type=docker,oci-mediatypes=false": OutputSpec("docker", media_types="docker", docker_asked=True),
    "type=oci,dest=x,oci-artifact=false,attestation-inline=true": OutputSpec(
        "oci", "x", oci_artifact=False, attestation_inline=True
    ),
    "type=local,dest=d,platform-split=false,mode=delete": OutputSpec("local", "d", platform_split=False, delete=True),
    "type=tar,dest=t,platform-split=true": OutputSpec("tar", "t", platform_split=True),
    "type=local,dest=d,attestation-prefix=my-": OutputSpec("local", "d", attestation_prefix="my-"),
    "type=docker,dest=-,oci-mediatypes=true": OutputSpec("docker", "-"),
    "type=image,name=app": OutputSpec("image", names=("docker.io/library/app:latest",)),
    'type=image,"name=a,b:1"': OutputSpec("image", names=("docker.io/library/a:latest", "docker.io/library/b:1")),
    "type=image,name=app,push=true": OutputSpec("image", names=("docker.io/library/app:latest",), push=True),
    "type=registry,name=r.example/a": OutputSpec("image", names=("r.example/a:latest",), push=True, store=False),
    "type=registry,push-by-digest=true,registry.insecure=true": OutputSpec(
        "image", push=True, store=False, push_by_digest=True, insecure=True
    ),
    "type=image,compression=zstd,compression-level=19,force-compression=true": OutputSpec(
        "image", compression="zstd", level=19, force=True
    ),
    "type=oci,dest=x,compression-level=9": OutputSpec("oci", "x", level=9),
    "type=oci,dest=x,annotation.org.example.a=b=c": OutputSpec("oci", "x", annotations={"org.example.a": "b=c"}),
}


@pytest.mark.parametrize("text", GOOD)
def test_what_users_write_is_understood(text: str) -> None:
    assert parse_output(text) == GOOD[text]


BAD = {
    "": "needs a value",
    "type=": "unknown type",
    "type=zip": "unknown type 'zip'",
    "dest=out": "no type",
    "dest=out,tar=false": "no type",
    "type=local": "needs dest",
    "type=local,dest=d,mode=sync": "mode= takes copy or delete",
    "type=local,dest=-": "needs a directory",
    "type=local,dest=": "dest= is empty",
    "type=oci,tar=false": "needs dest",
    "type=oci,tar=false,dest=-": "needs dest",
    "type=oci,colour=red": "no option 'colour'",
    "type=tar,compression=gzip": "no option 'compression'",
    "type=image,dest=x": "no option 'dest'",
    "type=oci,dest=a,dest=b": "given twice",
    "type=oci,type=tar": "given twice",
    "type=oci,tar": "expected key=value",
    "type=oci,tar=maybe": "true or false",
    "type=oci,compression=xz": "unknown compression",
    "type=oci,compression-level=10": "levels 0 to 9",
    "type=oci,compression=zstd,compression-level=0": "levels 1 to 22",
    "type=oci,compression=uncompressed,compression-level=1": "has no level",
    "type=oci,compression-level=-1": "levels",
    'type=oci,"dest=x': "quote|EOF|end",
    "type=image,name=UPPER": "repository",
    "type=image,name=a@sha256:" + "0" * 64: "digest",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_said(text: str) -> None:
    with pytest.raises(InputError, match=BAD[text]):
        parse_output(text)


@pytest.mark.parametrize("text", ["type=oci,compression=estargz", "type=image,rewrite-timestamp=true"])
def test_what_is_known_but_missing_never_silently_does_nothing(text: str) -> None:
    with pytest.raises(NotYetError, match="not yet"):
        parse_output(text)


@given(st.text(max_size=60) | st.lists(st.sampled_from(list(GOOD) + list(BAD)), max_size=3).map(",".join))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        parse_output(text)
    except Error:
        pass
