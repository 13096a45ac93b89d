"""What a rule can't work with is said when the settings are made, with what does not hold and the way out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from defenses.gram_rule import GramRule
from secagg.config import FederationConfig
from secagg.errors import Code, ConfigError
from secagg.rule import Answer, CoordinateRule, Floats, Statistics, StatisticsRequest
from secagg.suitability import check_request, check_settings
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(
    tensors=(TensorSpec(name="first", shape=(70, 10)), TensorSpec(name="last", shape=(10, 70)))
)
MODES: dict[str, dict[str, Any]] = {
    "plain": {"protect": "plain"},
    "full": {"protect": "full"},
    "layers": {"protect": "selective", "significance": "layers", "layers": ("last",)},
    "random": {"protect": "selective", "significance": "random", "ratio": 0.5},
    "magnitude": {"protect": "selective", "significance": "magnitude", "ratio": 0.5},
}


class Asking(GramRule):
    """Needs n ≥ 2f + 3 and asks for what it is told to."""

    name, inequality = "asking", "n ≥ 2f + 3"

    def __init__(self, request: StatisticsRequest | None, f: float | None = None) -> None:
        super().__init__(f=f)
        self._request = request

    def least(self, f: int) -> int:
        return 2 * f + 3

    def request(self, manifest: Manifest) -> StatisticsRequest | None:
        return self._request


class Ordering:
    """A rule that looks at each coordinate."""

    name = "ordering"

    majority = False

    def request(self, manifest: Manifest) -> StatisticsRequest | None:
        return None

    def require(self, clients: int) -> None:
        pass

    def screen(self, statistics: Statistics) -> Answer:
        raise NotImplementedError

    def decide(self, statistics: Statistics) -> Answer:
        raise NotImplementedError

    def settle(self, answers: Any, voters: int, sample_counts: NDArray[np.int64]) -> Answer:
        raise NotImplementedError

    def combine(self, values: Floats) -> Floats:
        raise NotImplementedError


def config(mode: str = "full", **settings: Any) -> FederationConfig:
    """Settings that are fine but for what is given."""
    return FederationConfig(**({"name": "test", "min_clients": 5} | MODES[mode] | settings))


def refused(settings: FederationConfig, rule: Any) -> ConfigError:
    """The refusal, which is one line."""
    with pytest.raises(ConfigError) as caught:
        check_request(settings, MANIFEST, rule)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(("least", "f"), [(2, None), (4, 1), (6, 2)])
def test_fewer_updates_than_the_rule_works_with_are_refused_with_the_inequality(
    least: int, f: float | None
) -> None:
    """And with the numbers that do not satisfy it; one more client is enough."""
    error = refused(config(min_clients=least), Asking(StatisticsRequest(), f))
    assert error.code is Code.RULE_UNSUPPORTED
    for part in ("asking", "n ≥ 2f + 3", f"f = {int(f or 0)}", f"at least {least + 1}", f"n = {least}"):
        assert part in error.message, part
    with pytest.raises(ConfigError, match=re.escape("n ≥ 2f + 3")):
        check_settings(config(min_clients=least), Asking(None, f))
    assert check_request(config(min_clients=least + 1), MANIFEST, Asking(StatisticsRequest(), f)) is not None


@pytest.mark.parametrize("mode", ["full", "layers", "random", "magnitude"])
def test_a_rule_that_orders_coordinates_needs_to_see_them(mode: str) -> None:
    """The message says why, what to choose instead, and what to set."""
    error = refused(config(mode), Ordering())
    assert isinstance(Ordering(), CoordinateRule)
    assert error.code is Code.RULE_UNSUPPORTED
    for part in (
        "ordering",
        "each coordinate",
        "ciphertexts do not show",
        "protect = plain",
        "geometric-median",
    ):
        assert part in error.message, part
    assert f"protect = {config(mode).protect}" in error.message
    assert check_request(config("plain"), MANIFEST, Ordering()) is None


COMPARING = [
    StatisticsRequest(references=1),
    StatisticsRequest(references=2, pairs=True),
    StatisticsRequest(history=True),
]


@pytest.mark.parametrize("mode", ["random", "magnitude"])
@pytest.mark.parametrize("request_", COMPARING, ids=str)
def test_comparing_with_earlier_rounds_needs_the_same_entries_in_each(
    mode: str, request_: StatisticsRequest
) -> None:
    """Where each round hides others; models compared over a layer of their own are fine."""
    error = refused(config(mode), Asking(request_))
    assert error.code is Code.RULE_UNSUPPORTED
    for part in (
        "asking",
        "earlier rounds",
        f"significance = {mode}",
        "protect = full",
        "significance = layers",
    ):
        assert part in error.message, part
    for lasting in ("plain", "full", "layers"):
        assert check_request(config(lasting), MANIFEST, Asking(request_)) == request_
    within_the_round = StatisticsRequest(pairs=True, screened=True)
    assert check_request(config(mode), MANIFEST, Asking(within_the_round)) == within_the_round
    of_models = StatisticsRequest(blocks=(("last",),), references=1, models=True)
    assert check_request(config(mode), MANIFEST, Asking(of_models)) == of_models


def test_a_root_client_is_named_where_a_rule_needs_one_and_nowhere_else() -> None:
    """CONFIG_INVALID both ways, with the setting's name."""
    rooted = Asking(StatisticsRequest(root=True))
    missing = refused(config(), rooted)
    assert missing.code is Code.CONFIG_INVALID
    assert "needs a root client" in missing.message and "root_client = NAME" in missing.message
    for rule in (Asking(StatisticsRequest(pairs=True)), Asking(None)):
        useless = refused(config(root_client="hospital"), rule)
        assert useless.code is Code.CONFIG_INVALID
        assert "has no use for root_client" in useless.message and "leave it out" in useless.message
    assert check_request(config(root_client="hospital"), MANIFEST, rooted) is not None
