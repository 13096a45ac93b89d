"""The advice: a truth table over rows."""

import pytest
from leak_rows import PRIOR_DB, of_client, references, row

from attacks.inversion.bench.advice import Finding, advise
from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.verdict import Margins, judged

MARGINS = Margins()
LEAKS = {"psnr_db": 30.0}
HOLDS: dict[str, object] = {}
DIVERGES = {"ended": "diverged", "psnr_db": None, "ssim": None}
INFORMS = {"psnr_pred_db": PRIOR_DB + 1.1}
UNMEASURED = {"psnr_pred_db": None}


def advice(*ratios, clear_db=50.0, more=()):
    """Of magnitude, sample 0; a ratio's changes per argument, at 0.1, 0.2, …."""
    rows = references(clear_db=clear_db) + list(more)
    rows += [row("magnitude", (n + 1) / 10, PRIOR_DB, **changes) for n, changes in enumerate(ratios)]
    (found,) = advise(judged(rows, MARGINS), MARGINS)
    return found


@pytest.mark.parametrize(
    ("ratios", "ratio", "finding"),
    [
        ([HOLDS], 0.1, Finding.HOLDS),
        ([LEAKS, HOLDS], 0.2, Finding.HOLDS),
        ([LEAKS, HOLDS, HOLDS], 0.2, Finding.HOLDS),
        # A ratio that held by luck, below one that leaks, is no advice.
        ([HOLDS, LEAKS, HOLDS], 0.3, Finding.HOLDS),
        ([HOLDS, LEAKS], None, Finding.LEAKS),
        ([LEAKS], None, Finding.LEAKS),
        ([HOLDS, INFORMS], None, Finding.INFORMATION),
        ([INFORMS, HOLDS], 0.2, Finding.HOLDS),
        ([UNMEASURED], None, Finding.INCONCLUSIVE),
        ([DIVERGES], None, Finding.INCONCLUSIVE),
        ([DIVERGES, HOLDS], 0.2, Finding.HOLDS),
        ([HOLDS, DIVERGES], None, Finding.INCONCLUSIVE),
        # What shows only in the shapes counts as well.
        ([{"ssim": 0.31}], None, Finding.LEAKS),
        # One of a hundred candidates, once: with a probability of 1% it is luck.
        ([{"identified": True}], 0.1, Finding.HOLDS),
    ],
)
def test_advice_is_the_smallest_ratio_from_which_on_nothing_is_found(ratios, ratio, finding):
    found = advice(*ratios)
    assert (found.ratio, found.finding) == (ratio, finding)
    assert found.text.startswith("none: use full" if ratio is None else f"{ratio:g}:")
    assert "safe" not in found.text


def test_an_attack_that_fails_in_the_clear_never_supports_a_ratio():
    found = advice(HOLDS, HOLDS, clear_db=PRIOR_DB)
    assert found.ratio is None and found.finding is Finding.INCONCLUSIVE
    assert found.text.startswith("none: use full; inconclusive") and "safe" not in found.text


def test_one_sample_that_leaks_is_enough():
    """The worst sample decides, not the median."""
    more = [item for sample in range(1, 9) for item in references(sample)]
    more += [row("magnitude", 0.1, PRIOR_DB, sample=sample) for sample in range(1, 8)]
    more.append(row("magnitude", 0.1, 30.0, sample=8))
    found = advice(HOLDS, more=more)
    assert found.ratio is None and "1 of 9 samples" in found.text
    (judgement,) = (item for item in found.judgements if item.ratio == 0.1)
    assert (judgement.median_psnr_db, judgement.worst_psnr_db) == (PRIOR_DB, 30.0)


