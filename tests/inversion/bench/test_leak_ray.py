"""A Ray cluster on this machine plays cells as processes do; it is started and ended by the crew."""

from dataclasses import replace

import clumsy
import pytest

from attacks.inversion.bench.cell import MEASURE, NONE
from attacks.inversion.bench.config import SweepConfig
from attacks.inversion.bench.crew import Processes
from attacks.inversion.bench.ray_crew import LOCAL, RayCrew
from attacks.inversion.bench.store import Outcome
from attacks.inversion.bench.sweep import Sweep
from secagg.errors import Code, ConfigError

ray = pytest.importorskip("ray")

CONFIG = SweepConfig(
    victim=("lenet-sigmoid",),
    dataset="digits",
    significance=("magnitude",),
    ratio=(0.0, 0.5),
    attacker=("gauss-newton:iterations=2",),
    samples=1,
)


def test_a_cluster_comes_to_the_figures_of_processes():
    """Whole cells, measures and attacks, by as many actors as were asked for; nothing of it is left then."""
    sweep = Sweep.planned(CONFIG)
    cells = [cell for cell in sweep.cells if cell.significance != NONE or cell.attacker == MEASURE][:4]
    with RayCrew(LOCAL, sweep.stage, count=2) as crew:
        assert crew.count == 2
        clustered = {event.cell.key: event for event in crew.play(cells)}
    assert not ray.is_initialized()
    with Processes(1, sweep.stage) as alone:
        for event in alone.play(cells):
            there = clustered.pop(event.cell.key)
            assert event.outcome is not None and there.outcome is not None, there.complaint
            assert figures(there.outcome) == figures(event.outcome)
    assert not clustered


def figures(outcome: Outcome) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in outcome.rows]


def test_a_cell_that_fails_or_ends_its_actor_costs_that_cell_only():
    # Actors can't import what only a test's folder has.
    ray.cloudpickle.register_pickle_by_value(clumsy)
    first = Sweep.planned(CONFIG).cells[0]
    cells = [replace(first, update=update) for update in (0, 1, 2, 3, 4)]
    with RayCrew(LOCAL, clumsy.Clumsy(), count=1) as crew:
        found = {event.cell.update: event for event in crew.play(cells)}
    assert {update for update, event in found.items() if event.outcome} == {0, 3, 4}
    assert "ValueError: that one" in found[1].complaint
    assert found[2].complaint.startswith("its process ended: ")


def test_an_address_that_is_none_is_named():
    with (
        pytest.raises(ConfigError, match="no Ray cluster answers at nowhere") as error,
        RayCrew("nowhere", clumsy.Clumsy()),
    ):
        pass
    assert error.value.code is Code.CONFIG_INVALID
