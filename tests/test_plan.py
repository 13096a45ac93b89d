"""What must hold of protections and round plans."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg._proto import aggregator_pb2 as pb
from secagg.errors import Code, ConfigError, RoundError
from secagg.plan import (
    Protection,
    ProtectionMode,
    RoundPlan,
    RoundState,
    Significance,
    plan_from_proto,
    plan_to_proto,
)
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(tensors=(TensorSpec(name="a", shape=(3,)), TensorSpec(name="b", shape=(2, 2))))

LAYERS = Protection.selective(significance=Significance.LAYERS, layers=("b",))

protections = st.one_of(
    st.just(Protection.plain()),
    st.just(Protection.full()),
    st.builds(
        Protection.selective,
        ratio=st.floats(1e-9, 1.0),
        significance=st.sampled_from([Significance.MAGNITUDE, Significance.RANDOM]),
    ),
    st.just(LAYERS),
)


def plan(**changes: object) -> RoundPlan:
    fields: dict[str, object] = {
        "round": 3,
        "protection": Protection.full(),
        "mask_sha256": b"",
        "profile": "robust",
        "key_id": bytes(16),
        "manifest": MANIFEST,
        "rule": "ddfed",
        "statistics_blocks": (("b",),),
        "base_round": 2,
        "max_sample_count": 1000,
        "payload_bytes": 12,
    }
    return RoundPlan(**(fields | changes))


blocks = st.sampled_from([(), (("b",),), (("a",), ("b",)), (("b", "a"),)])
terms = st.sampled_from([{}, {"divisor": 512}, {"divisor": 2**20}, {"count_unit": 1000}])


@given(protections, st.integers(2, 2**40), st.sampled_from([b"", bytes(32)]), blocks, terms)
def test_plan_survives_the_wire(
    protection: Protection,
    number: int,
    mask: bytes,
    groups: tuple[tuple[str, ...], ...],
    terms: dict[str, int],
) -> None:
    """A plan read from its wire form equals the one written."""
    original = plan(
        protection=protection,
        round=number,
        base_round=number - 1,
        earlier_round=number - 2,
        mask_sha256=mask,
        statistics_blocks=groups,
        **terms,
    )
    message = plan_to_proto(original, state=RoundState.COLLECTING, collect_remaining_s=2.5)
    again = plan_from_proto(pb.RoundPlan.FromString(message.SerializeToString()))
    assert again == original
    assert message.state == pb.ROUND_STATE_COLLECTING and message.collect_remaining_s == 2.5


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 0},
        {"base_round": 3},
        {"mask_sha256": b"short"},
        {"key_id": b"short"},
        {"max_sample_count": 0},
        {"payload_bytes": 0},
        {"chunk_bytes": 4 * 1024 * 1024},
        {"chunk_bytes": 1000},
        {"divisor": -1},
        {"divisor": 2**20 + 1},
        {"divisor": 1, "count_unit": 1},
        {"earlier_round": 3},
        {"earlier_round": -1},
    ],
)
def test_impossible_plans_are_refused(changes: dict[str, object]) -> None:
    """A plan that no round can have never becomes an object."""
    with pytest.raises(RoundError) as caught:
        plan(**changes)
    assert caught.value.code is Code.REQUEST_MALFORMED
    assert next(iter(changes)) in caught.value.message


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: setattr(m, "protection", 0),
        lambda m: setattr(m, "significance", 9),
        lambda m: setattr(m, "ratio", float("nan")),
        lambda m: setattr(m, "manifest", b"\x01"),
        lambda m: m.statistics_blocks.add(tensors=["no such tensor"]),
        lambda m: m.statistics_blocks.add(tensors=[]),
        lambda m: m.statistics_blocks.add(tensors=["b"]),
        lambda m: m.statistics_blocks.add(tensors=["a", "a"]),
        lambda m: setattr(m, "divisor", 2**20 + 1),
        lambda m: setattr(m, "earlier_round", 3),
        lambda m: setattr(m, "round", 0),
    ],
)
def test_nonsense_on_the_wire_is_refused(damage) -> None:
    """A curious server cannot make a client act on a plan that makes no sense."""
    message = plan_to_proto(plan(), state=RoundState.ANNOUNCED, collect_remaining_s=0)
    damage(message)
    with pytest.raises(RoundError) as caught:
        plan_from_proto(message)
    assert caught.value.code is Code.REQUEST_MALFORMED


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": ProtectionMode.PLAIN, "ratio": 0.5},
        {"mode": ProtectionMode.FULL, "ratio": 0.5},
        {"mode": ProtectionMode.SELECTIVE, "ratio": 0.0, "significance": Significance.RANDOM},
        {"mode": ProtectionMode.SELECTIVE, "ratio": 1.5, "significance": Significance.RANDOM},
        {"mode": ProtectionMode.SELECTIVE, "ratio": 0.5},
        {"mode": ProtectionMode.FULL, "ratio": 1.0, "significance": Significance.RANDOM},
        {"mode": ProtectionMode.SELECTIVE, "ratio": 1.0, "significance": Significance.LAYERS},
        {
            "mode": ProtectionMode.SELECTIVE,
            "ratio": 0.1,
            "significance": Significance.RANDOM,
            "layers": ("a",),
        },
    ],
)
def test_contradictory_protections_are_refused(arguments: dict[str, object]) -> None:
    """Nothing is left to guess about what is encrypted."""
    with pytest.raises(ConfigError, match="CONFIG_INVALID"):
        Protection(**arguments)


@pytest.mark.parametrize("groups", [(("b", "b"),), (("a",), ("a", "b")), ((),), (("a",), ())])
def test_groups_are_disjoint_and_none_is_empty(groups: tuple[tuple[str, ...], ...]) -> None:
    """An entry counts once, and a product over nothing is none."""
    with pytest.raises(RoundError, match="empty, or a tensor is in two") as caught:
        plan(statistics_blocks=groups)
    assert caught.value.code is Code.REQUEST_MALFORMED


def test_differences_add_to_the_first_model_where_every_round_hides_the_same() -> None:
    """Elsewhere to the model that the round started from."""
    lasting = [Protection.plain(), Protection.full(), LAYERS]
    assert [plan(protection=protection, divisor=512).since for protection in lasting] == [0, 0, 0]
    for significance in (Significance.MAGNITUDE, Significance.RANDOM):
        protection = Protection.selective(ratio=0.5, significance=significance)
        assert plan(protection=protection, divisor=512, base_round=2).since == 2
        assert plan(protection=protection, divisor=512, base_round=0).since == 0


def test_states_have_the_numbers_of_the_wire_contract() -> None:
    """The enum of the code and that of the .proto file are one."""
    for state in RoundState:
        assert pb.RoundState.Name(state) == f"ROUND_STATE_{state.name}"
    assert [state for state in RoundState if state.ended] == [RoundState.CLOSED, RoundState.ABORTED]


def test_plans_are_frozen() -> None:
    """A plan handed out can't be changed by who received it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan().round = 9  # type: ignore[misc]
