"""An exposure holds what a federation would send in the clear, and nothing else."""

import numpy as np
import pytest
import torch
from protection_cases import CHOSEN, SCORED, TRAINING, evidence, samples, tiny

from attacks.inversion.exposure import Exposure
from attacks.inversion.protections import Protection, hidden_entries, visible_bytes
from attacks.inversion.training import Training
from secagg.ckks import Sealer, generate, profile
from secagg.errors import Code, ConfigError, SecaggError, UpdateError
from secagg.payload import seal_update
from secagg.selection import Layout, Mask

LAST = "2.weight"


def expose(text: str, *, batch: int = 1, **more: object) -> Exposure:
    """One update of the tiny network."""
    given = {"seed": 0, **more}
    return Protection.parse(text).expose(tiny(), tiny().parameters(), TRAINING, samples(batch), **given)  # type: ignore[arg-type]


def update_of(batch: int = 1) -> torch.Tensor:
    """What that client sends, unprotected."""
    return TRAINING.update(tiny(), tiny().parameters(), samples(batch))


@pytest.mark.parametrize("text", ["none", "full", "random:0.3", "magnitude:0.3", f"layers={LAST}"])
@pytest.mark.parametrize("statistics", ["", f"+statistics={LAST}"])
def test_visible_values_are_the_payload_s(text: str, statistics: str) -> None:
    """Byte for byte those behind the sealed vectors of an update that is really sealed."""
    protection = Protection.parse(text + statistics)
    exposure = protection.expose(tiny(), tiny().parameters(), TRAINING, samples(1), seed=0)
    robust = profile("robust")
    mask = protection.masked(evidence(tiny(), samples(1)), seed=0)
    layout = Layout(tiny().manifest, mask, ((LAST,),) if statistics else ())
    sealer = Sealer(generate(robust).secret) if mask.hidden_count else None
    payload = b"".join(seal_update(update_of().float().numpy(), layout, sealer))
    sealed = sum(robust.sealed_bytes(count) for count in layout.hidden_counts)
    assert visible_bytes(exposure) == len(payload) - sealed
    sent = np.frombuffer(payload[sealed:], dtype="<f4")
    parts = [exposure.visible.numpy()[layout.visible_places(block)] for block in range(len(layout.blocks))]
    assert np.array_equal(np.concatenate(parts).astype(np.float32), sent)
    assert np.array_equal(exposure.hidden.numpy(), layout.hidden)
    assert hidden_entries(exposure) == sum(layout.hidden_counts)
    assert not exposure.visible[exposure.hidden].any()


def test_statistics_are_hidden_whole_if_anything_is() -> None:
    """As a layout hides them: not in a plain round."""
    place = tiny().manifest.slice_of(LAST)
    assert expose(f"random:0.01+statistics={LAST}").hidden[place].all()
    assert not expose(f"none+statistics={LAST}").hidden.any()


def test_precision_is_the_wire_s_unless_asked_otherwise() -> None:
    """float32 values in the victim's dtype, or the update's own."""
    single, double = expose("none"), expose("none", precision="float64")
    assert torch.equal(single.visible, update_of().float().double())
    assert torch.equal(double.visible, update_of())
    assert not torch.equal(single.visible, double.visible)


def test_an_exposure_knows_its_circumstances() -> None:
    """Mask-aware, with labels if they are known, and with the noise that was added."""
    exposure = expose("random:0.3+noise-absolute:0.25")
    assert exposure.aware
    assert exposure.noise == 0.25
    assert exposure.batch_size == 3
    assert exposure.labels is not None
    assert torch.equal(exposure.labels, samples(1).labels)
    assert expose("none", labels_known=False).labels is None
    assert expose("none").noise == 0
    assert expose("none").earlier == ()


def test_only_visible_entries_are_perturbed_and_masks_are_chosen_before() -> None:
    """The same mask with noise as without; noise follows the seed."""
    clean, noisy, again, other = (
        expose("magnitude:0.3"),
        *(expose("magnitude:0.3+noise:0.5", seed=seed) for seed in (0, 0, 1)),
    )
    assert torch.equal(clean.hidden, noisy.hidden)
    assert not noisy.visible[noisy.hidden].any()
    assert (noisy.visible != clean.visible)[~noisy.hidden].all()
    assert torch.equal(noisy.visible, again.visible)
    assert not torch.equal(noisy.visible, other.visible)


def test_perturbations_apply_in_their_order() -> None:
    """What is clipped last has that norm; what is quantised last has few values."""
    clipped = expose("first:0.3+quantise:2+clip:0.001")
    assert float(clipped.visible.norm()) == pytest.approx(0.001, rel=1e-6)
    quantised = expose("first:0.3+clip:0.001+quantise:2")
    weight, hidden = quantised.of_tensor(LAST)
    assert len(weight[~hidden].unique()) <= 3


