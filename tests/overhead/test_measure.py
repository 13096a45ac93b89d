"""A measured round is a real one: its sizes are the formulas', and a wrong mean is no figure."""

from dataclasses import replace

import numpy as np
import pytest

from defenses import load_rule
from secagg.aggregate import aggregate_bytes
from secagg.ckks import PROFILES
from secagg.client.feedback import ErrorFeedback
from secagg.errors import Code, SecaggError
from secagg.overhead.client_role import _settle_earlier_round
from secagg.overhead.correctness import check_opened
from secagg.overhead.measure import Setting, measure, measure_sealing
from secagg.overhead.processes import Role
from secagg.overhead.schemes import Scheme
from secagg.overhead.task import Task
from secagg.update import Manifest, TensorSpec

SHAPES = {"weight": (200, 160), "bias": (200,), "output": (10, 77)}
MANIFEST = Manifest(tensors=tuple(TensorSpec(name=name, shape=shape) for name, shape in SHAPES.items()))
COUNTS = (3, 1, 2)
"""Sample counts of three updates: the mean is a weighted one."""


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    with Setting.opened(out, clients=5, seed=7, repeat=3, workers=1, rules=load_rule) as made:
        yield made
    assert not list(out.iterdir()), "scratch files are left"


@pytest.fixture(scope="module")
def rows(setting):
    """One row per scheme, each measured once; that it is there says that the opened mean was right."""
    names = ("compact", "robust", "selective:0.5:robust")
    return {
        name: measure("small", MANIFEST, Scheme.parse(name), setting, sample_counts=COUNTS) for name in names
    }


@pytest.mark.parametrize("name", ["compact", "robust"])
def test_bytes_are_exactly_what_the_profile_says(rows, name):
    profile, values = PROFILES[name], MANIFEST.size
    assert rows[name].bytes_up == profile.sealed_bytes(values)
    front = 1 + 8 + 1 + 8 + 8 + (8 + len(SHAPES) if profile.quantised else 0)
    assert rows[name].bytes_down == front + profile.aggregate_bytes(values)


