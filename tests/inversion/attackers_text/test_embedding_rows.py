"""The update lists the words, and for one sentence their order."""

import numpy as np
import pytest
import torch
from text_cases import ONE, TWO, WORDS, exposed, small_victim

from attacks.inversion.attackers.attacker import Budget
from attacks.inversion.attackers.embedding_rows import EmbeddingRows, in_order, words_that_occur
from attacks.inversion.metrics import compare
from attacks.inversion.victims import load_victim


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize(("ratio", "random"), [(0.0, False), (0.1, False), (0.5, True)])
def test_one_sentence_is_read_in_order_with_a_repeated_word(kind: str, ratio: float, random: bool) -> None:
    """Word 5 stands at two positions: its row is the sum of two positions' rows. The label follows."""
    exposure = exposed(small_victim(kind), ONE, ratio=ratio, random=random)
    found = EmbeddingRows().attack(exposure, seed=0, budget=Budget())
    assert found.inputs.tolist() == ONE.inputs.tolist()
    assert found.labels.tolist() == ONE.labels.tolist()


def test_words_of_a_batch_are_found_without_their_order() -> None:
    """All twelve words of two sentences, and nothing else."""
    exposure = exposed(small_victim("bert"), TWO)
    found = EmbeddingRows().attack(exposure, seed=0, budget=Budget())
    assert sorted(found.inputs.flatten().tolist()) == sorted(TWO.inputs.flatten().tolist())


def test_hidden_rows_tell_an_attacker_that_knows_the_mask() -> None:
    """Exactly what isn't zero is hidden: the naive attacker sees nothing, the aware one all words."""
    victim = small_victim("gpt2")
    plain = exposed(victim, ONE)
    ratio = float((plain.visible != 0).double().mean())
    exposure = exposed(victim, ONE, ratio=ratio)
    assert not bool(exposure.visible.any())
    words = [
        compare(ONE, EmbeddingRows().attack(e, seed=0, budget=Budget()), text=True).bag_accuracy[0]
        for e in (exposure, exposure.seen_by(aware=False))
    ]
    assert words[0] >= 5 / 6 and words[1] == 0


def test_rows_hidden_as_ties_say_nothing() -> None:
    """If zeros are hidden, too, they are the first ones: words behind them are still betrayed."""
    values, hidden = torch.zeros(WORDS, 4), torch.zeros(WORDS, 4, dtype=torch.bool)
    hidden[:20] = True
    hidden[[31, 45]] = True
    assert words_that_occur(values, hidden, at_most=6).tolist() == [31, 45]


def test_rows_that_are_all_hidden_say_nothing() -> None:
    """A whole encrypted layer names no word, while one visible entry of a row decides about it."""
    values, hidden = torch.zeros(WORDS, 4), torch.ones(WORDS, 4, dtype=torch.bool)
    assert words_that_occur(values, hidden, at_most=6).tolist() == []
    values[7, 2], hidden[7, 2] = -3.0, False
    assert words_that_occur(values, hidden, at_most=6).tolist() == [7]


def test_order_follows_from_masks_where_no_value_is_seen() -> None:
    """Two words with nothing in common to compare, but different hidden entries, find their places."""
    generator = torch.Generator().manual_seed(1)
    places = torch.randn((2, 6), generator=generator)
    shut = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    words, words_shut = places.flip(0) * ~shut.flip(0), shut.flip(0)
    assert in_order(words, words_shut, places * ~shut, shut).tolist() == [1, 0]


def test_images_are_not_its_business() -> None:
    """It says so instead of failing."""
    victim = load_victim("mlp", shape=(1, 4, 4), classes=2, seed=0)
    images = type(ONE)(inputs=torch.zeros(1, 1, 4, 4, dtype=torch.float64), labels=torch.tensor([0]))
    assert "embeddings" in EmbeddingRows().unsuited(exposed(victim, images))
    assert np.isfinite(victim.size)
