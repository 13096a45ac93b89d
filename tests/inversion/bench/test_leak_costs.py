"""Costs are those of what is really encrypted, not of the ratio that was asked for."""

from dataclasses import replace

import pytest

from attacks.inversion.bench import costs
from attacks.inversion.bench.cell import FULL, MEASURE, NONE, Cell, Setting
from attacks.inversion.bench.config import SweepConfig
from attacks.inversion.bench.costs import costs_of, scheme_of, shares_of
from attacks.inversion.bench.store import Outcome, Store
from attacks.inversion.bench.sweep import Sweep
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(tensors=(TensorSpec(name="a", shape=(1000,)),))
CELL = Cell(
    setting=Setting(dataset="digits"),
    victim="net",
    significance="random",
    ratio=0.1,
    update=0,
    attacker=MEASURE,
)


def ended(significance: str, ratio: float, *shares: float | None) -> list[tuple[Cell, Outcome]]:
    """Measures of one exposure per share."""
    return [
        (
            replace(CELL, significance=significance, ratio=ratio, update=update),
            Outcome(rows=[{"hidden_share": share}], seconds=0.0),
        )
        for update, share in enumerate(shares)
    ]


@pytest.mark.parametrize(
    ("significance", "ratio", "shares", "expected"),
    [
        (NONE, 0.0, [0.0], 0.0),
        (FULL, 1.0, [1.0], 1.0),
        # 333 of 1000 entries are a third; 34% is more.
        ("random", 1 / 3, [0.333, 0.333], 1 / 3),
        ("magnitude/layer", 0.1, [0.34, 0.34], 0.34),
        # Updates under which tensors differ: the mean.
        ("magnitude/layer", 0.1, [0.2, 0.4], 0.3),
        ("magnitude/layer", 0.9, [1.0, 1.0], 1.0),
        ("random+statistics=a", 0.1, [0.123456], 0.1235),
        # Never everything, nor what has diverged.
        ("magnitude", 0.5, [0.99999], 0.9999),
        ("magnitude", 0.5, [None, 0.7], 0.7),
    ],
)
def test_the_share_is_the_exposures_own(significance, ratio, shares, expected):
    (found,) = shares_of(ended(significance, ratio, *shares), {"net": MANIFEST})
    assert found == ("net", pytest.approx(expected))


def test_protections_of_one_share_are_measured_once_and_those_of_none_not_at_all():
    cells = [
        *ended("random", 0.1, 0.1),
        *ended("magnitude", 0.1, 0.1),
        *ended("magnitude/layer", 0.1, 0.6),
        *ended("first", 0.2, None),
        (replace(CELL, attacker="gauss-newton"), Outcome(rows=[{"hidden_share": 0.7}], seconds=0.0)),
    ]
    assert shares_of(cells, {"net": MANIFEST}) == {
        ("net", 0.1): ["random 0.1", "magnitude 0.1"],
        ("net", 0.6): ["magnitude/layer 0.1"],
    }


def test_schemes_are_those_of_the_engine():
    assert [scheme_of(share) for share in (0, 0.1235, 1)] == ["plain", "selective:0.1235:compact", "compact"]


def test_whole_tensors_cost_what_they_hold(tmp_path, monkeypatch):
    """An MLP's first matrix is most of it: asked for 10%, clients send as much as is hidden."""
    monkeypatch.setattr(costs, "REPEAT", 1)
    config = SweepConfig(
        victim=("mlp",),
        dataset="digits",
        significance=("last/layer", "random"),
        ratio=(0.1,),
        attacker=("prior-only",),
        samples=1,
    )
    sweep = Sweep.planned(config)
    measures = [
        cell for cell in sweep.cells if cell.attacker == MEASURE and cell.significance not in (NONE, FULL)
    ]
    played = [(cell, sweep.stage.play(cell)) for cell in measures]
    hidden = {cell.significance: outcome.rows[0]["hidden_share"] for cell, outcome in played}
    assert hidden["last/layer"] > 0.11 > hidden["random"]
    with Store(tmp_path) as store:
        rows = list(costs_of(played, sweep.manifests, store, out=tmp_path, clients=2, seed=0))
        assert rows == list(costs_of(played, sweep.manifests, store, out=tmp_path, clients=2, seed=0))
    found = {protection: cost for cost in rows for protection in cost["protections"]}
    assert found["last/layer 0.1"]["ratio"] == pytest.approx(hidden["last/layer"], abs=1e-4)
    assert found["random 0.1"]["ratio"] == 0.1
    assert found["last/layer 0.1"]["bytes_up"] > found["random 0.1"]["bytes_up"]