def test_every_sample_needs_an_attacker_that_can_read_it():
    """A sample nobody tried at this ratio, or nobody can read in the clear, leaves the advice open."""
    more = [*references(1), row("magnitude", 0.1, PRIOR_DB, sample=1)]
    untried = advice(HOLDS, HOLDS, more=more)
    assert untried.ratio is None and "1 of 2 samples" in untried.text
    assert [one.finding for one in untried.judgements] == [Finding.HOLDS, Finding.INCONCLUSIVE]
    unread = advice(HOLDS, more=[*references(1, clear_db=PRIOR_DB), row("magnitude", 0.1, 9.0, sample=1)])
    assert unread.ratio is None and unread.finding is Finding.INCONCLUSIVE


def test_samples_count_that_were_attacked_under_the_protection():
    """Of a recorded run some rounds are hidden whole: what nobody could attack decides nothing."""
    hidden_whole = [row(NONE, 0.0, 50.0, sample=1), row(FULL, 1.0, PRIOR_DB, sample=1)]
    other = [*references(2), row("random", 0.3, PRIOR_DB, sample=2)]
    rows = [*references(), row("magnitude", 0.1, PRIOR_DB), *hidden_whole, *other]
    found = {one.significance: one.ratio for one in advise(judged(rows, MARGINS), MARGINS)}
    assert found == {"magnitude": 0.1, "random": 0.3}


def test_who_gains_little_in_the_clear_supports_no_ratio():
    """3 dB beat the margin and are a leak, but whoever fails after that has hardly lost anything."""
    assert advice(HOLDS, clear_db=PRIOR_DB + 3).finding is Finding.INCONCLUSIVE
    assert advice(HOLDS, clear_db=PRIOR_DB + 6.1).ratio == 0.1


def test_a_weak_attacker_neither_spoils_nor_supports_the_advice():
    """One that fails in the clear is left out of account where another one works."""
    weak = [*references(clear_db=PRIOR_DB, attacker="weak"), row("magnitude", 0.1, 9.0, attacker="weak")]
    assert advice(HOLDS, more=weak).ratio == 0.1
    assert advice(DIVERGES, more=weak).ratio is None


def test_naive_attackers_decide_nothing():
    """An attacker that doesn't know the mask: that it fails is no comfort."""
    assert advice({"aware": False}).ratio is None
    naive = [row("magnitude", 0.1, 9.0, aware=False)]
    assert advice(LEAKS, more=naive).ratio is None
    assert advice(HOLDS, more=naive).ratio == 0.1


def test_an_attack_that_can_not_begin_leaves_the_others_to_decide():
    unsuited = row("magnitude", 0.1, None, attacker="analytic", ended="unsuited", ssim=None)
    assert advice(HOLDS, more=[*references(attacker="analytic"), unsuited]).ratio == 0.1


def test_each_victim_significance_and_perturbation_has_its_own_advice():
    rows = references()
    rows += [row("magnitude", 0.1, PRIOR_DB), row("random", 0.1, 30.0)]
    rows += [row("random", 0.1, PRIOR_DB, perturb="noise")]
    rows += [item | {"victim": "mlp"} for item in (*references(), row("magnitude", 0.1, 30.0))]
    found = {
        (item.victim, item.significance, item.perturb): item.ratio
        for item in advise(judged(rows, MARGINS), MARGINS)
    }
    assert found == {
        ("lenet", "magnitude", ""): 0.1,
        ("lenet", "random", ""): None,
        ("lenet", "random", "noise"): 0.1,
        ("mlp", "magnitude", ""): None,
    }


def test_a_larger_margin_asks_for_less():
    rows = [*references(), row("magnitude", 0.1, PRIOR_DB + 2)]
    for db, ratio in ((1.0, None), (3.0, 0.1)):
        margins = Margins(psnr_db=db)
        (found,) = advise(judged(rows, margins), margins)
        assert found.ratio == ratio


TEXT = {"psnr_db": None, "ssim": None, "mean_psnr_db": None, "mean_ssim": None, "psnr_pred_db": None}


