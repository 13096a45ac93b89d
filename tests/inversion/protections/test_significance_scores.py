"""Scores are what their formulas say, by brute force."""

import math

import torch
from protection_cases import CLASSES, FEATURES, TRAINING, evidence, samples, tiny, victim_of
from torch import nn

from attacks.inversion.protections.scores import (
    estimated_sensitivity,
    exact_sensitivity,
    magnitude,
    maskcrypt,
    product,
    sensitivity,
    weighted,
)


def test_sensitivity_is_the_mixed_derivative_in_weights_and_labels() -> None:
    """Mixed central differences of the loss itself, which is linear in labels, so that only the weights' step
    h counts: an error of h² ~ 1e-10 times third derivatives, and rounding of 1e-16/h ~ 1e-11."""
    victim, batch, h = tiny(), samples(1), 1e-5
    parameters, expected = victim.parameters(), torch.zeros(victim.size, dtype=torch.float64)
    for index in range(len(batch)):
        inputs = batch.inputs[index : index + 1]
        label = nn.functional.one_hot(batch.labels[index : index + 1], CLASSES).double()
        for entry in range(victim.size):
            move = torch.zeros_like(parameters)
            move[entry] = h
            mixed = [
                sum(
                    sign * side * float(victim.loss(parameters + side * move, inputs, label + sign * push))
                    for sign in (1, -1)
                    for side in (1, -1)
                )
                / (4 * h)
                for push in torch.eye(CLASSES, dtype=torch.float64)
            ]
            expected[entry] += math.hypot(*mixed) / len(batch)
    assert torch.allclose(sensitivity(evidence(victim, batch)), expected, rtol=1e-6, atol=1e-9)


def test_sensitivity_does_not_depend_on_labels() -> None:
    """The mixed derivative is −∂ log p/∂w, without a label in it."""
    one, other = samples(1), samples(3)
    other = type(one)(inputs=one.inputs, labels=other.labels)
    assert not torch.equal(one.labels, other.labels)
    assert torch.equal(sensitivity(evidence(tiny(), one)), sensitivity(evidence(tiny(), other)))


def test_sensitivity_under_batch_norm_is_that_within_the_batch() -> None:
    """Samples that share their statistics are not looked at one by one: the Jacobian of the batch's own
    gradient in its labels says what each label moves."""
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    victim, batch = victim_of(nn.Linear(FEATURES, 4), norm, nn.Tanh(), nn.Linear(4, CLASSES)), samples(1, 4)
    # A layer without running statistics takes the batch's in either mode.
    victim.module.eval()
    labels = nn.functional.one_hot(batch.labels, CLASSES).double()
    parameters = victim.parameters()
    jacobian = torch.autograd.functional.jacobian(
        lambda y: victim.gradient(parameters, batch.inputs, y), labels
    )
    expected = len(batch) * torch.linalg.vector_norm(jacobian, dim=2).mean(dim=1)
    assert torch.allclose(sensitivity(evidence(victim, batch)), expected, rtol=1e-9, atol=1e-12)


def test_estimated_sensitivity_is_unbiased_in_squares() -> None:
    """With K random signs a squared norm has a relative variance of 2/K at most: six standard deviations, for
    53 entries at once."""
    given, probes = evidence(tiny(), samples(1, count=1), seed=4), 1024
    exact, estimated = exact_sensitivity(given).square(), estimated_sensitivity(given, probes=probes).square()
    assert float(((estimated - exact).abs() / exact).max()) <= 6 * math.sqrt(2 / probes)


def test_many_classes_are_estimated_and_few_are_not() -> None:
    """A hundred backward passes for each sample are borne, more are not; the seed decides the estimate."""
    victim, batch = victim_of(nn.Linear(FEATURES, 101), classes=101), samples(1, count=1)
    one, again, other = (sensitivity(evidence(victim, batch, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    few = evidence(tiny(), batch)
    assert torch.equal(sensitivity(few), exact_sensitivity(few))


def test_simple_scores_are_their_formulas() -> None:
    """|g|, |g·w|, and |g| times sensitivity."""
    given = evidence(tiny(), samples(1))
    assert torch.equal(magnitude(given), given.update.abs())
    assert torch.equal(weighted(given), (given.update * given.parameters).abs())
    assert torch.allclose(product(given), given.update.abs() * sensitivity(given), rtol=1e-12)


def test_maskcrypt_scores_add_up_to_what_hiding_costs_an_eavesdropper() -> None:
    """To first order, ℓ(w_exposed) − ℓ(w_latest): a remainder of ½·‖Δ‖²·‖∇²ℓ‖, here with ‖Δ‖ = 1e-4 and a
    curvature below 10."""
    given = evidence(tiny(), samples(1))
    victim, batch = given.victim, given.batch
    drawn = torch.randn(victim.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    latest = given.parameters - TRAINING.learning_rate * given.update
    exposed = latest + 1e-4 * drawn / drawn.norm()
    scores = maskcrypt(evidence(victim, batch, exposed=exposed))
    cost = victim.loss(exposed, batch.inputs, batch.labels) - victim.loss(latest, batch.inputs, batch.labels)
    assert abs(float(scores.sum() - cost)) <= 0.5 * 1e-8 * 10
    assert float(scores.min()) < 0 < float(scores.max())


def test_maskcrypt_begins_as_magnitude() -> None:
    """While θ_0 is exposed whole, (θ_0 − θ_1)·∇ℓ(θ_1) = lr·g·(g + O(lr))."""
    given = evidence(tiny(), samples(1))
    gradient = given.victim.gradient(given.latest, given.batch.inputs, given.batch.labels)
    expected = TRAINING.learning_rate * given.update * gradient
    assert torch.allclose(maskcrypt(given), expected, rtol=1e-9, atol=1e-15)
