"""DLG, iDLG, inverting gradients, SME, prior-only: what they reach, how restarts and seeds count."""

from dataclasses import replace

import pytest
import torch
from inversion_cases import digits, exposed, played, psnr_db, victim

from attacks.inversion.attackers import ATTACKERS, Budget, load_attacker
from attacks.inversion.attackers.fitting.descent import descend
from attacks.inversion.attackers.fitting.lbfgs import minimise
from attacks.inversion.attackers.fitting.objective import Objective
from attacks.inversion.attackers.fitting.restarts import Clock, slopes_of
from attacks.inversion.attackers.fitting.unknowns import Unknowns
from attacks.inversion.training import Training
from secagg.errors import ConfigError

OWN = ("dlg", "idlg", "inverting-gradients", "gauss-newton", "sme", "prior-only")


def test_deep_leakage_finds_image_and_label_together():
    """DLG knows no label and reaches 100 dB at ratio 0 on the sigmoid network, as asked for."""
    inputs, labels = digits([3])
    found = played("dlg", exposed(victim(), inputs, labels, known=False))
    assert psnr_db(found.inputs, inputs) >= 100 and found.labels.tolist() == labels.tolist()


def test_improved_deep_leakage_reads_the_label_first():
    """Of one sample the last layer gives the label away, so the descent has it from its first iteration."""
    inputs, labels = digits([7])
    found = played("idlg", exposed(victim(), inputs, labels, known=False), effort=0.01)
    assert found.labels.tolist() == labels.tolist() and found.iterations <= 3


def test_inverting_gradients_beats_what_a_prior_alone_reaches():
    """On the dense ReLU network the angle between gradients shows the digit; the prior only shows grey."""
    inputs, labels = digits([3])
    exposure = exposed(victim("mlp"), inputs, labels)
    seeing, blind = (
        psnr_db(played(name, exposure, effort=0.7).inputs, inputs)
        for name in ("inverting-gradients", "prior-only")
    )
    assert seeing > blind + 10


def test_prior_only_reads_no_gradient():
    """Whatever is visible, it says the same."""
    inputs, labels = digits([3])
    exposure = exposed(victim("mlp"), inputs, labels)
    other = replace(exposure, visible=-3 * exposure.visible)
    assert torch.equal(played("prior-only", exposure).inputs, played("prior-only", other).inputs)


def test_surrogate_model_sees_more_of_local_training_than_one_gradient():
    """8 steps at a large rate: a point between both models explains the update better than θ_0 does."""
    inputs, labels = digits([3])
    exposure = exposed(victim("mlp"), inputs, labels, training=Training(epochs=8, learning_rate=0.3))
    surrogate = played("sme", exposure, effort=0.5)
    as_one = played("inverting-gradients", replace(exposure, training=Training()), effort=0.5)
    assert psnr_db(surrogate.inputs, inputs) > psnr_db(as_one.inputs, inputs) + 1
    assert surrogate.loss < as_one.loss / 2
    assert load_attacker("sme").unsuited(replace(exposure, training=Training()))


@pytest.mark.parametrize("name", ["dlg", "inverting-gradients", "gauss-newton", "prior-only"])
def test_same_seed_gives_the_same_reconstruction(name):
    """Bit by bit; and another seed another one."""
    inputs, labels = digits([3])
    exposure = exposed(victim("mlp"), inputs, labels)
    first, again, other = (played(name, exposure, seed=seed, effort=0.02) for seed in (5, 5, 6))
    assert torch.equal(first.inputs, again.inputs) and not torch.equal(first.inputs, other.inputs)


def _wells(point):
    """Two wells, at −1 and, deeper, at 2: which one is found depends on the start."""
    return ((point[0] + 1) ** 2 * (point[0] - 2) ** 2 - torch.sigmoid(20 * (point[0] - 1.0))) / 4 + 1


@pytest.mark.parametrize("engine", ["descent", "lbfgs"])
def test_of_many_restarts_the_one_with_the_least_loss_counts(engine):
    """Each restart keeps its own best; the deeper well wins, wherever it stands in the row."""
    starts = torch.tensor([[-1.5], [2.3], [-0.8]], dtype=torch.float64)
    slopes, clock = slopes_of(_wells, 1), Clock(Budget())
    if engine == "descent":
        outcome = descend(
            slopes, starts, iterations=200, rate=0.05, boxed=lambda rows: rows, clock=clock, signed=False
        )
    else:
        outcome = minimise(slopes, starts, iterations=50, clock=clock)
    assert outcome.best == 1 and abs(float(outcome.points[1, 0]) - 2) < 0.02
    assert abs(float(outcome.points[0, 0]) + 1) < 0.02 and abs(float(outcome.points[2, 0]) + 1) < 0.02


