"""What goes when, decided on made-up stores."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina.engine.upkeep.listing import list_records, totals
from lamina.engine.upkeep.plan import BLOB, LAYER, MOUNT, TREE, Plan, plan_limit, plan_rules
from lamina.engine.upkeep.policy import Rule, parse_rule
from lamina.engine.upkeep.why import pinned_by
from lamina.engine.upkeep.worth import worth
from unit.upkeep.stores import LIVE, NOW, folder, layer, node, store, stores

ALL = Rule("all", all=True)
DAY_S = 86_400.0
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def names(plan: Plan, kind: str) -> list[str]:
    return [removal.name for removal in plan.removals if removal.kind == kind]


# -- worth


@given(st.floats(0, 1e6), st.integers(0, 10**6), st.floats(0, 1e9), st.integers(0, 1 << 50))
def test_what_makes_a_thing_worth_more(cost, uses, age, size):
    """L20: dearer to make, oftener used, later used, smaller."""
    here = worth(cost, uses, age, size)

    assert worth(cost + 1, uses, age, size) > here
    assert worth(cost, uses + 1, age, size) >= here
    assert worth(cost, uses, age + DAY_S, size) < here
    assert worth(cost, uses, age, 2 * size + 4097) < here


def test_a_minute_of_work_outweighs_a_second_of_the_same_size():
    """L20: BuildKit goes by last use alone; here what is dear to make stays longer."""
    found = store([layer(1), layer(2)], [node(1, 1, seconds=60, used=LIVE - 9000), node(2, 2, seconds=1)])

    assert names(plan_limit(found, found.used_bytes - 1, "x"), LAYER) == ["2"]


def test_a_week_without_use_halves_the_worth():
    """L20: the documented formula."""
    assert abs(worth(10, 1, 7 * DAY_S, 1 << 20) + 1 - worth(10, 1, 0, 1 << 20)) < 1e-9


# -- which goes


def test_children_go_before_parents():
    """L20: a layer goes only when nothing stands on it any more."""
    found = store([layer(1), layer(2, 1), layer(3, 2)], [node(n, n, seconds=9 - 3 * n) for n in (1, 2, 3)])

    assert names(plan_rules(found, [ALL]), LAYER) == ["3", "2", "1"]


def test_a_parent_that_must_stay_keeps_one_form():
    """L20, D11: a child does not pin the trees of its ancestry where their blobs are here."""
    below = layer(1, blob=A, blob_bytes=4000)
    found = store([below, layer(2, 1)], [node(1, 1), node(2, 2, seconds=1000)])
    plan = plan_limit(found, found.used_bytes - 9000, "x")

    assert names(plan, TREE) == ["1"] and not plan.lost and plan.reached


def test_the_only_form_of_a_parent_is_not_dropped():
    found = store([layer(1), layer(2, 1, used=LIVE + 1)])

    assert plan_limit(found, 0, "x").removals == ()


def test_an_image_keeps_its_blob_and_not_the_cache_of_it():
    """An image needs what its manifest names; trees and records only make later builds fast."""
    found = store([layer(1, blob=A, blob_bytes=4000)], [node(1, 1)], images={A: ("app:latest",)})
    plan = plan_rules(found, [ALL])

    assert plan.freed_bytes == 10_100 and not names(plan, BLOB)


def test_a_blob_that_two_layers_have_goes_with_the_second():
    found = store([layer(1, blob=A, blob_bytes=4000), layer(2, blob=A, blob_bytes=4000)])

    assert plan_rules(found, [ALL]).freed_bytes == found.used_bytes


def test_a_plain_prune_loses_no_hit():
    """H9: only what nothing leads to."""
    found = store([layer(1), layer(2), layer(3, 2)], [node(1, 1)], mounts=(folder("pip"),))
    plan = plan_rules(found, [parse_rule(name="p")])

    assert names(plan, LAYER) == ["3", "2"] and not plan.lost and not names(plan, MOUNT)


def test_a_record_with_two_results_is_lost_once():
    found = store([layer(1), layer(2)], [node(1, 1, 2)])

    assert [hit.node for hit in plan_rules(found, [ALL]).lost] == [1]


def test_filters_choose_what_goes():
    """H9: a kind of thing, an age, an id."""
    found = store([layer(1), layer(2)], [node(1, 1), node(2, 2, used=NOW - 3 * DAY_S)], mounts=(folder("pip"),))

    assert names(plan_rules(found, [parse_rule(name="p", filters=["type=exec.cachemount"])]), MOUNT) == ["pip"]
    assert names(plan_rules(found, [parse_rule(name="p", filters=["id=2"])]), LAYER) == ["2"]
    only_old = parse_rule(name="p", filters=["type=regular"], keep_duration="24h")
    assert names(plan_rules(found, [only_old]), LAYER) == ["2"]


def test_the_rules_of_a_policy_are_applied_one_after_the_other():
    """H8: and each removal says by which it went."""
    found = store([layer(1), layer(2)], [node(1, 1), node(2, 2)], mounts=(folder("pip"),))
    first = parse_rule(name="first", filters=["type=exec.cachemount"])
    second = parse_rule(name="second", max_used_space="10100")
    plan = plan_rules(found, [first, second])

    assert [(removal.kind, removal.rule) for removal in plan.removals] == [(MOUNT, "first"), (LAYER, "second")]


def test_a_dry_run_knows_what_it_would_cost():
    """L20: which hits, by step and seconds."""
    found = store([layer(1)], [node(1, 1, seconds=42)])

    (hit,) = plan_rules(found, [ALL]).lost
    assert (hit.description, hit.seconds) == ("step 1", 42)


def test_a_limit_that_cannot_be_reached_lists_what_holds_it():
    """L20: by name, biggest first."""
    live = layer(2, used=LIVE + 1, tree_bytes=50_000)
    found = store([layer(1, blob=A, blob_bytes=4000), live], images={A: ("app:latest",)})
    plan = plan_limit(found, 0, "x")

    assert not plan.reached
    assert [(pin.kind, pin.reason) for pin in plan.pinned] == [
        (LAYER, "a live build relies on it"),
        (BLOB, "image app:latest"),
    ]


@given(stores(), st.integers(0, 400_000))
def test_a_limit_is_reached_or_explained_to_the_byte(found, keep):
    """L20: the ceiling holds, or an exact list says what pins the rest."""
    plan = plan_limit(found, keep, "x")

    assert plan.left_bytes == found.used_bytes - plan.freed_bytes
    assert plan.reached or sum(pin.bytes for pin in plan.pinned) == plan.left_bytes


@given(stores(), st.one_of(st.none(), st.integers(0, 400_000)))
def test_nothing_that_is_needed_is_ever_planned(found, keep):
    """L20: not what a live build relied on, not an image's blob, not a layer below another, no hit for nothing."""
    plan = plan_rules(found, [ALL]) if keep is None else plan_limit(found, keep, "x")
    gone = {int(name) for name in names(plan, LAYER)}
    treeless = {int(name) for name in names(plan, TREE)} - gone
    seen: set[int] = set()
    for removal in plan.removals:
        if removal.kind == LAYER:
            fact = found.layers[int(removal.name)]
            above = {other.id for other in found.layers.values() if other.parent == fact.id}
            assert fact.used < LIVE and above <= seen
            seen.add(fact.id)
    for number in treeless:
        assert found.layers[number].blob and found.layers[number].used < LIVE
    for name in names(plan, MOUNT):
        assert next(mount for mount in found.mounts if mount.name == name).used < LIVE
    for digest in names(plan, BLOB):
        assert digest not in found.images and found.blobs[digest].used < LIVE
        assert all(fact.blob != digest for fact in found.layers.values() if fact.id not in gone)
    lost = {hit.node for hit in plan.lost}
    for number in lost:
        assert found.nodes[number].used < LIVE and gone & set(found.nodes[number].layers)
    for fact in found.nodes.values():
        assert fact.id in lost or not gone & set(fact.layers)


