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

protections = st.one_of(
    st.just(Protection.plain()),
    st.just(Protection.full()),
    st.builds(
        Protection.selective,
        ratio=st.floats(1e-9, 1.0),
        significance=st.sampled_from([Significance.MAGNITUDE, Significance.RANDOM]),
    ),
    st.just(Protection.selective(significance=Significance.LAYERS, layers=("b",))),
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
        "statistics_tensors": ("b",),
        "base_round": 2,
        "max_sample_count": 1000,
        "payload_bytes": 12,
    }
    return RoundPlan(**(fields | changes))


@given(protections, st.integers(2, 2**40), st.sampled_from([b"", bytes(32)]))
def test_plan_survives_the_wire(protection: Protection, number: int, mask: bytes) -> None:
    """A plan read from its wire form equals the one written."""
    original = plan(protection=protection, round=number, base_round=number - 1, mask_sha256=mask)
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
        lambda m: m.statistics_tensors.append("no such tensor"),
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


def test_states_have_the_numbers_of_the_wire_contract() -> None:
    """The enum of the code and that of the .proto file are one."""
    for state in RoundState:
        assert pb.RoundState.Name(state) == f"ROUND_STATE_{state.name}"
    assert [state for state in RoundState if state.ended] == [RoundState.CLOSED, RoundState.ABORTED]


def test_plans_are_frozen() -> None:
    """A plan handed out can't be changed by who received it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan().round = 9  # type: ignore[misc]
