"""Labels and identities that an update gives away: what a row says, and when it is more than luck."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from leak_rows import PRIOR_DB, of_client, references, row

from attacks.inversion.attackers.labels import labels_from_last_layer
from attacks.inversion.batch import Batch
from attacks.inversion.bench.advice import Finding, advise
from attacks.inversion.bench.cell import FULL
from attacks.inversion.bench.chance import beyond_chance, blind_share
from attacks.inversion.bench.config import Knowledge, SweepConfig
from attacks.inversion.bench.labels import LABEL_FIELDS, label_figures
from attacks.inversion.bench.rows import rows_of
from attacks.inversion.bench.sweep import Sweep
from attacks.inversion.bench.told import labels_counted, labels_told
from attacks.inversion.bench.verdict import Margins, judged
from attacks.inversion.exposure import Exposure
from attacks.inversion.training import Training
from attacks.inversion.victims import load_victim

MARGINS = Margins()
EIGHT = range(8)


def advice(*, clear=(), whole=(), hidden=(), ratio=0.1, labels=()):
    """Of magnitude at one ratio, over eight samples.

    Args:
        clear, whole, hidden: numbers of samples that are identified in the clear, hidden whole, and between.
        labels: per field of a label the number of samples of which it is true; of others it is false.
    """
    rows = []
    for sample in EIGHT:
        clear_row, whole_row = references(sample)
        told = {field: sample < count for field, count in dict(labels).items()}
        rows += [clear_row | {"identified": sample in clear}, whole_row | {"identified": sample in whole}]
        rows.append(row("magnitude", ratio, PRIOR_DB, sample=sample, identified=sample in hidden, **told))
    (found,) = advise(judged(rows, MARGINS), MARGINS)
    return found


def test_a_tail_of_the_binomial_is_what_it_is_counted_to_be():
    """Every outcome of four coins with p = 0.3, one by one."""
    for hits in range(5):
        tail = sum(
            0.3 ** sum(coins) * 0.7 ** (4 - sum(coins))
            for coins in product((0, 1), repeat=4)
            if sum(coins) >= hits
        )
        assert beyond_chance(hits, 4, 0.3, level=tail * 1.001) is (hits > 0)
        assert beyond_chance(hits, 4, 0.3, level=tail * 0.999) is False


def test_a_blind_guess_at_a_batch_is_the_best_that_frequencies_allow():
    """All guesses at three labels of three classes, against all batches."""
    shares = [0.5, 0.3, 0.2]
    batches = list(product(range(3), repeat=3))

    def named(guess):
        return sum(
            torch.tensor([shares[label] for label in batch]).prod().item()
            * sum(min(batch.count(label), guess.count(label)) for label in range(3))
            for batch in batches
        )

    assert blind_share(shares, 3) == pytest.approx(max(map(named, batches)) / 3, abs=1e-6)
    assert blind_share([0.7, 0.3], 1) == pytest.approx(0.7)
    assert blind_share([0.1] * 10, 1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("whole", "hidden", "finding"),
    [
        # One of eight among a hundred candidates has a probability of 8%; two have 0.3%.
        ((), (0,), Finding.HOLDS),
        ((), (0, 1), Finding.LEAKS),
        # Where a quarter is told with everything hidden, four of eight are luck (11%), seven are not.
        ((0, 1), (0, 1, 2, 3), Finding.HOLDS),
        ((0, 1), tuple(range(7)), Finding.LEAKS),
        (tuple(EIGHT), tuple(EIGHT), Finding.HOLDS),
    ],
)
def test_samples_are_identified_if_luck_and_the_prior_do_not_explain_as_many(whole, hidden, finding):
    found = advice(clear=tuple(EIGHT), whole=whole, hidden=hidden)
    assert found.finding is finding
    assert (f"tells {len(hidden)} of 8 samples from the candidates" in found.text) == (
        finding is Finding.LEAKS
    )


def test_fewer_candidates_make_identification_more_of_a_luck():
    rows = [item for sample in EIGHT for item in references(sample)]
    rows += [
        row("magnitude", 0.1, PRIOR_DB, sample=sample, identified=sample < 2, candidates=4)
        for sample in EIGHT
    ]
    (found,) = advise(judged(rows, MARGINS), MARGINS)
    assert found.finding is Finding.HOLDS


@pytest.mark.parametrize(
    ("labels", "clause"),
    [
        ({"label_from_mask": 8}, "labels are told for 8 of 8 samples by which entries are hidden"),
        ({"label_from_mask": 4}, "labels are told for 4 of 8 samples by which entries are hidden"),
        # Three of eight with one class in ten: 3.8%.
        ({"label_from_mask": 3}, ""),
        (
            {"label_from_update": 7, "label_from_mask": 1},
            "labels are told for 7 of 8 samples by what is visible",
        ),
        (
            {"label_from_mask": 8, "label_from_update": 8, "label_correct": 8},
            "labels are told for 8 of 8 samples by which entries are hidden and by what is visible",
        ),
        ({"label_correct": 8, "label_from_mask": 5}, "labels are told for 8 of 8 samples by gn"),
        ({}, ""),
    ],
)
def test_a_ratio_that_holds_for_samples_says_that_labels_are_told(labels, clause):
    """Labels decide nothing about what the samples look like, but whoever reads the advice must know."""
    found = advice(labels=labels)
    assert (found.ratio, found.finding, found.labels) == (0.1, Finding.HOLDS, clause)
    assert found.text.endswith(f"; {clause}" if clause else "within 1 dB")


def test_the_most_frequent_label_is_no_discovery():
    """Eight of eight where three quarters have it: 10%."""
    rows = [item for sample in EIGHT for item in references(sample)]
    told = {"label_from_mask": True, "label_chance": 0.75}
    rows += [row("magnitude", 0.1, PRIOR_DB, sample=sample, **told) for sample in EIGHT]
    (found,) = advise(judged(rows, MARGINS), MARGINS)
    assert not found.labels


def test_labels_that_are_told_above_the_advised_ratio_are_said_too():
    rows = [item for sample in EIGHT for item in references(sample)]
    for ratio, told in ((0.1, False), (0.5, True)):
        rows += [row("magnitude", ratio, PRIOR_DB, sample=sample, label_from_mask=told) for sample in EIGHT]
    (found,) = advise(judged(rows, MARGINS), MARGINS)
    assert found.ratio == 0.1 and found.labels.endswith("by which entries are hidden at 0.5")


def run_labels(*told, places=3, chance=0.1):
    """What advice says of a run's labels.

    Args:
        told: per round of how many of a client's samples the mask tells the label.
        places: samples of the client.
    """
    rows = [
        one
        for played, count in enumerate(told)
        for place in range(places)
        for one in of_client(
            "a", place, played + 1, played * places, label_from_mask=place < count, label_chance=chance
        )
    ]
    (found,) = advise(judged(rows, MARGINS), MARGINS)
    return found.labels


def test_rounds_of_one_sample_are_no_trials_of_their_own():
    """What tells a label in one round does in the next: six rounds say no more than one."""
    assert run_labels(1) == ""
    assert run_labels(*[1] * 6) == ""
    # Two of three have a probability of 2.8%, and would have one of 10⁻⁶ if they were twelve of eighteen.
    assert run_labels(*[2] * 6) == ""
    assert run_labels(*[3] * 6) == "labels are told for 3 of 3 samples by which entries are hidden"


def test_a_round_that_tells_labels_is_enough():
    """Whatever later ones do."""
    assert run_labels(3, 0, 0) == "labels are told for 3 of 3 samples by which entries are hidden"


def test_luck_in_one_of_many_rounds_explains_no_less():
    """Two of two at one in twelve: 0.7%. In one of two rounds, luck does as much twice as often."""
    assert run_labels(2, places=2, chance=1 / 12)
    assert not run_labels(2, 0, places=2, chance=1 / 12)


def test_a_round_with_some_of_the_samples_is_said_to_be_one():
    """Client b was not in round 1."""
    played = [("a", 1), ("a", 2), ("b", 2)]
    rows = [
        one
        for at, (client, number) in enumerate(played)
        for place in range(3)
        for one in of_client(client, place, number, 3 * at, label_from_mask=number == 1)
    ]
    (found,) = advise(judged(rows, MARGINS), MARGINS)
    assert found.labels == "labels are told for 3 of 3 samples of one round by which entries are hidden"


def test_identities_are_tested_round_by_round_as_well():
    def found(*told):
        rows = [
            one
            for played, count in enumerate(told)
            for place in range(4)
            for one in of_client("a", place, played, 4 * played, identified=place < count)
        ]
        (found,) = advise(judged(rows, MARGINS), MARGINS)
        return found

    assert found(1, 1, 1, 1).finding is Finding.HOLDS
    assert "gn, knowing the mask, tells 2 of 4 samples from the candidates" in found(2).text


def test_a_table_counts_labels_by_the_attack_and_by_the_mask():
    def counted(**changes):
        return labels_counted([row("magnitude", 0.1, 9.0, sample=sample, **changes) for sample in EIGHT])

    both = {"label_from_mask": True, "label_from_update": False}
    assert counted() == ""
    assert counted(**both) == "0/8 / 8/8"
    assert counted(**both, label_correct=True) == "8/8 / 8/8"
    assert counted(label_from_update=True) == "8/8 / –"
    # A sample whose label is told in one round of two counts once.
    two = [of_client("a", 0, played, played, label_from_mask=played == 2)[-1] for played in (1, 2)]
    assert labels_counted(two) == "– / 1/1"
    # The mask tells nothing to those who don't know it.
    assert counted(**both, label_correct=True, aware=False) == "8/8"


CLASSES = 10


def exposed(labels, hide):
    """One gradient of an MLP on random images; ``hide`` takes it, as named tensors, to named masks."""
    victim = load_victim("mlp", shape=(1, 8, 8), classes=CLASSES, seed=0)
    inputs = torch.rand(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = Batch(inputs=inputs, labels=torch.tensor(labels))
    parameters = victim.parameters()
    update = Training().update(victim, parameters, batch).detach()
    hidden = hide(victim, update)
    exposure = Exposure(
        victim=victim,
        parameters=parameters,
        training=Training(),
        batch_size=len(labels),
        visible=torch.where(hidden, 0.0, update),
        hidden=hidden,
        # A naive attacker that is given wrong labels: what is told depends on neither.
        aware=False,
        labels=torch.zeros(len(labels), dtype=torch.int64),
    )
    return exposure, batch


def nothing(_victim, update):
    return torch.zeros_like(update, dtype=torch.bool)


def everything(_victim, update):
    return torch.ones_like(update, dtype=torch.bool)


def largest(_victim, update):
    """The 5% of largest magnitude."""
    return update.abs() > update.abs().quantile(0.95)


def column(name, labels, hide):
    exposure, batch = exposed(labels, hide)
    return [figures[name] for figures in label_figures(exposure, batch)]


@pytest.mark.parametrize("label", [0, 3, 9])
def test_a_single_label_follows_from_the_update_and_from_the_mask(label):
    assert column("label_from_update", [label], nothing) == [True]
    assert column("label_from_update", [label], largest) == [True]
    assert column("label_from_mask", [label], largest) == [True]


def nine_tenths(_victim, update):
    """At random: too much for whoever takes hidden entries for zeros."""
    return torch.rand(update.shape, generator=torch.Generator().manual_seed(5)) < 0.9


def test_what_an_update_tells_it_tells_to_whoever_knows_the_mask():
    """Whether or not the row's attacker does."""
    exposure, batch = exposed([7], nine_tenths)
    naive = labels_from_last_layer(replace(exposure, labels=None, aware=False))
    assert naive.tolist() != batch.labels.tolist()
    assert column("label_from_update", [7], nine_tenths) == [True]