def test_selective_bytes_lie_in_between(rows):
    """Between plain float32 and everything encrypted."""
    half, full = rows["selective:0.5:robust"], rows["robust"]
    assert 4 * MANIFEST.size < half.bytes_up < full.bytes_up
    assert 4 * MANIFEST.size < half.bytes_down < full.bytes_down
    hidden = -(-MANIFEST.size // 2)
    assert half.bytes_up == PROFILES["robust"].sealed_bytes(hidden) + 4 * (MANIFEST.size - hidden)


def test_the_opened_mean_is_within_its_bound_and_not_exact_by_accident(rows):
    for row in rows.values():
        assert 0 < row.max_error <= row.error_bound < 1e-3


def test_figures_of_a_row_belong_together(rows):
    for row in rows.values():
        assert (row.values, row.clients, row.updates, row.repeat) == (MANIFEST.size, 5, 3, 3)
        assert row.aggregate_s == pytest.approx(row.check_s + row.sum_s)
        assert min(row.seal_s, row.check_s, row.sum_s, row.open_s) > 0
        assert row.client_peak_mib == max(row.seal_peak_mib, row.open_peak_mib)
        assert row.baseline_mib + row.vector_mib < row.seal_peak_mib
        assert row.seal_over_baseline_mib == pytest.approx(
            row.seal_peak_mib - row.vector_mib - row.baseline_mib
        )
        # Main process and one worker.
        assert row.server_peak_mib > 1.5 * row.baseline_mib


def test_a_row_is_flat_and_has_the_designed_fields(rows):
    flat = rows["compact"].flat()
    designed = ("model", "values", "scheme", "peer", "bytes_up", "bytes_down", "seal_s", "aggregate_s",
                "open_s", "client_peak_mib", "server_peak_mib")  # fmt: skip
    assert tuple(name for name in flat if name in designed) == designed
    assert flat["peer"] is None and all(isinstance(v, str | int | float | None) for v in flat.values())


def test_sealing_in_worker_processes_counts_their_memory(setting):
    """Long vectors are sealed in one more process, with an interpreter of its own."""
    profile = PROFILES["compact-10"]
    long = Manifest(tensors=(TensorSpec(name="v", shape=(64 * profile.values_per_ciphertext,)),))
    scheme, two = Scheme.parse("compact-10"), replace(setting, workers=2)
    alone, shared = (measure_sealing(long, scheme, chosen) for chosen in (setting, two))
    assert shared["seal_peak_mib"] > alone["seal_peak_mib"] + 0.6 * alone["baseline_mib"]


def task_of(folder, scheme="plain"):
    task = Task(folder=folder, federation=folder, scheme=scheme, clients=5, sample_counts=COUNTS, seed=7,
                repeat=1, workers=1)  # fmt: skip
    task.prepare(MANIFEST)
    task.state.mkdir()
    return task


def mean_of(task):
    """Client c sends update c mod 3, so 0 and 1 come twice."""
    weights = np.array([2 * 3, 2 * 1, 1 * 2])
    return (weights / weights.sum()) @ [task.vector(update).astype(np.float64) for update in range(3)]


@pytest.mark.parametrize("scheme", ["plain", "robust", "compact", "selective:0.5"])
def test_one_wrong_value_of_an_opened_mean_is_noticed(tmp_path, scheme):
    task = task_of(tmp_path, scheme)
    opened = mean_of(task).astype(np.float32)
    check_opened(task, task.layout(), task.scales(), opened)
    opened[123] += np.float32(1e-3)
    with pytest.raises(SecaggError, match="opened a wrong mean"):
        check_opened(task, task.layout(), task.scales(), opened)
    opened[123] = np.nan
    with pytest.raises(SecaggError, match="opened a wrong mean"):
        check_opened(task, task.layout(), task.scales(), opened)


def test_layouts_of_a_task_agree_with_its_plan(tmp_path):
    """What the server derives from the plan has the sizes that the client's layout has."""
    task = task_of(tmp_path, "selective:0.5")
    layout, form = task.layout(), task.parsed.profile
    plan = task.plan(layout.payload_bytes(form))
    assert plan.mask_sha256 == layout.mask.digest
    assert layout.mask.hidden_count == -(-MANIFEST.size // 2)
    assert aggregate_bytes(layout, form) > 4 * sum(layout.visible_counts)
    assert plan.own_weight(1) == task.weight(1) and plan.own_weight(3) == task.weight(0) == 1.0


def test_a_role_that_fails_says_why(tmp_path):
    """Its last line on standard error; a refusal comes with its code."""
    (tmp_path / "elsewhere").mkdir()
    lost = task_of(tmp_path).to_json().replace(f'"{tmp_path}"', f'"{tmp_path / "elsewhere"}"')
    wrong = lost.replace('"plain"', '"nonsense"')
    with (
        Role("secagg.overhead.client_role", "seal", tmp_path / "1.log") as failing,
        Role("secagg.overhead.client_role", "seal", tmp_path / "2.log") as refusing,
    ):
        failing.get_ready()
        refusing.get_ready()
        with pytest.raises(SecaggError, match="the process to seal failed: FileNotFoundError") as failed:
            failing.play(lost)
        with pytest.raises(SecaggError, match="'nonsense' is unknown") as refused:
            refusing.play(wrong)
    assert (failed.value.code, refused.value.code) == (Code.INTERNAL, Code.CONFIG_INVALID)


def test_sealed_updates_take_an_earlier_round_along(tmp_path):
    """Error feedback reads and writes as in every round but a client's first."""
    task = task_of(tmp_path, "compact")
    layout, feedback = task.layout(), ErrorFeedback(task.state)
    _settle_earlier_round(task, feedback, layout, task.scales())
    taken = feedback.begin(layout)(0).read(0, MANIFEST.size)
    step = task.scales().steps(task.parsed.profile, layout.hidden_runs(0)).sizes.min()
    assert np.abs(taken).max() <= step / 2 and np.count_nonzero(taken) > 0.9 * taken.size
