"""Cells: their keys, their seeds, their store, and how long they may take."""

import json
import sqlite3
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from attacks.inversion.bench.cell import Cell, Setting, cell_of
from attacks.inversion.bench.clock import Clock
from attacks.inversion.bench.npy import bytes_of
from attacks.inversion.bench.store import RECONSTRUCTION, STORE_FILE, STORE_VERSION, Outcome, Store
from secagg.errors import Code, ConfigError

SETTING = Setting(dataset="digits", seed=3)
CELL = Cell(setting=SETTING, victim="lenet", significance="magnitude", ratio=0.1, update=2, attacker="gn")


def test_every_field_changes_the_key_and_the_same_cell_keeps_it():
    changed = [
        replace(CELL, victim="mlp"),
        replace(CELL, significance="random"),
        replace(CELL, ratio=0.2),
        replace(CELL, perturb="noise"),
        replace(CELL, update=1),
        replace(CELL, attacker="dlg"),
        replace(CELL, aware=False),
        replace(CELL, content="other weights"),
        replace(CELL, setting=replace(SETTING, seed=4)),
        replace(CELL, setting=replace(SETTING, effort=2.0)),
    ]
    assert len({CELL.key, *(cell.key for cell in changed)}) == 1 + len(changed)
    assert cell_of(json.loads(json.dumps(asdict(CELL)))) == CELL


def test_seeds_follow_from_the_cell_alone_and_all_attackers_see_one_update():
    aware, naive = CELL, replace(CELL, aware=False, attacker="dlg")
    assert aware.seed != naive.seed and aware.protection_seed == naive.protection_seed
    assert aware.seed == replace(CELL, setting=replace(SETTING, device="cuda")).seed
    assert 0 <= aware.seed < 2**63
    later = replace(CELL, setting=replace(SETTING, seed=4))
    assert later.seed != aware.seed and later.protection_seed != aware.protection_seed


def test_a_store_gives_back_what_ended_and_its_pictures(tmp_path):
    image = np.linspace(0, 1, 6, dtype=np.float16).reshape(1, 1, 2, 3)
    outcome = Outcome(rows=[{"psnr_db": 12.5, "ssim": None}], seconds=0.5, pictures={RECONSTRUCTION: image})
    with Store(tmp_path) as store:
        store.add(CELL, outcome)
        store.add(replace(CELL, update=3), replace(outcome, pictures={}))
    with Store(tmp_path) as store:
        assert store.keys() == {CELL.key, replace(CELL, update=3).key}
        ((cell, found),) = store.outcomes([replace(CELL, update=7), CELL])
        assert cell == CELL and found.rows == outcome.rows and found.seconds == 0.5
        picture = store.picture(CELL, RECONSTRUCTION)
        assert picture is not None and picture.dtype == np.float16
        np.testing.assert_array_equal(picture, image)
        assert store.picture(CELL, "original") is None


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path):
    (tmp_path / STORE_FILE).write_bytes(b"something else " * 100)
    with pytest.raises(ConfigError) as refused:
        Store(tmp_path)
    assert refused.value.code is Code.DATA_MALFORMED
    assert (tmp_path / STORE_FILE).read_bytes() == b"something else " * 100


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE cells SET rows = '[{'", "cell {key}"),
        ("UPDATE cells SET rows = '{}'", "cell {key}"),
        ("UPDATE cells SET rows = '[1]'", "cell {key}"),
        ("UPDATE cells SET rows = CAST(x'ff' AS TEXT)", "a table"),
        ("UPDATE cells SET seconds = 'long'", "cell {key}"),
        ("UPDATE cells SET cell = 'null'", "cell {key}"),
        ("UPDATE cells SET cell = '{\"setting\": 3}'", "cell {key}"),
        ("UPDATE pictures SET data = x'00'", "a picture of cell {key}"),
        ("UPDATE pictures SET data = substr(data, 1, 90)", "a picture of cell {key}"),
        (f"UPDATE pictures SET data = x'{bytes_of(np.array(['a'])).hex()}'", "a picture of cell {key}"),
        ("UPDATE costs SET row = '3'", "the cost of 'lenet 10'"),
        ("UPDATE costs SET row = ''", "the cost of 'lenet 10'"),
    ],
)
def test_what_is_damaged_is_named(tmp_path, damage, says):
    """The file, what is wrong in it, and the way out, whichever way it is read."""
    image = np.zeros((1, 1, 2, 3), dtype=np.float16)
    with Store(tmp_path) as store:
        store.add(CELL, Outcome(rows=[{"psnr_db": 1.0}], seconds=0.5, pictures={RECONSTRUCTION: image}))
        store.add_cost("lenet 10", {"seal_ms": 1.0})
        store.check()
    with sqlite3.connect(tmp_path / STORE_FILE) as database:
        assert database.execute(damage).rowcount == 1
    database.close()

    def read_all(store: Store) -> None:
        store.outcomes([CELL])
        store.picture(CELL, RECONSTRUCTION)
        store.cost("lenet 10")

    for read in (Store.check, read_all):
        with Store(tmp_path) as store, pytest.raises(ConfigError) as refused:
            read(store)
        assert refused.value.code is Code.DATA_MALFORMED
        line = refused.value.message
        assert line.startswith(f"{tmp_path / STORE_FILE}: {says.format(key=CELL.key)}") and "\n" not in line
        assert line.endswith("give another --out, or delete this folder")


def test_time_left_follows_what_cells_of_the_same_attacker_took():
    slow, fast = replace(CELL, attacker="slow"), replace(CELL, attacker="fast")
    clock = Clock([slow] * 4 + [fast] * 5, count=2)
    assert clock.left_s() is None
    clock.ended(fast, 1.0)
    assert clock.left_s() == pytest.approx((4 * 1 + 4 * 1) / 2)
    clock.ended(slow, 10.0)
    assert clock.left_s() == pytest.approx((3 * 10 + 4 * 1) / 2)
    clock.ended(slow, None)
    assert clock.left_s() == pytest.approx((2 * 10 + 4 * 1) / 2)


def test_a_store_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """What a later build wrote may mean something else; nothing of it is touched."""
    Store(tmp_path).__exit__()
    with sqlite3.connect(tmp_path / STORE_FILE) as database:
        database.execute(f"PRAGMA user_version = {STORE_VERSION + 1}")
    with pytest.raises(ConfigError, match="version"):
        Store(tmp_path)
    with sqlite3.connect(tmp_path / STORE_FILE) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (STORE_VERSION + 1,)