def test_nothing_follows_from_what_is_not_there():
    """No mask, or nothing beside it; and no layer that gives the logits."""
    assert column("label_from_mask", [3], nothing) == [None]
    assert column("label_from_mask", [3], everything) == [None]
    assert column("label_from_update", [3], everything) == [None]


def test_a_network_without_a_linear_layer_for_its_logits_leaves_labels_open(monkeypatch):
    def refuses(_exposure):
        raise ValueError("no linear layer gives the logits")

    for name in ("labels_from_mask", "labels_from_last_layer"):
        monkeypatch.setattr(f"attacks.inversion.bench.labels.{name}", refuses)
    exposure, batch = exposed([3], largest)
    assert label_figures(exposure, batch) == [dict(zip(LABEL_FIELDS, (None, None, 0.1), strict=True))]


def test_labels_of_a_batch_are_compared_as_a_multiset(monkeypatch):
    """Of two samples of a class that is named once, one is told."""
    monkeypatch.setattr(
        "attacks.inversion.bench.labels.labels_from_last_layer", lambda _: torch.tensor([1, 3, 3, 4])
    )
    assert column("label_from_update", [3, 1, 1, 4], nothing) == [True, True, False, True]


def test_chance_knows_how_frequent_labels_are():
    exposure, batch = exposed([3], nothing)
    (figures,) = label_figures(exposure, batch, torch.tensor([3, 3, 3, 1]))
    assert figures["label_chance"] == 0.75
    (figures,) = label_figures(exposure, batch)
    assert figures["label_chance"] == 1 / CLASSES


