"""A client that judges the sources of its build: each source is shown to it, and what more it wants to know of it.

BuildKit's service `PolicyVerifier`: a question with what is known of a source; the answer is a decision, or a request
to find out more, after which the question is put again. Both ends are bounded: the client may ask back ten times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lamina.api.pb import gateway_pb2 as gw
from lamina.api.pb import policysession_pb2 as ps
from lamina.bridge.source_meta import source_meta
from lamina.llb.pb import ops_pb2 as pb
from lamina.policy.values import PolicyError, Source, SourceDeniedError

if TYPE_CHECKING:
    from lamina.engine.gate import Ask, Verdict
    from lamina.engine.job import Job
    from lamina.oci.platform import Platform

Check = Callable[[ps.CheckPolicyRequest], ps.CheckPolicyResponse]
MAX_QUESTIONS = 10
_ALLOW, _CONVERT = 0, 2
_ACTIONS = ("ALLOW", "DENY", "CONVERT")
_MAX_MESSAGES, _MAX_MESSAGE = 100, 4096


def asking(job: Job, check: Check) -> Ask:
    """Return what asks a client about each source.

    Args:
        check: calls the client.
    """

    def ask(source: Source, platform: Platform | None) -> Verdict:
        question = ps.CheckPolicyRequest(Source=gw.ResolveSourceMetaResponse(Source=_op(source)))
        if platform is not None:
            question.Platform.OS, question.Platform.Architecture = platform.os, platform.architecture
            question.Platform.Variant = platform.variant
        for _ in range(MAX_QUESTIONS):
            answer = check(question)
            if answer.WhichOneof("result") != "request":
                return _decided(answer, source)
            question.Source.CopyFrom(_more(job, source, answer.request))
        raise PolicyError(f"too many questions of the client's policy about {source.shown!r}", denied=source.shown)

    return ask


def _more(job: Job, source: Source, request: gw.ResolveSourceMetaRequest) -> gw.ResolveSourceMetaResponse:
    """Return what the client wants to know of the source that it was asked about, and of no other."""
    asked = Source(request.Source.identifier, dict(request.Source.attrs))
    if asked != Source(source.identifier, dict(source.attrs)):
        raise PolicyError(f"the client's policy asks for another source than {source.shown!r}: {asked.shown!r}")
    return source_meta(job, source, request)


def _decided(answer: Any, source: Source) -> Verdict:
    if answer.WhichOneof("result") != "decision":
        raise PolicyError(f"the client's policy decides nothing about {source.shown!r}")
    decision = answer.decision
    if decision.action == _ALLOW:
        return source, False
    if decision.action == _CONVERT:
        if not decision.HasField("update"):
            raise PolicyError(f"the client's policy converts {source.shown!r} to nothing")
        return Source(decision.update.identifier, dict(decision.update.attrs)), True
    action = _ACTIONS[decision.action] if 0 <= decision.action < len(_ACTIONS) else str(decision.action)
    messages = [one.message[:_MAX_MESSAGE] for one in decision.denyMessages[:_MAX_MESSAGES]]
    raise SourceDeniedError(source, f"the client's policy (action {action})", messages)


def _op(source: Source) -> pb.SourceOp:
    return pb.SourceOp(identifier=source.identifier, attrs=source.attrs)
