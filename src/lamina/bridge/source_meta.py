"""What is to be known of a source beforehand: digest and config of an image, commit of a repository, sum of a file.

In: a source that policies let pass, and what is asked of it. Out: a `ResolveSourceMetaResponse` with that and no more:
for frontends, and for a client that judges sources. What is found out here is what the build uses then: each name
stands for one thing throughout a build.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from lamina.api.pb import gateway_pb2 as gw
from lamina.errors import InputError, StorageError
from lamina.layer.entry import Entry
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.config import MAX_CONFIG_BYTES
from lamina.oci.platform import Platform, host_platform
from lamina.oci.reference import Reference
from lamina.policy.values import Source

if TYPE_CHECKING:
    from lamina.engine.job import Job
    from lamina.source.image import ResolvedImage

MAX_SUFFIX = 4096
"""Most bytes that may follow the content of a file in a sum that is asked for."""
_SUMS = ("sha256", "sha384", "sha512")


def source_meta(job: Job, source: Source, request: gw.ResolveSourceMetaRequest) -> gw.ResolveSourceMetaResponse:
    """Return what is asked of a source.

    Args:
        source: as policies want it, in the place of the request's.

    Raises:
        Error: it cannot be had, or is not one.
    """
    message = gw.ResolveSourceMetaResponse(Source=pb.SourceOp(identifier=source.identifier, attrs=source.attrs))
    scheme, _, rest = source.identifier.partition("://")
    if scheme in ("docker-image", "oci-layout"):
        platform = request.Platform
        wanted = Platform.normal(platform.OS, platform.Architecture, platform.Variant) if platform.OS else None
        store = source.attrs.get("oci.store", "")
        _image(job, (scheme, rest, store), wanted or host_platform(), request.Image, message.Image)
    elif scheme == "git":
        _git(job, rest, source, request.Git.ReturnObject, message.Git)
    elif scheme in ("http", "https"):
        asked = request.HTTP.ChecksumRequest if request.HTTP.HasField("ChecksumRequest") else None
        _http(job, source, asked, message.HTTP)
    return message


def _image(job: Job, named: tuple[str, str, str], platform: Platform, asked: Any, message: Any) -> None:
    scheme, name, store = named
    reference = Reference.parse(name)
    if scheme == "oci-layout":
        image = job.place.images.from_layout(reference, platform, store)
    else:
        image = job.resolve.admitted(str(reference), platform)
    message.Digest = str(image.reference.digest)
    if not asked.NoConfig:
        message.Config = config_of(job, image)
    if scheme == "oci-layout" or not (asked.AttestationChain or asked.ResolveAttestations):
        return
    chain = job.place.images.chain(image, frozenset(filter(None, asked.ResolveAttestations)))
    if chain is None:
        return
    found = message.AttestationChain
    found.Root, found.ImageManifest, found.AttestationManifest = chain.root, chain.image, chain.attestation
    if chain.signature:
        found.SignatureManifests.append(chain.signature)
    for digest, (descriptor, data) in chain.blobs.items():
        blob = found.Blobs[digest]
        blob.data = data
        blob.descriptor.media_type, blob.descriptor.digest = descriptor.media_type, digest
        blob.descriptor.size = len(data)
        blob.descriptor.annotations.update(descriptor.annotations)


def config_of(job: Job, image: ResolvedImage) -> bytes:
    """Return an image's config, byte for byte where the store has it."""
    try:
        return job.place.store.read(image.manifest.config.digest, MAX_CONFIG_BYTES)
    except StorageError:
        return json.dumps(dict(image.config.fields)).encode()


def _git(job: Job, rest: str, source: Source, with_objects: bool, message: Any) -> None:
    from lamina.source.git_spec import parse_source

    spec, git = parse_source(rest, source.attrs), job.solver.worker.git()
    pin = git.resolve(spec, job.cancel)
    message.Ref, message.Checksum = pin.ref or pin.object, pin.object
    if pin.commit and pin.commit != pin.object and not spec.keep_git_dir:
        message.CommitChecksum = pin.commit
    if not with_objects:
        return
    found = git.objects(spec, pin, job.cancel)
    message.CommitChecksum = found.commit if found.commit != pin.object else ""
    message.CommitObject, message.TagObject = found.commit_object, found.tag_object


def _http(job: Job, source: Source, asked: Any, message: Any) -> None:
    from lamina.source.http_request import parse_http, parse_http_date

    request, http = parse_http(source.identifier, source.attrs), job.solver.worker.http
    if asked is not None and (not 0 <= asked.Algo < len(_SUMS) or len(asked.Suffix) > MAX_SUFFIX):
        raise InputError(f"a sum can be asked for by {', '.join(_SUMS)}, with at most {MAX_SUFFIX} bytes behind")
    if request.checksum is not None and asked is None:
        message.Checksum, message.Filename = str(request.checksum), request.name("")
        return
    found = http.resolve(request, job.cancel)
    message.Checksum, message.Filename = str(found.digest), request.name(found.disposition)
    modified = parse_http_date(found.modified)
    if modified is not None:
        message.LastModified.seconds = modified
    if asked is None:
        return
    from lamina.exporter.files_out import read_content

    content, size = http.content(found, job.cancel)
    total = hashlib.new(_SUMS[asked.Algo])
    for chunk in read_content(content, Entry("file", "f", size=size, digest=found.digest.hex), job.cancel):
        total.update(chunk)
    total.update(asked.Suffix)
    message.ChecksumResponse.Digest = f"{_SUMS[asked.Algo]}:{total.hexdigest()}"
    message.ChecksumResponse.Suffix = asked.Suffix