@pytest.mark.parametrize("name", SCORED)
def test_common_masks_do_not_depend_on_the_attacked_samples(name: str) -> None:
    """They follow from other clients' samples alone; own masks don't."""
    others = (samples(7), samples(8, 5))
    one, two = (expose(f"{name}@common:0.3", batch=batch, others=others).hidden for batch in (1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(*(expose(f"{name}:0.3", batch=batch).hidden for batch in (1, 2)))
    assert not torch.equal(one, expose(f"{name}@common:0.3", others=(samples(9),)).hidden)


def test_common_magnitude_is_that_of_the_federation_s_mean() -> None:
    """Weighted by numbers of samples, as an aggregate is."""
    others = (samples(7, 3), samples(8, 5))
    mean = sum(len(o) / 8 * TRAINING.update(tiny(), tiny().parameters(), o) for o in others)
    assert isinstance(mean, torch.Tensor)
    largest = mean.abs().argsort(descending=True)[:16]
    hidden = expose("magnitude@common:0.3", others=others).hidden
    assert hidden.nonzero().flatten().tolist() == sorted(largest.tolist())


@pytest.mark.parametrize("training", [TRAINING, Training(epochs=2, steps=3, learning_rate=0.05)])
def test_rounds_follow_the_federation_s_mean_model(training: Training) -> None:
    """Each exposure is one of its own round's model: θ_t+1 is the mean of models that clients trained."""
    others, parameters = (samples(7, 6),), tiny().parameters()
    last = Protection.parse("random:0.3").expose_rounds(
        tiny(), parameters, training, samples(1), rounds=3, others=others, seed=1, precision="float64"
    )
    assert [len(seen.earlier) for seen in last.rounds] == [0, 0, 2]
    steps = training.epochs * training.steps
    for seen in last.rounds:
        assert torch.allclose(seen.parameters, parameters, rtol=1e-12, atol=1e-15)
        own, other = (training.update(tiny(), parameters, batch) for batch in (samples(1), *others))
        expected = torch.where(seen.hidden, torch.zeros_like(own), own)
        assert torch.allclose(seen.visible, expected, rtol=1e-10, atol=1e-14)
        parameters = parameters - steps * training.learning_rate * (3 * own + 6 * other) / 9
    assert len({seen.hidden.numpy().tobytes() for seen in last.rounds}) == 3


def test_maskcrypt_remembers_what_earlier_rounds_exposed() -> None:
    """Entries that were hidden in the first round are exposed as they were before it."""
    protection = Protection.parse("maskcrypt:0.3")
    last = protection.expose_rounds(
        tiny(), tiny().parameters(), TRAINING, samples(1), rounds=2, seed=0, precision="float64"
    )
    first = last.earlier[0]
    exposed = torch.where(first.hidden, first.parameters, last.parameters)
    own = TRAINING.update(tiny(), last.parameters, samples(1))
    latest = last.parameters - TRAINING.learning_rate * own
    scores = (exposed - latest) * tiny().gradient(latest, samples(1).inputs, samples(1).labels)
    assert last.hidden.nonzero().flatten().tolist() == sorted(scores.argsort(descending=True)[:16].tolist())
    forgetful = (last.parameters - latest) * tiny().gradient(latest, samples(1).inputs, samples(1).labels)
    assert not torch.equal(last.hidden, forgetful >= forgetful.sort(descending=True).values[15])


@pytest.mark.parametrize("name", CHOSEN)
def test_the_same_seed_gives_the_same_exposure(name: str) -> None:
    """Every figure of the bench can be had again."""
    one, two = (expose(f"{name}:0.3+noise:0.1+prune:0.2", seed=9) for _ in range(2))
    assert torch.equal(one.hidden, two.hidden)
    assert torch.equal(one.visible, two.visible)


@pytest.mark.parametrize(
    ("text", "more", "code"),
    [
        ("magnitude@common:0.1", {}, Code.CONFIG_INVALID),
        ("layers=nowhere", {}, Code.MANIFEST_MISMATCH),
        ("full+statistics=nowhere", {}, Code.MANIFEST_MISMATCH),
        ("none", {"others": (samples(1, classes=99),)}, Code.CONFIG_INVALID),
    ],
)
def test_what_can_not_be_exposed_is_refused(text: str, more: dict[str, object], code: Code) -> None:
    """Common scores of nobody, tensors that are not there, samples of another task."""
    with pytest.raises(SecaggError) as caught:
        expose(text, **more)
    assert caught.value.code is code


def test_no_round_at_all_is_refused() -> None:
    """There is nothing to see."""
    with pytest.raises(ConfigError):
        Protection.parse("none").expose_rounds(
            tiny(), tiny().parameters(), TRAINING, samples(1), rounds=0, seed=0
        )


def test_training_that_diverged_sends_nothing() -> None:
    """As a client refuses to seal NaN or infinity."""
    parameters = tiny().parameters()
    parameters[0] = torch.nan
    with pytest.raises(UpdateError) as caught:
        Protection.parse("random:0.3").expose(tiny(), parameters, TRAINING, samples(1), seed=0)
    assert caught.value.code is Code.UPDATE_NOT_FINITE


def test_noise_beyond_what_the_wire_can_hold_is_refused() -> None:
    """Infinity in float32 is no value to send, though float64 would hold it."""
    with pytest.raises(UpdateError) as caught:
        expose("random:0.3+noise-absolute:1e45")
    assert caught.value.code is Code.UPDATE_NOT_FINITE


def test_masks_are_masks_of_the_middleware() -> None:
    """Not a lookalike."""
    assert isinstance(Protection.parse("weighted:0.2").masked(evidence(tiny(), samples(1)), seed=0), Mask)