@given(stores())
def test_every_byte_is_counted_once(found):
    """H9: shared and private bytes add up to what the store takes."""
    records = list_records(found)
    sums = totals(found, records, 0)

    assert sums.total_bytes == sums.shared_bytes + sums.private_bytes == found.used_bytes


@given(stores())
def test_everything_says_why_it_is_kept(found):
    """L20: what has no reason is what a plain prune takes, as far as nothing lives on it."""
    plan = plan_rules(found, [parse_rule(name="p")])
    gone = {(removal.kind, removal.name) for removal in plan.removals}
    for record in list_records(found):
        assert pinned_by(found, record.name)[0].what
        if not record.reasons:
            assert (record.kind, record.name) in gone


# -- why


def test_why_names_the_chain_up_to_what_keeps_a_thing():
    """L20: pinned-by, down to the image or the step, with the command that lets go."""
    layers = [layer(1), layer(2, 1), layer(3, 2, blob=A, blob_bytes=1)]
    found = store(layers, [node(1, 3, seconds=3.25)], images={A: ("app:latest",)})

    chain = pinned_by(found, "1")

    assert [link.what for link in chain[:4]] == [
        "layer 1 (layer 1)",
        "is below layer 2 (layer 2)",
        "is below layer 3 (layer 3)",
        "is part of image app:latest",
    ]
    assert chain[3].mend == "lamina rmi app:latest"
    assert 'step "step 1", which took 3.2 s' in chain[4].what and chain[4].mend == "lamina prune --filter id=3"


def test_why_of_what_nothing_needs():
    assert [link.what for link in pinned_by(store([layer(1)]), "1")][-1] == "nothing needs it"


def test_a_thousand_layers_in_one_chain_and_ten_thousand_records():
    """L20: planning is linear enough to be used in a build (the bench has the numbers)."""
    chain = [layer(n, n - 1 or None) for n in range(1, 1001)]
    wide = [layer(n, 1) for n in range(1001, 10_001)]
    found = store([*chain, *wide], [node(n, n, seconds=n % 7) for n in range(1, 10_001)])

    assert plan_limit(found, 0, "x").left_bytes == 0
    assert plan_rules(found, [ALL]).freed_bytes == found.used_bytes
