"""How the benchmark judges what it measured; what it measures is no test's business."""

import pytest
from rich.console import Console

from benchmarks import alternating
from benchmarks.alternating import Seconds, alternate
from benchmarks.overhead import FIELDS, print_ratios, ratios
from benchmarks.requirements import (
    at_least,
    at_most,
    of_addition,
    of_bytes,
    of_gram,
    of_inner_product,
    of_memory,
    of_sealing,
    print_requirements,
)


def row(scheme, peer=None, *, up=900_136, times=1.0):
    fields = {**dict.fromkeys(FIELDS, times), "bytes_up": up, "bytes_down": 2 * up}
    return {"model": "cnn", "values": 225_034, "scheme": scheme, "peer": peer, **fields}


ROWS = [
    row("plain"),
    row("compact", up=861_955, times=2.0),
    row("compact-10", up=584_899),
    row("robust", up=1_693_123, times=4.0),
    row("tenseal", "tenseal 0.3.18", up=14_338_839, times=16.0),
]


def test_things_are_done_in_turn_after_a_round_that_does_not_count(monkeypatch):
    monkeypatch.setattr(alternating, "TURN_S", 0.0)
    done = []
    found = alternate(2, ours=lambda: done.append("ours"), theirs=lambda: done.append("theirs"))
    assert done == ["ours", "theirs"] * 3
    assert {name: len(seconds) for name, seconds in found.of.items()} == {"ours": 2, "theirs": 2}


def test_a_short_thing_fills_its_turn_and_counts_with_its_mean(monkeypatch):
    """One call alone would mostly show what ran before it."""
    monkeypatch.setattr(alternating, "TURN_S", 0.02)
    calls = []
    found = alternate(1, short=lambda: calls.append(None))
    assert len(calls) > 2
    assert 0 < found.of["short"][0] < 0.02


def test_a_ratio_is_of_the_same_round():
    """A machine that is slow for a round is so for both: the ratio doesn't notice."""
    found = Seconds(of={"theirs": [8.0, 80.0, 9.0], "ours": [1.0, 10.0, 1.0]})
    assert found.ratio("theirs", "ours") == 8.0
    assert found.median("theirs") == 9.0


def test_verdicts_include_the_limit():
    assert at_most(1.3, "", 1.3, peer="").ok and not at_most(1.3, "", 1.31, peer="").ok
    assert at_least(8, "", 8.0, peer="").ok and not at_least(8, "", 7.99, peer="").ok


def test_bytes_are_held_against_plain_float32_and_the_peers():
    found = list(of_bytes(ROWS))
    assert [round(item.measured, 2) for item in found] == [0.96, 0.65, 1.88, 1.92]
    assert all(item.ok and "tenseal 0.3.18 " in item.peer for item in found)
    assert "15.9 x" in found[0].peer and "31.9 x" in found[3].peer


def test_everything_asked_for_is_there_with_its_limit(capsys):
    names = ("tenseal", "compact", "robust", "compact_1", "compact_2", "robust_1", "robust_2", "seal",
             "seal_compact", "seal_robust", "ready", "released", "stored", "tenseal_stored",
             "ours")  # fmt: skip
    times = Seconds(of={name: [1.0] for name in names})
    wanted = [*of_bytes(ROWS), *of_sealing(times), *of_inner_product(times), *of_gram(times)]
    wanted += [*of_addition(times), *of_memory("gpt2", {"values": 9, "seal_over_vector_mib": 301}, [])]
    asked = [item.wanted for item in wanted if item.ok is not None]
    assert asked == ["≤ 1.02 x", "≤ 0.7 x", "≤ 3.2 x, aim 2.3", "≤ 2.05 x", "≥ 8 x", "≥ 4 x", "≥ 1.7 x",
                     "≥ 1.7 x", "≥ 80 x", "≤ 1 s", "≤ 1.3 x", "≤ 300 MiB"]  # fmt: skip
    print_requirements(wanted, Console(width=150))
    shown = capsys.readouterr().out
    assert shown.count("SHORT") == 6 and shown.count(" ok ") == 6


def test_a_smaller_vector_than_asked_for_is_said_so():
    (item,) = of_memory("resnet18", {"values": 11_699_112, "seal_over_vector_mib": 100}, [])
    assert "sealing 11,699,112 values (not gpt2's 124M)" in item.what and item.ok


def test_ratios_are_peers_over_ours_and_ours_over_plain(capsys):
    found = {(item["of"], item["to"]): item for item in ratios(ROWS)}
    assert found["compact", "plain"]["seal_s"] == 2.0
    assert found["tenseal 0.3.18", "robust"]["seal_s"] == 4.0
    assert found["tenseal 0.3.18", "compact"]["bytes_up"] == pytest.approx(16.64, abs=0.01)
    print_ratios(ratios(ROWS), Console(width=120))
    assert capsys.readouterr().out.count("tenseal 0.3.18") == 2
