"""A sweep: which cells it has, that they can be played again, and what happens to one that goes wrong."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import torch
from clumsy import Clumsy
from torch import nn

from attacks.inversion.attackers.attacker import Reconstruction, Status
from attacks.inversion.attackers.imprint import BIAS, BINS, Imprint
from attacks.inversion.batch import Batch
from attacks.inversion.bench import play as playing
from attacks.inversion.bench.asked import is_option, names_tensor, split
from attacks.inversion.bench.cell import FULL, MEASURE, NONE
from attacks.inversion.bench.config import Knowledge, SweepConfig
from attacks.inversion.bench.crew import Processes
from attacks.inversion.bench.play import exposed_to
from attacks.inversion.bench.protected import Protected, protections_of
from attacks.inversion.bench.rows import rows_of
from attacks.inversion.bench.scene import Scene, check_device
from attacks.inversion.bench.store import MEAN, ORIGINAL, RECONSTRUCTION, Outcome
from attacks.inversion.bench.sweep import PRIOR_ONLY, Sweep
from attacks.inversion.bench.verdict import Margins, judged
from secagg.errors import Code, ConfigError

CONFIG = SweepConfig(
    victim=("lenet-sigmoid",),
    dataset="digits",
    significance=("magnitude", "random"),
    ratio=(0.0, 0.5, 1.0),
    attacker=("gauss-newton:iterations=3",),
    samples=2,
)
ATTACKER = CONFIG.attacker[0]


@pytest.fixture(scope="module")
def sweep():
    return Sweep.planned(CONFIG)


@pytest.fixture(scope="module")
def scene(sweep):
    return Scene.load(sweep.setting, "lenet-sigmoid", None, updates=2)


def cell_of(sweep, significance, attacker=ATTACKER, *, aware=True):
    return next(
        cell
        for cell in sweep.cells
        if (cell.significance, cell.attacker, cell.aware) == (significance, attacker, aware)
    )


def test_references_are_played_once_for_all_significances(sweep):
    """Ratio 0 and what is hidden whole: once per attacker; the rest for either kind of attacker."""
    found = Counter(
        (cell.significance, cell.ratio, cell.attacker, cell.aware) for cell in sweep.cells if not cell.update
    )
    expected = {(NONE, 0.0, MEASURE, True), (NONE, 0.0, ATTACKER, True), (FULL, 1.0, PRIOR_ONLY, True)}
    expected |= {(FULL, 1.0, MEASURE, True), (FULL, 1.0, ATTACKER, True)}
    for name in ("magnitude@common", "random"):
        expected |= {(name, 0.5, MEASURE, True), (name, 0.5, ATTACKER, True), (name, 0.5, ATTACKER, False)}
    assert found == dict.fromkeys(expected, 1)
    assert all(before.update <= after.update for before, after in pairwise(sweep.cells))
    assert len({cell.key for cell in sweep.cells}) == len(sweep.cells) == 22


def test_more_samples_keep_the_cells_that_are_there(sweep):
    """A larger sweep goes on from a smaller one."""
    larger = Sweep.planned(CONFIG.model_copy(update={"samples": 3}))
    assert {cell.key for cell in sweep.cells} < {cell.key for cell in larger.cells}


def keys(config: SweepConfig, **changes: object) -> dict[tuple[object, ...], str]:
    """Of a sweep's cells, by what they are called."""
    cells = Sweep.planned(config.model_copy(update=changes)).cells
    found = {
        (cell.significance, cell.ratio, cell.attacker, cell.aware, cell.update): cell.key for cell in cells
    }
    assert len(found) == len(cells)
    return found


def test_a_network_that_computes_something_else_is_played_again(monkeypatch):
    """Its name, its tensors and its weights stay when only the function between them changes."""
    module = ModuleType("changing_victim")
    activation: list[type[nn.Module]] = [nn.ReLU]

    def build(_shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), activation[0](), nn.Linear(8, classes))

    module.build = build
    monkeypatch.setitem(sys.modules, "changing_victim", module)
    config = CONFIG.model_copy(update={"victim": ("changing_victim:build",), "samples": 1})
    before = keys(config)
    assert keys(config) == before
    activation[0] = nn.Sigmoid
    after = keys(config)
    assert before.keys() == after.keys() and not set(before.values()) & set(after.values())


