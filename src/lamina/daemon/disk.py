"""`DiskUsage` and `Prune`: what the store holds, told and let go as BuildKit's clients ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lamina.api.pb import control_pb2
from lamina.cancel import Cancel
from lamina.daemon.status import timestamp
from lamina.engine.disk import prune_by, survey
from lamina.engine.options import Environment
from lamina.engine.upkeep.amounts import Amount
from lamina.engine.upkeep.filters import parse_filters
from lamina.engine.upkeep.policy import Rule
from lamina.engine.upkeep.records import Record

_NS = 10**9


def disk_usage(environment: Environment, request: control_pb2.DiskUsageRequest) -> control_pb2.DiskUsageResponse:
    """Return the records that any of the filters matches; without filters all."""
    return control_pb2.DiskUsageResponse(record=map(_message, _matching(environment, list(request.filter))))


def _matching(environment: Environment, filters: Sequence[str]) -> list[Record]:
    parsed = [parse_filters([text], "filter") for text in filters]
    records, _ = survey(environment)
    if not parsed:
        return records
    import time

    now = time.time()
    return [record for record in records if any(one.matches(record, now) for one in parsed)]


def prune(
    environment: Environment, request: control_pb2.PruneRequest, cancel: Cancel
) -> Iterator[control_pb2.UsageRecord]:
    """Remove what the request means, and yield what went."""
    filters = tuple(parse_filters([text], "filter") for text in request.filter)
    rule = Rule(
        "a client's prune",
        all=request.all,
        filters=filters,
        keep_s=max(0.0, request.keepDuration / _NS),
        reserved=Amount(max(0, request.reservedSpace)),
        max_used=Amount(max(0, request.maxUsedSpace)),
        min_free=Amount(max(0, request.minFreeSpace)),
    )
    known = {(record.kind, record.name): record for record in survey(environment)[0]}
    pruned = prune_by(environment, [rule], cancel=cancel)
    for removal in pruned.plan.removals:
        record = known.get((removal.kind, removal.name))
        if record is not None:
            yield _message(record)
        else:
            yield control_pb2.UsageRecord(ID=removal.name, Size=removal.bytes, Description=removal.description)


def _message(record: Record) -> control_pb2.UsageRecord:
    return control_pb2.UsageRecord(
        ID=record.name,
        Mutable=record.mutable,
        InUse=record.in_use,
        Size=record.size_bytes,
        CreatedAt=timestamp(record.created),
        LastUsedAt=timestamp(record.used) if record.used else None,
        UsageCount=record.uses,
        Description=record.description,
        RecordType=record.type,
        Shared=record.shared,
        Parents=record.parents,
    )
