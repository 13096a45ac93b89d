"""What a row's status says: a truth table."""

import pytest
from leak_rows import PRIOR_DB, references, row

from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.verdict import Margins, Status, judged

MARGINS = Margins(psnr_db=1.0, ssim=0.1, tokens=0.05)


def status(clear_db: float | None, **changes: object) -> str:
    """Of one row at ratio 0.5, of an attacker that comes to so much in the clear."""
    rows = [row("magnitude", 0.5, PRIOR_DB, **changes)]
    if clear_db is not None:
        rows += references(clear_db=clear_db)
    return str(judged(rows, MARGINS)[0]["status"])


@pytest.mark.parametrize(
    ("clear_db", "changes", "expected"),
    [
        (50.0, {}, Status.RESISTED),
        (50.0, {"psnr_db": PRIOR_DB + 0.9}, Status.RESISTED),
        (50.0, {"psnr_db": PRIOR_DB + 1.1}, Status.LEAKED),
        (50.0, {"ssim": 0.29}, Status.RESISTED),
        (50.0, {"ssim": 0.31}, Status.LEAKED),
        # The attack fails in the clear too: that it fails here says nothing.
        (PRIOR_DB + 0.9, {}, Status.INCONCLUSIVE),
        # So it does if it hardly beats what is known: it has nothing to lose.
        (PRIOR_DB + 5.9, {}, Status.INCONCLUSIVE),
        (PRIOR_DB + 6.1, {}, Status.RESISTED),
        (None, {}, Status.INCONCLUSIVE),
        # What it does find is a leak all the same.
        (PRIOR_DB, {"psnr_db": 30.0}, Status.LEAKED),
        (50.0, {"ended": "diverged", "psnr_db": None, "ssim": None}, Status.DIVERGED),
        (50.0, {"ended": "unsuited", "psnr_db": None, "ssim": None}, Status.UNSUITED),
        # Another attacker's success in the clear, on another sample or under noise, is not this one's.
        (50.0, {"attacker": "other"}, Status.INCONCLUSIVE),
        (50.0, {"sample": 1}, Status.INCONCLUSIVE),
        (50.0, {"aware": False}, Status.RESISTED),
        (50.0, {"perturb": "noise"}, Status.RESISTED),
    ],
)
def test_a_row_says_what_follows_and_no_more(clear_db, changes, expected):
    assert status(clear_db, **changes) == expected


@pytest.mark.parametrize(
    ("clear_db", "expected"), [(50.0, Status.LEAKED), (PRIOR_DB + 0.5, Status.INCONCLUSIVE)]
)
def test_the_reference_in_the_clear_is_never_said_to_resist(clear_db, expected):
    clear, hidden = judged(references(clear_db=clear_db), MARGINS)
    assert (clear["status"], hidden["status"]) == (expected, Status.REFERENCE)


@pytest.mark.parametrize(
    ("clear", "expected"),
    [
        ({"ssim": 0.49}, Status.INCONCLUSIVE),
        ({"ssim": 0.51}, Status.RESISTED),
        ({"identified": True}, Status.RESISTED),
        ({"token_accuracy": 0.35, "mean_token_accuracy": 0.1}, Status.INCONCLUSIVE),
        ({"token_accuracy": 0.45, "mean_token_accuracy": 0.1}, Status.RESISTED),
        ({"bag_accuracy": 0.45, "mean_bag_accuracy": 0.1}, Status.RESISTED),
    ],
)
def test_an_attacker_is_able_by_any_figure_that_shows_what_the_sample_is(clear, expected):
    """Or by telling it from all candidates."""
    rows = [row(NONE, 0.0, PRIOR_DB, **clear), row(FULL, 1.0, 7.0), row("magnitude", 0.5, PRIOR_DB)]
    assert judged(rows, MARGINS)[-1]["status"] == expected


def test_a_sample_that_the_prior_tells_from_all_candidates_shows_nobody_s_ability():
    clear, hidden = references(clear_db=PRIOR_DB)
    rows = [clear | {"identified": True}, hidden | {"identified": True}, row("magnitude", 0.5, PRIOR_DB)]
    assert judged(rows, MARGINS)[-1]["status"] == Status.INCONCLUSIVE


def test_who_identifies_a_sample_in_the_clear_reads_it_there():
    clear, hidden = references(clear_db=PRIOR_DB)
    assert judged([clear | {"identified": True}, hidden], MARGINS)[0]["status"] == Status.LEAKED


def test_larger_margins_ask_for_as_much_of_who_is_to_be_able():
    """A leak in the clear is the least that an able attacker has to show."""
    rows = [*references(clear_db=PRIOR_DB + 7), row("magnitude", 0.5, PRIOR_DB)]
    assert judged(rows, Margins(psnr_db=8.0))[-1]["status"] == Status.INCONCLUSIVE


def test_an_attack_that_diverged_in_the_clear_makes_later_failures_inconclusive():
    clear, hidden = references()
    clear |= {"ended": "diverged", "psnr_db": None, "ssim": None}
    found = judged([clear, hidden, row("magnitude", 0.5, PRIOR_DB)], MARGINS)
    assert [item["status"] for item in found] == [Status.DIVERGED, Status.REFERENCE, Status.INCONCLUSIVE]


def test_success_under_noise_alone_is_no_proof_of_what_an_attacker_can_do():
    """Only ratio 0 without perturbation shows that an attack works."""
    clear = row(NONE, 0.0, 50.0, perturb="noise")
    found = judged([clear, row(FULL, 1.0, 7.0), row("magnitude", 0.5, PRIOR_DB)], MARGINS)
    assert found[-1]["status"] == Status.INCONCLUSIVE


def test_what_is_known_without_the_update_is_the_best_of_mean_image_and_priors():
    """An attacker's prior that beats the mean image raises the bar for all; a diverged one doesn't."""
    rows = [
        *references(),
        row(FULL, 1.0, 14.0, attacker="prior"),
        row(FULL, 1.0, 40.0, attacker="odd", ended="diverged"),
        row("magnitude", 0.5, 14.5),
    ]
    found = judged(rows, MARGINS)
    assert {item["prior_psnr_db"] for item in found} == {14.0} and found[-1]["status"] == Status.RESISTED


def test_text_is_judged_by_its_tokens():
    none = {"psnr_db": None, "ssim": None, "mean_psnr_db": None, "mean_ssim": None}
    clear = row(NONE, 0.0, None, **none | {"token_accuracy": 1.0})
    prior = row(FULL, 1.0, None, **none | {"token_accuracy": 0.1})
    for accuracy, expected in ((0.14, Status.RESISTED), (0.16, Status.LEAKED)):
        hidden = row("magnitude", 0.5, None, **none | {"token_accuracy": accuracy})
        assert judged([clear, prior, hidden], MARGINS)[-1]["status"] == expected