def test_cells_are_played_again_where_their_samples_changed(tmp_path):
    """One attacked image is another one: the cells of its update only. A known image, or the number of
    candidates: all cells.
    """
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    config = CONFIG.model_copy(update={"victim": ("mlp",), "dataset": str(tmp_path / "data.npz")})

    def inverted(sample: torch.Tensor | None) -> dict[tuple[object, ...], str]:
        """Keys once this image is its own negative."""
        changed = images.copy()
        if sample is not None:
            (at,) = np.flatnonzero((images / 255 == sample.numpy()).all(axis=(1, 2)))
            changed[at] = 255 - images[at]
        np.savez(tmp_path / "data.npz", x=changed, y=np.arange(60) % 2)
        return keys(config)

    def replayed(after: dict[tuple[object, ...], str]) -> set[object]:
        return {update for (*_, update), key in after.items() if key not in before.values()}

    before = inverted(None)
    pool = Scene.load(Sweep.planned(config).setting, "mlp", None, updates=2).pool
    assert replayed(inverted(pool.attacked.inputs[1])) == {1}
    assert replayed(inverted(pool.known.inputs[-1])) == {0, 1}
    assert replayed(inverted(pool.others[0].inputs[0])) == {0, 1}
    assert replayed(inverted(None)) == set()
    assert replayed(keys(config, candidates=7)) == {0, 1}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes of a crew compute: two threads add in another order, and the last digits differ."""
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(kept)


@pytest.mark.usefixtures("one_thread")
def test_a_cell_played_again_elsewhere_comes_to_the_same(sweep):
    """Whatever was played before, in this process or another: figures follow from the seed and the cell."""
    cells = [cell_of(sweep, "random", aware=False), cell_of(sweep, "random"), cell_of(sweep, NONE, MEASURE)]
    here = {cell.key: sweep.stage.play(cell) for cell in cells}
    with Processes(1, sweep.stage) as crew:
        for event in crew.play(cells[::-1]):
            assert event.outcome is not None, event.complaint
            assert figures(event.outcome) == figures(here[event.cell.key])
            for kind, picture in event.outcome.pictures.items():
                np.testing.assert_array_equal(picture, here[event.cell.key].pictures[kind])


def figures(outcome: Outcome) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in outcome.rows]


def test_rows_join_an_attack_with_the_measures_of_what_was_attacked(sweep):
    attack, measures = cell_of(sweep, NONE), cell_of(sweep, NONE, MEASURE)
    ended = [(cell, sweep.stage.play(cell)) for cell in (measures, attack)]
    naive, aware = rows_of(ended, Knowledge.BOTH)
    assert (naive["aware"], aware["aware"]) == (False, True)
    assert naive | {"aware": True} == aware
    assert aware["candidates"] == CONFIG.candidates == 100
    assert aware["seed"] == attack.seed and aware["psnr_db"] > 40 and aware["label_correct"] is None
    assert aware["psnr_pred_db"] > aware["mean_psnr_db"] > 5 and aware["hidden_share"] == 0
    assert set(ended[0][1].pictures) == {ORIGINAL, MEAN} and set(ended[1][1].pictures) == {RECONSTRUCTION}


def test_what_is_hidden_whole_holds_the_prior_and_no_more(sweep):
    row = sweep.stage.play(cell_of(sweep, FULL, MEASURE)).rows[0]
    assert row["leaked_dimensions"] == 0 and row["hidden_share"] == 1 and 5 < row["psnr_pred_db"] < 20


@pytest.mark.parametrize("ending", ["diverged", "unsolvable", "unsuited"])
def test_an_attack_that_goes_wrong_is_recorded_with_its_seed(sweep, monkeypatch, ending):
    class Wrong:
        name = "wrong"

        def unsuited(self, exposure):
            return "it can't" if ending == "unsuited" else ""

        def attack(self, exposure, *, seed, budget):
            if ending == "unsolvable":
                raise torch.linalg.LinAlgError("singular")
            inputs = torch.zeros(1, *exposure.victim.shape)
            return Reconstruction(
                inputs=inputs, labels=torch.zeros(1, dtype=torch.int64), status=Status.DIVERGED
            )

    monkeypatch.setattr(playing, "load_attacker", lambda _name: Wrong())
    cell = cell_of(sweep, "random")
    (row,) = sweep.stage.play(cell).rows
    assert row["ended"] == ("unsuited" if ending == "unsuited" else "diverged")
    assert row["seed"] == cell.seed and row["psnr_db"] is None


@pytest.mark.parametrize("precision", ["wire", "float64"])
@pytest.mark.parametrize("perturb", ["noise:1e308", "clip:1+noise-absolute:1e300"])
def test_a_perturbation_that_leaves_no_numbers_is_refused(precision, perturb):
    """Before anything is played, though every cell would say the same."""
    config = CONFIG.model_copy(update={"precision": precision, "perturb": ("plain", "noise:0.1", perturb)})
    with pytest.raises(ConfigError) as refused:
        Sweep.planned(config)
    assert refused.value.code is Code.CONFIG_INVALID and perturb in refused.value.message


def test_an_update_whose_training_overflows_is_recorded_as_diverged(sweep):
    """Whatever later samples hold: the sweep goes on, and the row tells its seed."""
    stage = sweep.stage
    attacks = [cell for cell in sweep.cells if cell.update == 1 and cell.attacker == ATTACKER]
    scene = stage.scene(attacks[0])
    inputs = scene.pool.attacked.inputs.clone()
    inputs[1] = torch.inf
    scene.pool = replace(scene.pool, attacked=Batch(inputs=inputs, labels=scene.pool.attacked.labels))
    measures = [cell for cell in sweep.cells if cell.update == 1 and cell.attacker == MEASURE]
    ended = [(cell, stage.play(cell)) for cell in (*measures, *attacks)]
    rows = rows_of(ended, Knowledge.AWARE)
    assert len(rows) == len(attacks) and {row["sample"] for row in rows} == {1}
    for cell, row in zip(attacks, rows, strict=True):
        assert (row["ended"], row["seed"], row["psnr_db"]) == ("diverged", cell.seed, None)
        assert "training diverged" in row["detail"]
    assert {row["status"] for row in judged(rows, Margins())} == {Status.DIVERGED}
    # Other updates are none the worse.
    assert stage.play(cell_of(sweep, NONE)).rows[0]["ended"] == "done"


def test_a_protection_that_does_not_fit_an_altered_model_leaves_that_attacker_out(tmp_path):
    """An imprint layer renames tensors and adds entries: nothing of it is played under names or a mask's file
    that are the victim's own.
    """
    size = Sweep.planned(CONFIG).manifests["lenet-sigmoid"].size
    np.save(tmp_path / "mask.npy", np.arange(size) % 3 == 0)
    file = f"file={tmp_path / 'mask.npy'}"
    manifest = Sweep.planned(CONFIG).manifests["lenet-sigmoid"]
    layers = f"layers={manifest.tensors[-1].name}"
    found = Sweep.planned(
        CONFIG.model_copy(
            update={"attacker": (ATTACKER, "imprint"), "significance": ("random", layers, file)}
        )
    )
    played = {cell.significance for cell in found.cells if cell.attacker == "imprint"}
    assert played == {NONE, FULL, "random"}
    assert {cell.significance for cell in found.cells if cell.attacker == ATTACKER} > {layers, file}
    notes = [note for note in found.notes if note.startswith("imprint is left out under ")]
    assert len(notes) == 2 and layers in notes[0] and file in notes[1]


def test_an_imprint_layer_is_made_for_the_samples_that_are_known(sweep, scene):
    """Its thresholds are the quantiles of their brightness, so that every known sample reaches a bin."""
    prepared = exposed_to(Imprint(), scene, cell_of(sweep, NONE, attacker=ATTACKER)).victim
    thresholds = -prepared.named(prepared.parameters())[BIAS]
    brightness = scene.pool.known.inputs.flatten(1).mean(dim=1)
    assert thresholds[0] < brightness.min() and thresholds[-1] < brightness.max()
    assert thresholds[BINS // 2] == pytest.approx(float(brightness.median()), abs=0.01)


@pytest.mark.parametrize(
    ("count", "device", "says"),
    [(0, "cuda", "no CUDA device"), (2, "cuda:2", "cuda:0 … cuda:1"), (2, "cuda:1", ""), (0, "cpu", "")],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch, count, device, says):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if not says:
        check_device(device)
        return
    with pytest.raises(ConfigError, match=says) as refused:
        Sweep.planned(CONFIG.model_copy(update={"device": device}))
    assert refused.value.code is Code.CONFIG_INVALID


def test_a_cell_that_fails_or_ends_its_process_costs_that_cell_only(sweep):
    cells = [replace(sweep.cells[0], update=update) for update in (0, 1, 2, 3, 4)]
    with Processes(1, Clumsy()) as crew:
        found = {event.cell.update: event for event in crew.play(cells)}
    assert {update for update, event in found.items() if event.outcome} == {0, 3, 4}
    assert "ValueError: that one" in found[1].complaint and "code 7" in found[2].complaint


def test_every_significance_is_tried_at_every_ratio_unless_it_decides_itself(sweep, scene):
    manifest = scene.victim.manifest
    name = manifest.tensors[0].name
    asked = ["magnitude", "random:0.2", f"layers={name}", "first/layer+clip:1"]
    found = protections_of(asked, [0.1, 1.0], ["plain", "noise:0.01"], sweep.setting, manifest)
    layer = round(manifest.tensors[0].size / manifest.size, 4)
    named = [
        ("magnitude@common", 0.1, ""),
        (FULL, 1.0, ""),
        ("random", 0.2, ""),
        ("first/layer", 0.1, "clip:1"),
    ]
    for one in named:
        assert Protected(significance=one[0], ratio=one[1], perturb=one[2]) in found
    assert any(one.significance == f"layers={name}" and round(one.ratio, 4) == layer for one in found)
    assert Protected(significance="first/layer", ratio=0.1, perturb="clip:1+noise:0.01") in found


def test_the_sweep_s_granularity_and_scores_go_where_they_mean_something(sweep, scene):
    setting = replace(sweep.setting, granularity="layer", scores="common")
    found = protections_of(["magnitude", "random"], [0.5], [], setting, scene.victim.manifest)
    assert [one.significance for one in found] == ["magnitude/layer@common", "random/layer"]


def test_lists_are_split_at_commas_that_separate():
    assert split(["magnitude,layers=a.w,b.w,random", "first"], names_tensor) == (
        "magnitude",
        "layers=a.w,b.w",
        "random",
        "first",
    )
    assert split(["a:x=1,y=2,b", "c"], is_option) == ("a:x=1,y=2", "b", "c")