def text_advice(**changes):
    """Of a sentence of which two of sixteen words are known anyway, in place or not."""
    usual = TEXT | {"mean_token_accuracy": 2 / 16, "mean_bag_accuracy": 2 / 16}
    nothing = {"token_accuracy": 0.0, "bag_accuracy": 0.0}
    rows = [
        row(NONE, 0.0, None, **usual | {"token_accuracy": 1.0, "bag_accuracy": 1.0}),
        row(FULL, 1.0, None, **usual | nothing),
        row("magnitude", 0.5, None, **usual | nothing | changes),
    ]
    (found,) = advise(judged(rows, MARGINS), MARGINS)
    return found


def test_no_ratio_holds_for_text_as_nothing_measures_what_it_tells():
    """That attackers fail is all there is, and it is said from where on they do."""
    found = text_advice(token_accuracy=2 / 16)
    assert (found.ratio, found.finding) == (None, Finding.INCONCLUSIVE)
    assert found.text == (
        "none: use full; no attacker reads anything from 0.5 on, but there is no measure of information for "
        "tokens"
    )
    assert found.judgements[-1].unmeasured


def test_images_without_a_measure_are_inconclusive_from_where_attackers_fail():
    found = advice(LEAKS, UNMEASURED, UNMEASURED)
    assert found.text.startswith("none: use full; no attacker reads anything from 0.2 on, but there is no")
    assert not advice(UNMEASURED, DIVERGES).text.startswith("none: use full; no attacker")


def test_words_without_their_order_are_a_leak():
    """What embedding rows give away once the mask hides every entry that isn't zero."""
    found = text_advice(bag_accuracy=9 / 16)
    assert (found.ratio, found.finding) == (None, Finding.LEAKS)
    assert "56% of the worst one's words, in any order (known without the update: 12%)" in found.text


def test_what_shows_in_the_shapes_alone_is_said_in_ssim():
    """PSNR would be below what is known, and contradict the finding."""
    found = advice({"ssim": 0.5, "psnr_db": PRIOR_DB - 2})
    assert "reads 1 of 1 samples, the worst at 0.50 of SSIM (known without the update: 0.20)" in found.text
    assert "the worst at 30.0 dB (known without the update: 10.0 dB)" in advice(LEAKS).text


def test_the_count_is_all_attackers_and_the_worst_is_the_table_s():
    """No attacker is said to read what another one read; the largest PSNR is named, whatever it gained."""
    more = [item for sample in (1, 2) for item in references(sample)]
    more += [item | {"mean_psnr_db": 25.0} for item in references(3)]
    more += [row("magnitude", 0.1, 34.0, sample=1, attacker="other"), row("magnitude", 0.1, 9.0, sample=2)]
    # It gains less over what is known of its sample than 34 dB do.
    more.append(row("magnitude", 0.1, 36.0, sample=3, attacker="third", mean_psnr_db=25.0))
    assert (
        "at 0.1, the largest ratio tried, attackers that know the mask read 3 of 4 samples, the worst by "
        "third at 36.0 dB (known without the update: 25.0 dB)"
    ) in advice(LEAKS, more=more).text


def test_one_attacker_that_reads_alone_is_named_with_its_count():
    more = [*references(1), row("magnitude", 0.1, 20.0, sample=1), row("magnitude", 0.1, 9.0, attacker="bad")]
    assert "gn, knowing the mask, reads 2 of 2 samples, the worst at 30.0 dB" in advice(LEAKS, more=more).text


def test_the_worst_is_the_worst_of_what_leaked():
    """A sample that is known by 40 dB anyway is none that was read."""
    more = [item | {"mean_psnr_db": 40.0} for item in references(1)]
    more.append(row("magnitude", 0.1, 40.5, sample=1, mean_psnr_db=40.0))
    assert "reads 1 of 2 samples, the worst at 30.0 dB" in advice(LEAKS, more=more).text


