"""The campaign of rules against attacks: end to end in miniature, what it keeps, and what it refuses."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from attacks.inversion.bench.crew import Processes
from benchmarks.robust.campaign import rounds_of
from benchmarks.robust.cell import Cell, Setting
from benchmarks.robust.federation import Federation
from benchmarks.robust.plan import Grid, cells_of
from benchmarks.robust.player import CurvePlayer
from benchmarks.robust.store import STORE_FILE, Outcome, Store
from benchmarks.robustness import main
from secagg.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = Setting(
    dataset="digits", model="linear", clients=12, per_round=5, samples=32, rounds=4, start_round=3
)
FLAGS = [
    *("--datasets", "digits", "--model", "linear", "--clients", "12", "--per-round", "5", "--samples", "32"),
    *("--rounds", "4", "--start-rounds", "3", "--fractions", "0.2", "--processes", "1"),
]
CELL = Cell(setting=SMALL, rule="mean", attack="sign-flip", fraction=0.2, domain="plain")


def campaign(out: Path, *more: str) -> int:
    """Run a small campaign in this process; its exit code."""
    return main([*FLAGS, "--out", str(out), *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one that has ended: rules that weigh and one that sorts, in the clear and sealed."""
    out = tmp_path_factory.mktemp("campaign")
    asked = ["--rules", "mean", "multi-krum:f={f}", "median", "--attacks", "sign-flip", "label-flip"]
    assert campaign(out, *asked, "--domains", "plain", "cipher") == 0
    return out


def rows_in(out: Path) -> list[dict[str, object]]:
    """The rows of ``result.json``."""
    content = json.loads((out / "result.json").read_text())
    assert content["schema"] == 1
    assert content["complete"]
    rows: list[dict[str, object]] = content["rows"]
    return rows


def test_each_combination_is_one_row(finished: Path) -> None:
    """Three rules against none and two attacks; on ciphertexts without the rule that sorts coordinates."""
    rows = rows_in(finished)
    wanted = {
        "dataset",
        "rule",
        "attack",
        "fraction",
        "domain",
        "accuracy",
        "precision",
        "recall",
        "server_s",
    }
    assert all(wanted <= row.keys() for row in rows)
    found = {(row["rule"], row["attack"], row["domain"]) for row in rows}
    rules = {"plain": ("mean", "multi-krum:f=1", "median"), "cipher": ("mean", "multi-krum:f=1")}
    attacks = ("none", "sign-flip", "label-flip")
    assert found == {
        (rule, attack, domain) for domain in rules for rule in rules[domain] for attack in attacks
    }
    assert len(rows) == len(found)


def test_ciphertexts_lead_to_the_same_coefficients(finished: Path) -> None:
    """Statistics that are opened differ by noise only, and so do the curves."""
    for row in rows_in(finished):
        if row["domain"] == "cipher":
            assert isinstance(row["weight_gap"], float)
            assert row["weight_gap"] < 0.01
        else:
            assert row["weight_gap"] is None


def test_rejections_are_counted_where_somebody_attacks_and_weights_are_known(finished: Path) -> None:
    """No recall without attackers, no rejections without weights; the mean keeps all honest clients."""
    for row in rows_in(finished):
        if row["attack"] == "none":
            assert row["recall"] is None
            assert row["fraction"] == 0
        elif row["rule"] == "median":
            assert row["recall"] is None
        else:
            assert row["recall"] is not None
        if row["rule"] == "mean":
            assert row["honest_kept"] == 1


def test_tables_and_pictures_are_written(finished: Path) -> None:
    """One picture of curves per attack, one of the table, and the table for documents."""
    pictures = {path.name for path in finished.glob("*.png")}
    curves = {f"curves-digits-{attack}-from-3.png" for attack in ("none", "sign-flip", "label-flip")}
    assert pictures == curves | {"table-digits-0.2-from-3.png"}
    text = (finished / "robustness.md").read_text()
    assert "| multi-krum (cipher) |" in text


def test_finished_cells_are_skipped(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command plays nothing; a changed seed makes other cells, and is reported by itself."""
    before = Store(finished)
    keys = before.keys()
    before.close()
    asked = ("--rules", "mean", "--attacks", "sign-flip")
    assert campaign(finished, *asked) == 0
    assert "2 cells, 2 of them already" in capsys.readouterr().out.replace("\n", " ")
    after = Store(finished)
    assert after.keys() == keys
    assert campaign(finished, *asked, "--seed", "1") == 0
    assert len(after.keys()) == len(keys) + 2
    after.close()
    assert campaign(finished, *asked) == 0
    assert len(rows_in(finished)) == len(keys)


def test_interrupted_campaign_is_consistent_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C after the first cell: what is stored is whole, and the same command finishes the rest."""
    more = ["--rounds", "30", "--rules", "mean", "--attacks", "sign-flip", "label-flip"]
    command = [sys.executable, "-m", "benchmarks.robustness", *FLAGS, "--out", str(tmp_path), *more]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[1/3]"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    database = sqlite3.connect(tmp_path / STORE_FILE)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    stored = [json.loads(row) for (row,) in database.execute("SELECT row FROM cells")]
    database.close()
    assert 1 <= len(stored) < 3
    content = json.loads((tmp_path / "result.json").read_text())
    assert not content["complete"]
    assert len(content["rows"]) == len(stored)
    capsys.readouterr()
    assert campaign(tmp_path, *more) == 0
    assert f"3 cells, {len(stored)} of them already" in capsys.readouterr().out
    assert len(rows_in(tmp_path)) == 3


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--rules", "krumm"], "krumm"),
        (["--attacks", "sign-flop"], "sign-flop"),
        (["--attacks", "sign-flip:much"], "much"),
        (["--datasets", "fashion-minst"], "fashion-minst"),
        (["--domains", "clear"], "clear"),
        (["--fractions", "1.5"], "1.5"),
        (["--start-rounds", "9"], "9"),
    ],
)
def test_what_is_unknown_gets_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], named: str
) -> None:
    """Before anything is played or written."""
    assert campaign(tmp_path / "out", "--rules", "mean", "--attacks", "sign-flip", *flags) == 2
    errors = capsys.readouterr().err
    assert named in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_same_seed_gives_same_clients_data_and_model() -> None:
    """And without attackers the clients of a round do not depend on the share that a rule assumes."""
    one, other = Federation(SMALL), Federation(SMALL)
    assert np.array_equal(one.initial, other.initial)
    for round in (1, 2):
        assert np.array_equal(one.members(round, 0), other.members(round, 0))
        update, count = one.update(one.initial, 3, round)
        again, recount = other.update(other.initial, 3, round)
        assert np.array_equal(update, again)
        assert count == recount


