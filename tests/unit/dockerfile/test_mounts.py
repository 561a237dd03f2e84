"""RUN --mount values (A3.2 to A3.8)."""

import pytest

from lamina.dockerfile.instructions import Mount
from lamina.dockerfile.mounts import check_mount, mount_origin, parse_mount
from lamina.errors import InputError, SourceRange

GOOD = {
    "bind is the default": ("target=/x", Mount(target="/x")),
    "bind with everything": (
        "type=bind,from=build,src=/a,dst=/b,rw",
        Mount(from_="build", source="/a", target="/b", readonly=False),
    ),
    "destination": ("destination=/x,readwrite=true", Mount(target="/x", readonly=False)),
    "rw=false": ("target=/x,rw=false", Mount(target="/x")),
    "cache": (
        "type=cache,id=pip,target=/c,sharing=locked,mode=0755,uid=1000,gid=100,from=base,source=/s",
        Mount(
            type="cache",
            id="pip",
            target="/c",
            sharing="locked",
            mode=0o755,
            uid=1000,
            gid=100,
            from_="base",
            source="/s",
            readonly=False,
        ),
    ),
    "cache read only": ("type=cache,target=/c,ro", Mount(type="cache", target="/c", readonly=True)),
    "tmpfs": ("type=tmpfs,target=/t,size=64m", Mount(type="tmpfs", target="/t", size_bytes=64 << 20, readonly=False)),
    "tmpfs fraction": (
        "type=tmpfs,target=/t,size=1.5gb",
        Mount(type="tmpfs", target="/t", size_bytes=3 << 29, readonly=False),
    ),
    "secret": (
        "type=secret,id=t,env=TOKEN,required,mode=0400",
        Mount(type="secret", id="t", env="TOKEN", required=True, mode=0o400),
    ),
    "secret with default variable": ("type=secret,id=t,env=", Mount(type="secret", id="t", env="")),
    "ssh": ("type=ssh,required=false", Mount(type="ssh")),
    "keys and types in any case": ("TYPE=Cache,Target=/c", Mount(type="cache", target="/c", readonly=False)),
    "quoted field": ('type=bind,"source=/a,b",target=/x', Mount(source="/a,b", target="/x")),
    "quote in a quoted field": ('"source=a""b"', Mount(source='a"b')),
}


@pytest.mark.parametrize(("text", "expected"), GOOD.values(), ids=GOOD)
def test_mount(text, expected):
    """A3.2 to A3.8: every key, its names, and what it is without it."""
    assert parse_mount(text) == expected


BAD = {
    "no such key": ("taget=/x", "did you mean target?"),
    "no such type": ("type=volume", "write type=bind"),
    "no such sharing": ("type=cache,sharing=lock", "did you mean locked?"),
    "key without value": ("target", "write target=VALUE"),
    "bare word": ("banana", "keys: "),
    "required on a bind": ("required", "type=secret, type=ssh"),
    "size on a cache": ("type=cache,size=1g", "type=tmpfs"),
    "size before its type": ("size=1g,type=tmpfs", "write the type first"),
    "mode on a bind": ("target=/x,mode=0755", "type=cache"),
    "sharing on a bind": ("sharing=locked", "type=cache"),
    "octal": ("type=cache,mode=0789", "mode=0755"),
    "uid": ("type=cache,uid=root", "uid=1000"),
    "uid too large": ("type=cache,uid=4294967296", "uid=1000"),
    "boolean": ("ro=maybe", "ro=false"),
    "size": ("type=tmpfs,size=big", "size=64m"),
    "secret from": ("type=secret,id=a,from=b", "--secret"),
    "secret without id": ("type=secret,env=A", "id=NAME"),
    "secret with both": ("type=secret,id=a,source=b", "keep id"),
}


@pytest.mark.parametrize(("text", "hint"), BAD.values(), ids=BAD)
def test_wrong_mounts_are_explained(text, hint):
    """What is wrong, how to mend it, and the lines of the RUN."""
    source = SourceRange("Dockerfile", 7)

    with pytest.raises(InputError) as caught:
        parse_mount(text, source)

    assert hint in caught.value.hint
    assert caught.value.source == source
    assert caught.value.where == "Dockerfile:7"


@pytest.mark.parametrize("text", ['a="b"', '"a', '"a"b'])
def test_broken_quotes(text):
    """CSV with quotes that do not fit is refused."""
    with pytest.raises(InputError):
        parse_mount(text)


def test_values_are_expanded_one_by_one():
    """A variable fills a value and cannot bring keys along."""
    mount = parse_mount("type=cache,id=$x,target=/c", expand=lambda value: value.replace("$x", "a,rw=false"))

    assert mount.id == "a,rw=false"
    assert mount.readonly is False


def test_from_takes_no_variables():
    """A1.12: BuildKit decides the graph before it knows variables."""
    with pytest.raises(InputError, match="from takes no variables"):
        check_mount("from=$x,target=/c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", ""),
        ("from=a,target=/x,uid=$UID", "a"),
        ("type=$kind,FROM=a,target=/x,from=b", "b"),
        ('"from=a,b",target=/x', "a,b"),
    ],
)
def test_the_origin_is_known_before_variables_have_values(text, expected):
    """A3.3: which stage a mount needs, while other values are still variables."""
    assert mount_origin(text) == expected
