"""Figures of texts: small sentences, counted by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.inversion.metrics import bag_accuracy, rouge, rouge_l, rouge_n, token_accuracy
from secagg.errors import ConfigError

# "police killed the gunman", and two candidates with one ROUGE-2 but different ROUGE-L (Lin 2004, §3).
POLICE, KILLED, THE, GUNMAN, KILL = range(1, 6)
REFERENCE = [POLICE, KILLED, THE, GUNMAN]
KEPT_ORDER = [POLICE, KILL, THE, GUNMAN]
SWAPPED = [THE, GUNMAN, KILL, POLICE]


def test_rouge_gives_the_figures_of_its_papers_example() -> None:
    """S2 and S3 of Lin 2004: equal ROUGE-2, ROUGE-L of 3/4 and 2/4."""
    assert rouge_n(KEPT_ORDER, REFERENCE, 2) == rouge_n(SWAPPED, REFERENCE, 2) == pytest.approx(1 / 3)
    assert rouge_l(KEPT_ORDER, REFERENCE) == 0.75
    assert rouge_l(SWAPPED, REFERENCE) == 0.5


def test_rouge_counts_repeated_words_as_often_as_both_have_them() -> None:
    """ "the the the" finds one "the" of four words: P = 1/3, R = 1/4, F1 = 2/7."""
    assert rouge_n([THE, THE, THE], REFERENCE, 1) == pytest.approx(2 / 7)


def test_rouge_of_sentences_of_different_lengths() -> None:
    """Two of the four words in order: P = 1, R = 1/2; bigrams: P = 1, R = 1/3."""
    assert rouge_n([THE, GUNMAN], REFERENCE, 1) == pytest.approx(2 / 3)
    assert rouge_n([THE, GUNMAN], REFERENCE, 2) == pytest.approx(1 / 2)
    assert rouge_l([THE, GUNMAN], REFERENCE) == pytest.approx(2 / 3)
    assert rouge_l([], REFERENCE) == 0.0


@given(st.lists(st.integers(0, 4), max_size=8), st.lists(st.integers(0, 4), max_size=8))
def test_longest_subsequence_is_that_of_exhaustive_recursion(first: list[int], second: list[int]) -> None:
    """The one-row table agrees with the recursive definition, and ROUGE is symmetric."""

    def longest(i: int, j: int) -> int:
        if i == len(first) or j == len(second):
            return 0
        if first[i] == second[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    total = len(first) + len(second)
    assert rouge_l(first, second) == pytest.approx(2 * longest(0, 0) / total if total else 1.0)
    assert rouge_l(first, second) == rouge_l(second, first)
    assert 0 <= rouge_n(first, second, 2) <= 1


def test_position_and_bag_differ_where_order_is_lost() -> None:
    """A reversed sentence: no position, the whole bag."""
    original = torch.tensor([REFERENCE, REFERENCE])
    found = torch.tensor([REFERENCE[::-1], [POLICE, THE, KILLED, THE]])
    assert token_accuracy(found, original).tolist() == [0.0, 0.25]
    assert bag_accuracy(found, original).tolist() == [1.0, 0.75]


def test_padding_counts_for_nobody() -> None:
    """Of a two-word sentence in four places, an all-padding guess finds nothing, not half."""
    original = torch.tensor([[POLICE, KILLED, 0, 0]])
    empty, right = torch.zeros_like(original), torch.tensor([[POLICE, KILLED, THE, THE]])
    assert token_accuracy(empty, original).item() == 0.5
    assert token_accuracy(empty, original, padding=0).item() == 0.0
    assert bag_accuracy(empty, original, padding=0).item() == 0.0
    assert token_accuracy(right, original, padding=0).item() == 1.0
    assert [figure.item() for figure in rouge(right, original, padding=0)] == pytest.approx(
        [2 / 3, 1 / 2, 2 / 3]
    )


def test_embeddings_are_no_tokens() -> None:
    """Float inputs, or other shapes, are an error that names both."""
    tokens = torch.tensor([REFERENCE])
    with pytest.raises(ConfigError, match="float32"):
        token_accuracy(tokens.float(), tokens)
    with pytest.raises(ConfigError, match=r"\(1, 3\)"):
        bag_accuracy(tokens[:, :3], tokens)