def test_restarts_together_are_the_same_as_alone():
    """vmap changes the speed only: the first restart of many starts where a single one does."""
    inputs, labels = digits([3])
    exposure = exposed(victim("mlp"), inputs, labels)
    one = played("inverting-gradients", exposure, effort=0.03)
    many = played("inverting-gradients", exposure, effort=0.03, restarts=4)
    assert many.loss <= one.loss * (1 + 1e-9)


def test_restart_that_turns_nan_stays_at_its_last_finite_iterate():
    """The others go on; its own loss is the last finite one."""

    def cliff(point):
        return torch.where(point[0] > 1, torch.nan, 100 - point[0])

    starts = torch.tensor([[0.9], [-5.0]], dtype=torch.float64)
    outcome = descend(
        slopes_of(cliff, 1), starts, iterations=10, rate=0.3, boxed=lambda rows: rows, clock=Clock(Budget())
    )
    assert outcome.diverged.tolist() == [True, False]
    assert bool(outcome.points.isfinite().all()) and float(outcome.points[0, 0]) <= 1


def test_mask_terms_say_nothing_when_nothing_is_hidden():
    """No hidden entry, no threshold: the same image bit by bit."""
    inputs, labels = digits([3])
    exposure = exposed(victim("mlp"), inputs, labels)
    plain = played("inverting-gradients", exposure, effort=0.02)
    for option in ("hinge", "likelihood"):
        penalised = played(f"inverting-gradients:{option}=0.5", exposure, effort=0.02)
        assert torch.equal(plain.inputs, penalised.inputs)


def test_mask_terms_are_broken_by_guesses_and_not_by_the_truth():
    """Hidden by magnitude: of the true image every hidden gradient is large enough; a grey guess's are not.

    Naive attackers don't know of the mask: they have no such terms.
    """
    inputs, labels = digits([3])
    exposure = exposed(victim(), inputs, labels, ratio=0.3)
    unknowns = Unknowns.of(exposure, labels)
    truth, guess = inputs.reshape(-1), torch.full_like(inputs, 0.5).reshape(-1)
    plain, hinged, likely = (
        Objective(exposure, unknowns, **terms) for terms in ({}, {"hinge": 1.0}, {"likelihood": 1.0})
    )
    assert float(hinged.squared(truth)) == float(plain.squared(truth)) < 1e-20
    assert float(hinged.squared(guess)) > float(plain.squared(guess)) + 1e-3
    assert float(hinged.residuals(guess).square().sum()) == pytest.approx(float(hinged.squared(guess)))
    extra = [float(likely.squared(point) - plain.squared(point)) for point in (truth, guess)]
    assert 0 < extra[0] < extra[1]
    naive = Objective(exposure.seen_by(aware=False), unknowns, hinge=1.0)
    assert len(naive.residuals(guess)) == exposure.victim.size


@pytest.mark.parametrize(
    "text",
    [
        "nobody",
        "dlg:rate=0.1",
        "dlg:hinge",
        "dlg:hinge=x",
        "dlg:hinge=-1",
        "dlg:iterations=2.5",
        "dlg:name=1",
    ],
)
def test_what_is_no_attacker_is_refused_by_name(text):
    """One clear line that holds what was asked for."""
    with pytest.raises(ConfigError) as raised:
        load_attacker(text)
    assert text.partition(":")[0] in str(raised.value)


def test_attackers_have_the_names_they_are_asked_for_by():
    """Options are part of it, so that a sweep's rows differ."""
    for name in OWN:
        assert name in ATTACKERS and load_attacker(name).name == name
    assert load_attacker("gauss-newton:hinge=0.1").name == "gauss-newton:hinge=0.1"
    assert load_attacker("inverting-gradients:tv=0.5,iterations=7").iterations == 7


def test_every_registered_attacker_exists():
    """Each entry of the table names a class that can be made without arguments."""
    for name in ATTACKERS:
        assert load_attacker(name).name == name