def test_who_diverged_is_said_with_its_own_count():
    more = [*references(1), row("magnitude", 0.1, None, sample=1, attacker="other", ended="diverged")]
    assert "other diverged on 1 of 2 samples" in advice(DIVERGES, more=more).text


def run_advice(*rows):
    """Of a recorded run."""
    (found,) = advise(judged([one for group in rows for one in group], MARGINS), MARGINS)
    return found


def test_a_sample_of_a_run_counts_once_however_many_rounds_it_is_in():
    """It is read if it is read in any of them; another client's first sample is another one."""
    found = run_advice(
        of_client("a", 0, 1, 0, psnr_db=20.0),
        of_client("a", 1, 1, 0),
        of_client("b", 0, 1, 2),
        of_client("a", 0, 2, 3, **LEAKS),
        of_client("a", 1, 2, 3),
        of_client("b", 0, 2, 5),
    )
    assert "reads 1 of 3 samples" in found.text
    (judgement,) = found.judgements
    assert (judgement.median_psnr_db, judgement.worst_psnr_db) == (PRIOR_DB, 30.0)


def test_a_sample_of_a_run_resists_if_it_does_in_every_round():
    """That nobody able was tried in one leaves the advice open, by one sample."""
    rounds = [of_client("a", at, played, 2 * played) for at in (0, 1) for played in (1, 2)]
    assert run_advice(*rounds).finding is Finding.HOLDS
    unread = of_client("a", 0, 3, 6)
    unread[0]["psnr_db"] = PRIOR_DB
    found = run_advice(*rounds, unread)
    assert found.finding is Finding.INCONCLUSIVE and "was tried on 1 of 2 samples" in found.text


def test_an_attacker_that_cannot_begin_on_text_decides_nothing():
    """As the span check where no visible entry differs from zero."""
    found = text_advice(ended="unsuited", token_accuracy=None, bag_accuracy=None)
    assert (found.ratio, found.finding) == (None, Finding.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("share", "really"), [(0.1, ""), (0.109, ""), (0.46, "46%"), (None, ""), (0.05, "5%")]
)
def test_what_is_really_hidden_is_said_where_it_is_not_what_was_asked(share, really):
    """Whole layers are hidden: 10% asked may be half of the update, or less than was asked."""
    found = advice({"hidden_share": share})
    assert found.really == really == found.judgements[0].really
    assert found.text.startswith(f"0.1 asked, {really} hidden: " if really else "0.1: ")
    leaking = advice(LEAKS | {"hidden_share": share})
    assert leaking.text.startswith(
        f"none: use full; at 0.1 ({really} hidden)," if really else "none: use full"
    )
    assert ("hidden)" in leaking.text) == bool(really)


def test_shares_that_differ_from_sample_to_sample_are_a_range():
    more = [*references(1), row("magnitude", 0.1, PRIOR_DB, sample=1, hidden_share=0.2)]
    assert advice({"hidden_share": 0.46}, more=more).really == "20% to 46%"


@pytest.mark.parametrize(
    ("changes", "ratio", "finding"),
    [
        ({}, 0.0, Finding.HOLDS),
        ({"psnr_db": 30.0}, None, Finding.LEAKS),
        ({"psnr_pred_db": PRIOR_DB + 1.1}, None, Finding.INFORMATION),
        ({"ended": "diverged", "psnr_db": None}, None, Finding.INCONCLUSIVE),
    ],
)
def test_a_perturbation_without_encryption_has_its_own_advice(changes, ratio, finding):
    rows = [*references(), row(NONE, 0.0, PRIOR_DB, perturb="noise:0.1", **changes)]
    (found,) = advise(judged(rows, MARGINS), MARGINS)
    assert (found.significance, found.perturb) == (NONE, "noise:0.1")
    assert (found.ratio, found.finding) == (ratio, finding)
    start = "0: under noise:0.1 alone" if ratio == 0 else "none: use full"
    assert found.text.startswith(start) and "noise:0.1" in found.text
    assert found.flat()["ratio"] == ratio