def test_rows_of_a_sweep_say_whether_labels_are_told():
    """Of both kinds of attackers; a mask by the client's own magnitude gives its label away."""
    config = SweepConfig(
        victim=("mlp",),
        dataset="digits",
        significance=("magnitude@own",),
        ratio=(0.05,),
        attacker=("analytic",),
        samples=1,
    )
    sweep = Sweep.planned(config)
    cells = [cell for cell in sweep.cells if cell.significance != FULL]
    found = rows_of([(cell, sweep.stage.play(cell)) for cell in cells], Knowledge.BOTH)
    assert {one["aware"] for one in found if one["ratio"]} == {True, False}
    for one in found:
        assert one["label_from_mask"] is (True if one["ratio"] else None)
        assert one["label_from_update"] in (True, False) and 0.1 <= one["label_chance"] < 0.2


@pytest.mark.parametrize("attackers", [1, 2])
def test_more_attackers_have_no_more_luck_together(attackers):
    """Two of two labels at 0.09 each have 0.0081: below a verdict's 1%, above its half."""
    rows = [
        row(
            "magnitude",
            0.1,
            PRIOR_DB,
            sample=sample,
            attacker=name,
            label_correct=name == "gn",
            label_chance=0.09,
        )
        for sample in (0, 1)
        for name in ("gn", "dlg")[:attackers]
    ]
    assert bool(labels_told(rows, MARGINS)) is (attackers == 1)
