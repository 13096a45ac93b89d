"""The span check, what it needs, and how sentences are put together."""

import pytest
import torch
from text_cases import ONE, TWO, exposed, sentences, small_victim

from attacks.inversion.attackers.attacker import Budget, Status
from attacks.inversion.attackers.dager import Dager, _exchanged, _grown, _span
from attacks.inversion.attackers.layers.low_rank import DOUBLE, SINGLE, completed, rounding_of, span_of
from attacks.inversion.attackers.words.same_sentence import affinities
from attacks.inversion.attackers.words.text_layers import attention_layers, read_by
from attacks.inversion.metrics import compare


def low_rank(rank: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """[20, 60] of this rank, and its left factor."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn((20, rank), generator=generator, dtype=torch.float64)
    return left @ torch.randn((rank, 60), generator=generator, dtype=torch.float64), left


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("float32", [False, True])
def test_one_sentence_is_found_exactly(kind: str, float32: bool) -> None:
    """At ratio 0 every position has the right word in the span, in either precision of the update."""
    exposure = exposed(small_victim(kind), ONE, float32=float32)
    found = Dager().attack(exposure, seed=0, budget=Budget())
    assert found.inputs.tolist() == ONE.inputs.tolist() and found.labels.tolist() == [1]


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_two_sentences_are_told_apart(kind: str) -> None:
    """Words and who attended to whom: both sentences, each with its label."""
    scores = compare(
        TWO, Dager().attack(exposed(small_victim(kind), TWO), seed=0, budget=Budget()), text=True
    )
    assert scores.token_accuracy.tolist() == [1.0, 1.0] and scores.label_correct.all()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_attacker_that_knows_the_mask_finds_what_the_naive_one_does_not(kind: str) -> None:
    """With the largest 40% of entries hidden, zeros spoil the span, and completion does not."""
    exposure = exposed(small_victim(kind), ONE, ratio=0.4)
    aware, naive = (
        compare(ONE, Dager().attack(e, seed=0, budget=Budget()), text=True).token_accuracy[0]
        for e in (exposure, exposure.seen_by(aware=False))
    )
    assert aware == 1.0 and naive < 1.0


def test_more_tokens_than_width_are_refused() -> None:
    """Seven sentences of six tokens fill 32 dimensions: every word lies in their span."""
    batch = sentences([[i] * 6 for i in range(7)], [0] * 7)
    assert "fewer tokens" in Dager().unsuited(exposed(small_victim("bert"), batch))
    assert not Dager().unsuited(exposed(small_victim("bert"), ONE))


def test_words_of_one_sentence_attend_to_each_other_only() -> None:
    """Affinities between sentences are rounding, within them never for all; blocks of 6 words."""
    victim = small_victim("bert")
    exposure = exposed(victim, TWO)
    layer = attention_layers(victim)[0]
    read = read_by(victim, exposure.parameters, layer, TWO.inputs).flatten(0, 1)
    near = affinities(exposure, layer, read)
    assert float(near[:6, 6:].max()) < 1e-6 < float(near[:6, :6].median())


def test_forward_pass_stops_at_the_layer_and_leaves_no_hook() -> None:
    """What the first layer reads of a word depends on its position, not its neighbours."""
    victim = small_victim("gpt2")
    first, second = attention_layers(victim)
    changed = TWO.inputs[:1].clone()
    changed[0, 0] = 30
    parameters = victim.parameters()
    for layer, same in ((first, True), (second, False)):
        before, after = (read_by(victim, parameters, layer, t)[0, 1:] for t in (TWO.inputs[:1], changed))
        assert bool((before == after).all()) is same
    assert not victim.module.get_submodule(first.path)._forward_pre_hooks


def test_span_is_that_of_the_left_factor() -> None:
    """Rank found by itself; its vectors at distance rounding, others far."""
    matrix, left = low_rank(5)
    span = span_of(matrix, torch.ones_like(matrix, dtype=torch.bool), at_most=12)
    other = torch.randn((3, 20), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    assert span.rank == 5 and float(span.distance(left.T).max()) <= span.tolerance < 1e-9
    assert float(span.distance(other).min()) > 0.5


def test_hidden_entries_are_completed_from_the_rank() -> None:
    """A fifth of the entries, at random, in every column: the span is as before."""
    matrix, left = low_rank(4, seed=2)
    seen = torch.rand(matrix.shape, generator=torch.Generator().manual_seed(3)) > 0.2
    full = completed(torch.where(seen, matrix, 0.0), seen, 4)
    torch.testing.assert_close(full, matrix, rtol=1e-6, atol=1e-6)
    span = span_of(torch.where(seen, matrix, 0.0), seen, at_most=4)
    assert float(span.distance(left.T).max()) < 1e-6


def test_rounding_and_noise_set_the_rank() -> None:
    """An update sent as float32 has float32's rounding; noise buries what it is larger than."""
    matrix, _ = low_rank(3)
    assert rounding_of(matrix) == DOUBLE and rounding_of(matrix.float().double()) == SINGLE
    everything = torch.ones_like(matrix, dtype=torch.bool)
    assert span_of(matrix.float().double(), everything, at_most=12).rank == 3
    generator = torch.Generator().manual_seed(4)
    noisy = matrix + 1e-3 * torch.randn(matrix.shape, generator=generator, dtype=torch.float64)
    assert span_of(noisy, everything, at_most=12, noise=1e-3).rank == 3
    assert span_of(matrix, everything, at_most=12, noise=100.0).rank == 0


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_word_that_stands_elsewhere_is_not_taken_for_one_that_stands_here(kind: str) -> None:
    """17 and 9 stand first, 17 third: 9 lies in the span at the third position as well, and is not there."""
    batch = sentences([[17, 40, 5, 33, 8, 21], [9, 50, 17, 3, 28, 12]], [1, 0])
    exposure = exposed(small_victim(kind), batch)
    scores = compare(batch, Dager().attack(exposure, seed=0, budget=Budget()), text=True)
    assert scores.token_accuracy.tolist() == [1.0, 1.0]


def test_nothing_visible_is_said_to_be_nothing() -> None:
    """With every entry hidden there is no span, and no claim that words lie in it."""
    exposure = exposed(small_victim("bert"), ONE, ratio=1.0)
    found = Dager().attack(exposure, seed=0, budget=Budget())
    assert found.status is Status.UNSUITED and "in_span=0/" in found.detail


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_second_layer_of_a_deeper_network_tells_sentences_apart(kind: str) -> None:
    """With a third layer behind it, the second's gradient spans all inputs: only true sentences fit."""
    exposure = exposed(small_victim(kind, layers=3), TWO)
    layer = attention_layers(exposure.victim)[1]
    span = _span(exposure, layer, TWO.inputs.numel())
    choices = TWO.inputs.T.sort(dim=1).values.tolist()
    if kind == "gpt2":
        found = _grown(exposure, layer, span, choices)
    else:
        found = _exchanged(exposure, layer, span, choices, seed=0, starts=8)
    assert sorted(found.tolist()) == sorted(TWO.inputs.tolist())
