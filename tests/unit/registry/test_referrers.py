"""What refers to a manifest: by the registry's list, or by the tag that stands for it (B23)."""

import json

import pytest

from lamina.oci.reference import Reference
from lamina.registry.failures import RegistryError
from unit.registry.fake_registry import FakeRegistry, Handler, digest_of
from unit.registry.support import client

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = b"{}"
DIGEST = digest_of(MANIFEST)


def listing(*types: str) -> bytes:
    entries = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest_of(kind.encode()),
            "size": 1,
            "artifactType": kind,
        }
        for kind in types
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def answer(raw: bytes):
    def send(handler: Handler):
        handler.reply(200, raw, Content_Type=INDEX)

    return send


def named(fake: FakeRegistry) -> Reference:
    return Reference.parse(f"{fake.host}/app@{DIGEST}")


def test_the_registrys_list_is_asked_first():
    """B23: OCI distribution 1.1."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.on("GET", f"/v2/app/referrers/{DIGEST}", answer(listing("a/b", "c/d")))
        assert [one.artifact_type for one in registry.referrers(named(fake))] == ["a/b", "c/d"]


def test_where_there_is_no_list_a_tag_stands_for_it():
    """B23: the fallback of the same specification; without that tag nothing refers to the manifest."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        assert registry.referrers(named(fake)) == ()
        fake.put_manifest(listing("a/b"), DIGEST.replace(":", "-"), media_type=INDEX)
        assert [one.artifact_type for one in registry.referrers(named(fake))] == ["a/b"]


@pytest.mark.parametrize("raw", [b"no", b"[]", b'{"schemaVersion": 2, "manifests": 3}'])
def test_a_list_that_is_none_is_an_error(raw):
    """B23: what a registry sends is checked."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.on("GET", f"/v2/app/referrers/{DIGEST}", answer(raw))
        with pytest.raises(RegistryError, match="list of referrers is none"):
            registry.referrers(named(fake))
