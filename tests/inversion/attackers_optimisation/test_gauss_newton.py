"""Levenberg-Marquardt on what is visible: exact where equations suffice, on all kinds of observation."""

from dataclasses import replace

import pytest
import torch
from inversion_cases import digits, exposed, played, psnr_db, victim

from attacks.inversion.attackers import Budget, Status, load_attacker
from attacks.inversion.attackers.fitting import levenberg_marquardt as solver
from attacks.inversion.attackers.fitting.objective import Objective
from attacks.inversion.attackers.fitting.unknowns import Unknowns
from attacks.inversion.attackers.gauss_newton import SCALED, is_smooth
from attacks.inversion.training import Training

EXACT_DB = 200.0
"""A float64 fit to rounding: relative errors of 1e-10 are 200 dB, and rounding is 1e-16."""
FEDAVG = Training(epochs=2, steps=2, learning_rate=0.1)


def test_digit_is_recovered_to_rounding_when_nothing_is_hidden():
    """At ratio 0 a float64 gradient of one image determines it; 100 dB is asked for."""
    inputs, labels = digits([3])
    found = played("gauss-newton", exposed(victim(), inputs, labels, known=False))
    assert psnr_db(found.inputs, inputs) > EXACT_DB
    assert found.status is Status.DONE and found.labels.tolist() == labels.tolist()


def test_dense_relu_network_gives_its_digit_away():
    """Also where gradients jump with the input: the piece that the image lies in is found."""
    inputs, labels = digits([3])
    assert psnr_db(played("gauss-newton", exposed(victim("mlp"), inputs, labels)).inputs, inputs) > 100


def test_knowing_the_mask_is_worth_twenty_decibels():
    """10% hidden by magnitude: the other equations suffice; zeros in place of the hidden ones mislead."""
    inputs, labels = digits([3])
    exposure = exposed(victim(), inputs, labels, ratio=0.1)
    aware = psnr_db(played("gauss-newton", exposure).inputs, inputs)
    naive = psnr_db(played("gauss-newton", exposure.seen_by(aware=False)).inputs, inputs)
    assert aware > EXACT_DB and aware >= naive + 20


@pytest.mark.parametrize("factor", [0.9, 0.1])
def test_clipping_hides_nothing(factor):
    """One factor for all entries is one unknown more among hundreds of equations."""
    inputs, labels = digits([3])
    exposure = exposed(victim(), inputs, labels)
    found = played("gauss-newton", replace(exposure, visible=factor * exposure.visible))
    assert found.detail == SCALED and psnr_db(found.inputs, inputs) > EXACT_DB


def test_batch_of_two_is_recovered_sample_by_sample():
    """Labels known, B·d_x = 128 unknowns, thousands of equations; order follows labels."""
    inputs, labels = digits([3, 7])
    assert psnr_db(played("gauss-newton", exposed(victim(), inputs, labels)).inputs, inputs) > EXACT_DB


def test_local_training_is_undone_by_unrolling_it_and_not_as_one_gradient():
    """2 epochs x 2 steps: an attacker that replays them fits exactly; as one gradient nothing fits."""
    inputs, labels = digits([0, 1, 2, 3])
    exposure = exposed(victim(), inputs, labels, training=FEDAVG)
    unrolled = psnr_db(played("gauss-newton", exposure).inputs, inputs)
    as_one = psnr_db(played("gauss-newton", replace(exposure, training=Training())).inputs, inputs)
    assert unrolled > EXACT_DB and unrolled >= as_one + 20


def test_rounds_together_tell_what_none_tells_alone():
    """Each round shows 48 entries (one row of the last layer) for 64 pixels; three rounds show 144."""
    inputs, labels = digits([3])
    which = victim()
    bias = which.manifest.slice_of("linear.bias").start
    shown = torch.zeros(which.size, dtype=torch.bool)
    shown[bias - 480 : bias - 432] = True
    rounds = []
    for seed in range(3):
        exposure = exposed(which, inputs, labels, parameters=victim(seed=seed).parameters())
        rounds.append(replace(exposure, hidden=~shown, visible=torch.where(shown, exposure.visible, 0.0)))
    *earlier, last = rounds
    alone = psnr_db(played("gauss-newton", last, effort=0.4).inputs, inputs)
    both = psnr_db(played("gauss-newton", replace(last, earlier=tuple(earlier))).inputs, inputs)
    assert both > alone + 20


def test_matrix_free_steps_reach_what_exact_ones_reach(monkeypatch):
    """Beyond ``MOST_UNKNOWNS`` steps come from conjugate gradients; the fit is the same."""
    monkeypatch.setattr(solver, "MOST_UNKNOWNS", 10)
    inputs, labels = digits([3])
    found = played("gauss-newton", exposed(victim(), inputs, labels))
    assert psnr_db(found.inputs, inputs) > 100


def test_smooth_networks_are_told_from_those_with_jumps():
    """A Jacobian's error falls like h² for sigmoids, like h where ReLU patterns change on the way."""
    inputs, labels = digits([3])
    for name, smooth in (("lenet-sigmoid", True), ("lenet", False), ("mlp", False)):
        exposure = exposed(victim(name), inputs, labels)
        unknowns = Unknowns.of(exposure, labels)
        assert is_smooth(Objective(exposure, unknowns), unknowns.starts(0, 1)[0]) is smooth, name


def test_hinge_changes_nothing_when_nothing_is_hidden():
    """Without hidden entries the mask says nothing: same loss, same image."""
    inputs, labels = digits([3])
    exposure = exposed(victim(), inputs, labels)
    plain, hinged = (played(name, exposure) for name in ("gauss-newton", "gauss-newton:hinge=0.1"))
    assert torch.equal(plain.inputs, hinged.inputs) and plain.loss == hinged.loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_attack_that_can_not_start_is_recorded_as_diverged(value):
    """An entry that is no number: the status says so, and what is handed back is finite."""
    inputs, labels = digits([3])
    exposure = exposed(victim(), inputs, labels)
    broken = replace(exposure, visible=torch.full_like(exposure.visible, value))
    for name in ("gauss-newton", "dlg", "inverting-gradients"):
        found = load_attacker(name).attack(broken, seed=0, budget=Budget(effort=0.05))
        assert found.status is Status.DIVERGED and bool(found.inputs.isfinite().all()), name