def test_training_that_diverges_sends_zeros() -> None:
    """From a model so far out that gradients are not finite; the update is neither NaN nor an error."""
    federation = Federation(replace(SMALL, model="mlp", learning_rate=1e30))
    update, _ = federation.update(federation.initial, 3, 1)
    assert not update.any()


def test_share_of_malicious_clients_holds_in_every_round_and_is_nested() -> None:
    """The last ``f`` of a round are malicious, always out of the same clients."""
    federation = Federation(replace(SMALL, clients=20, per_round=10))
    few = {int(client) for round in range(50) for client in federation.members(round, 1)[-1:]}
    many = {int(client) for round in range(50) for client in federation.members(round, 3)[-3:]}
    honest = {int(client) for round in range(50) for client in federation.members(round, 3)[:-3]}
    assert len(few) == 2
    assert few < many
    assert len(many) == 6
    assert not many & honest
    assert all(len(set(federation.members(round, 3).tolist())) == 10 for round in range(50))


def test_changed_setting_is_another_cell() -> None:
    """Of everything that the numbers depend on."""
    others = [
        replace(CELL, rule="median"),
        replace(CELL, attack="sign-flip:2"),
        replace(CELL, fraction=0.4),
        replace(CELL, domain="cipher"),
        replace(CELL, setting=replace(SMALL, seed=1)),
        replace(CELL, setting=replace(SMALL, learning_rate=0.1)),
    ]
    assert len({cell.key for cell in (CELL, *others)}) == 1 + len(others)
    assert replace(CELL, attack="label-flip").warm_key == CELL.warm_key
    assert replace(CELL, domain="cipher").warm_key == CELL.warm_key
    assert replace(CELL, setting=replace(SMALL, start_round=2)).warm_key != CELL.warm_key


def test_stored_cell_comes_back_as_it_was(tmp_path: Path) -> None:
    """Cell, row and curve; a later one of the same key takes its place."""
    store = Store(tmp_path)
    outcome = Outcome(row={"accuracy": 0.5}, curve=[{"round": 1, "accuracy": 0.5}], seconds=1.0)
    store.add(CELL, replace(outcome, seconds=2.0))
    store.add(CELL, outcome)
    assert store.outcomes([replace(CELL, rule="median"), CELL]) == [(CELL, outcome)]
    store.close()


def test_rule_that_cannot_bear_the_attackers_is_left_out() -> None:
    """With the rule's own inequality as the reason; the others are kept, those without attack first."""
    grid = Grid(datasets=("digits",), rules=("mean", "multi-krum:f=4"), attacks=("sign-flip",), starts=(3,))
    cells, left_out = cells_of([grid, grid], SMALL)
    assert [(cell.rule, cell.attack) for cell in cells] == [("mean", "none"), ("mean", "sign-flip")]
    assert len(left_out) == 1
    assert "multi-krum" in left_out[0]


def test_every_round_is_told_and_a_setting_is_loaded_once(tmp_path: Path) -> None:
    """Also rounds before the attack, which are played once; another setting is another federation."""
    path, generator = tmp_path / "data.npz", np.random.default_rng(0)
    images = generator.integers(0, 256, (600, 8, 8), dtype=np.uint8)
    np.savez(path, x=images, y=np.arange(600) % 10)
    cell = replace(CELL, setting=replace(SMALL, dataset=str(path)))
    player, told = CurvePlayer(tmp_path, None), []
    player.play_telling(cell, lambda: told.append(cell))
    assert len(told) == SMALL.rounds == rounds_of(replace(cell, attack="none"))
    path.unlink()
    player.play_telling(replace(cell, attack="label-flip"), lambda: told.append(cell))
    assert len(told) == SMALL.rounds + rounds_of(cell)
    with pytest.raises(ConfigError):
        player.play_telling(replace(cell, setting=replace(cell.setting, seed=1)), lambda: None)


def test_worker_that_dies_costs_its_cell_only(tmp_path: Path) -> None:
    """In the middle of its rounds; a new process plays the next one."""
    cells = [replace(CELL, setting=replace(SMALL, rounds=100_000)), CELL]

    def kill(cell: Cell) -> None:
        for process in active_children() if cell == cells[0] else []:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)

    with Processes(1, CurvePlayer(tmp_path, None)) as crew:
        ended = list(crew.play(cells, kill))
    assert [event.cell for event in ended] == cells
    assert ended[0].outcome is None
    assert "-9" in ended[0].complaint
    assert ended[1].outcome is not None
