"""Cache options as BuildKit's users write them. D1-D8."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.cache.spec import CacheSpec, parse_spec
from lamina.errors import InputError


@pytest.mark.parametrize(
    ("text", "kind", "attributes"),
    [
        ("user/app:cache", "registry", {"ref": "user/app:cache"}),
        ("type=registry,ref=x/y,mode=max,image-manifest=false", "registry", {"ref": "x/y", "image-manifest": "false"}),
        ("type=local,dest=a b", "local", {"dest": "a b"}),
        ('type=local,"dest=a,b"', "local", {"dest": "a,b"}),
        ("type=gha,scope=main", "gha", {"scope": "main"}),
        ("type=s3,region=eu,bucket=b,name=x;y", "s3", {"region": "eu", "bucket": "b", "name": "x;y"}),
        ("type=inline", "inline", {}),
    ],
)  # fmt: skip
def test_examples(text: str, kind: str, attributes: dict[str, str]) -> None:
    """BuildKit's docs, one of each."""
    spec = parse_spec(text, export=True)

    assert (spec.type, dict(spec.attributes)) == (kind, attributes)


def test_what_all_exports_have() -> None:
    """D2, D7: mode, compression, failing or not; ours: age, number, mounts."""
    spec = parse_spec(
        "type=local,dest=d,mode=max,compression=zstd,compression-level=9,force-compression=true,"
        "ignore-error=false,ttl=12h,limit=7,mounts=pip+npm@lock,mounts-size=2GB",
        export=True,
    )
    wanted = CacheSpec("local", {"dest": "d"}, True, "zstd", 9, True, False, ("pip", "npm@lock"), 2 * 10**9, 43200, 7)
    assert spec == wanted


def test_secrets_do_not_go_into_records() -> None:
    """What a layer's row remembers of its cache holds no key."""
    spec = parse_spec("type=s3,region=eu,bucket=b,access_key_id=AK,secret_access_key=hush", export=True)

    assert "hush" not in spec.origin() + spec.shown() and "AK" not in spec.origin()
    assert parse_spec(spec.origin(), export=False).attributes == {"region": "eu", "bucket": "b"}


@given(st.dictionaries(st.sampled_from(["ref", "registry.insecure"]), st.sampled_from(["true", 'a"b', "x,y", ""])))
def test_origins_are_read_back(attributes: dict[str, str]) -> None:
    """Whatever stands in an attribute."""
    spec = CacheSpec("registry", {"ref": "r", **attributes})
    try:
        read = parse_spec(spec.origin(), export=False)
    except InputError:
        return
    assert read.attributes == spec.attributes


@pytest.mark.parametrize(
    "text",
    [
        "", "type=", "type=x", "type=registry", "type=registry,ref=a,ref=b", "type=local,src=x",
        "type=local,dest=x,mode=mid", "type=local,dest=x,compression=rar", "type=local,dest=x,ttl=soon",
        "type=local,dest=x,limit=many", "type=local,dest=x,reset=maybe", "type=inline,mode=max", 'type=local,"dest=x',
    ],
)  # fmt: skip
def test_nonsense(text: str) -> None:
    """Told before anything is done."""
    with pytest.raises(InputError):
        parse_spec(text, export=True)


def test_inline_is_read_from_its_image() -> None:
    """D1."""
    with pytest.raises(InputError, match="read from its image"):
        parse_spec("type=inline", export=False)
