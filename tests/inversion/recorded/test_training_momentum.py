"""Local training with momentum, as the update that attackers see."""

import pytest
import torch

from attacks.inversion.attackers.sme import _Segment
from attacks.inversion.batch import Batch
from attacks.inversion.protections import Evidence, Protection
from attacks.inversion.training import Training
from attacks.inversion.victims import load_victim
from secagg.errors import Code, ConfigError

VICTIM = load_victim("mlp", shape=(1, 3, 3), classes=3, seed=0)


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(4, 1, 3, 3, generator=generator, dtype=torch.float64)
    return Batch(inputs=inputs, labels=torch.tensor([0, 1, 2, 1]))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_update_is_the_path_of_gradient_descent_with_momentum(momentum):
    """θ_0 − θ_T of the textbook loop, v ← m·v + g, θ ← θ − η·v, over η·weight; to rounding."""
    training = Training(epochs=2, steps=2, learning_rate=0.3, momentum=momentum)
    start, samples = VICTIM.parameters(), batch()
    at, velocity = start.clone(), torch.zeros_like(start)
    for _ in range(2):
        for part in (slice(0, 2), slice(2, 4)):
            velocity = momentum * velocity + VICTIM.gradient(at, samples.inputs[part], samples.labels[part])
            at = at - 0.3 * velocity
    update = training.update(VICTIM, start, samples)
    torch.testing.assert_close(update, (start - at) / (0.3 * training.weight), rtol=1e-12, atol=1e-14)


def test_weights_count_how_often_momentum_uses_a_gradient():
    """1 + 1.5 + 1.75 for three steps at momentum ½; one per step without."""
    assert Training(epochs=3, momentum=0.5).weight == 1 + 1.5 + 1.75
    assert Training(epochs=3, steps=2).weight == 6
    assert Training(momentum=0.9).weight == 1 and Training(momentum=0.9).is_gradient


def test_a_constant_gradient_is_the_update_whatever_the_momentum():
    """So attackers may treat an update of several steps as a gradient: the model hardly moves at η = 1e-9."""
    training = Training(epochs=4, learning_rate=1e-9, momentum=0.9)
    samples = batch()
    gradient = VICTIM.gradient(VICTIM.parameters(), samples.inputs, samples.labels)
    update = training.update(VICTIM, VICTIM.parameters(), samples)
    torch.testing.assert_close(update, gradient, rtol=1e-6, atol=1e-9)


def test_scores_look_at_the_model_where_momentum_ends() -> None:
    """``Evidence.latest`` is θ_T of the textbook loop, to rounding; T·η·update would fall short by half."""
    training, start, samples = (
        Training(epochs=3, learning_rate=0.3, momentum=0.9),
        VICTIM.parameters(),
        batch(),
    )
    at, velocity = start.clone(), torch.zeros_like(start)
    for _ in range(3):
        velocity = 0.9 * velocity + VICTIM.gradient(at, samples.inputs, samples.labels)
        at = at - 0.3 * velocity
    evidence = Evidence(
        victim=VICTIM,
        parameters=start,
        training=training,
        batch=samples,
        update=training.update(VICTIM, start, samples),
    )
    torch.testing.assert_close(evidence.latest, at, rtol=1e-12, atol=1e-14)


def test_the_next_round_starts_where_momentum_has_led() -> None:
    """A federation of one: round 2's θ_0 is the client's θ_T."""
    training, start = Training(epochs=3, learning_rate=0.3, momentum=0.9), VICTIM.parameters()
    last = Protection.parse("none").expose_rounds(
        VICTIM, start, training, batch(), rounds=2, seed=0, precision="float64"
    )
    moved = 0.3 * training.weight * training.update(VICTIM, start, batch())
    torch.testing.assert_close(last.parameters, start - moved, rtol=1e-12, atol=1e-14)


def test_the_surrogate_model_lies_on_the_way_to_where_momentum_has_led() -> None:
    """SME's α = 1 is θ_0 and α = 0 is θ_T, all of the update being visible."""
    training, samples = Training(epochs=3, learning_rate=0.3, momentum=0.9), batch()
    exposure = Protection.parse("none").expose(
        VICTIM, VICTIM.parameters(), training, samples, seed=0, precision="float64"
    )
    ended = exposure.parameters - 0.3 * training.weight * exposure.visible
    segment = _Segment(exposure)
    for alpha, model in ((1.0, exposure.parameters), (0.0, ended)):
        gradient = VICTIM.gradient(model, samples.inputs, samples.labels)
        cosine = torch.nn.functional.cosine_similarity(gradient, exposure.visible, dim=0)
        found = segment.angle(samples.inputs, samples.labels, torch.tensor(alpha, dtype=torch.float64))
        torch.testing.assert_close(found, 1 - cosine, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_momentum_outside_its_range_is_refused(momentum):
    with pytest.raises(ConfigError, match="momentum") as caught:
        Training(momentum=momentum)
    assert caught.value.code is Code.CONFIG_INVALID
