"""Matching within a batch, identification among candidates, and the figures of both together."""

import itertools

import numpy as np
import pytest
import torch

from attacks.inversion.attackers.attacker import Reconstruction
from attacks.inversion.batch import Batch
from attacks.inversion.metrics import CAP_DB, compare, identified, matched, psnr_db, similarities
from secagg.errors import ConfigError


def pictures(count: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        inputs=torch.rand((count, 1, 8, 8), generator=generator, dtype=torch.float64),
        labels=torch.arange(count),
    )


def found(inputs: torch.Tensor, labels: torch.Tensor) -> Reconstruction:
    return Reconstruction(inputs=inputs, labels=labels)


def test_matching_is_the_best_of_all_permutations() -> None:
    """For 5 x 5 similarities, no other of the 120 permutations has a larger sum."""
    table = torch.rand((5, 5), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    best = max(
        itertools.permutations(range(5)), key=lambda p: sum(table[i, j].item() for i, j in enumerate(p))
    )
    assert matched(table).tolist() == list(best)


def test_scores_do_not_depend_on_the_attackers_order() -> None:
    """A batch and its labels in every order give the same figures in the samples' order."""
    original = pictures(4)
    noise = torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    guess = original.inputs + noise * torch.tensor([0.01, 0.02, 0.05, 0.1]).view(4, 1, 1, 1)
    labels = torch.tensor([0, 1, 9, 3])
    expected = compare(original, found(guess, labels))
    assert expected.label_correct.tolist() == [True, True, False, True]
    for permutation in itertools.permutations(range(4)):
        order = torch.tensor(permutation)
        scores = compare(original, found(guess[order], labels[order]))
        np.testing.assert_array_equal(scores.psnr_db, expected.psnr_db)
        np.testing.assert_array_equal(scores.ssim, expected.ssim)
        assert scores.label_correct.tolist() == expected.label_correct.tolist()
        assert [permutation[place] for place in scores.order] == [0, 1, 2, 3]


def test_an_exact_copy_is_not_paired_away() -> None:
    """One of two is found exactly: the least total squared error would pair them crosswise.

    Pictures of constants x = (0.3, 0.6), found as (0.3, 0): in order 0 + 0.36, crosswise 0.09 + 0.09.
    """
    original = Batch(inputs=torch.tensor([0.3, 0.6]).view(2, 1, 1, 1), labels=torch.tensor([0, 1]))
    scores = compare(original, found(torch.tensor([0.3, 0.0]).view(2, 1, 1, 1), torch.tensor([0, 1])))
    assert scores.order.tolist() == [0, 1]
    assert scores.worst_psnr_db == CAP_DB


def test_median_and_worst_are_of_samples() -> None:
    """20, 40 and 60 dB: median 40, worst 60; pooled it would be 24.8."""
    original = Batch(inputs=torch.full((3, 1, 8, 8), 0.5, dtype=torch.float64), labels=torch.zeros(3).long())
    guess = original.inputs + torch.tensor([0.1, 0.01, 0.001], dtype=torch.float64).view(3, 1, 1, 1)
    scores = compare(original, found(guess, original.labels))
    assert sorted(scores.psnr_db) == pytest.approx([20, 40, 60])
    assert (scores.median_psnr_db, scores.worst_psnr_db) == pytest.approx((40, 60))
    assert scores.worst("mse") == pytest.approx(1e-6)
    assert scores.label_correct.all() and len(scores) == 3
    assert scores.identified is None and np.isnan(scores.rouge1).all()


def test_pictures_are_compared_within_their_range() -> None:
    """An attacker's 1.5 is a white pixel; of vectors nobody knows the range."""
    original = Batch(inputs=torch.ones(1, 1, 4, 4), labels=torch.tensor([0]))
    assert compare(original, found(original.inputs * 1.5, original.labels)).worst_psnr_db == CAP_DB
    vectors = Batch(inputs=torch.ones(1, 16), labels=torch.tensor([0]))
    scores = compare(vectors, found(vectors.inputs * 1.5, vectors.labels))
    assert scores.worst_psnr_db == pytest.approx(10 * np.log10(4)) and np.isnan(scores.ssim).all()


def test_identification_needs_the_sample_to_be_strictly_nearest() -> None:
    """A slightly noisy copy is told from 20 others; the mean picture only for at most one; a tie for none."""
    pool = pictures(20, seed=5).inputs
    original = Batch(inputs=pool[:3], labels=torch.zeros(3).long())
    near = compare(original, found(pool[:3].flip(0) + 0.01, original.labels), candidates=pool)
    assert near.identified is not None and near.identified.all()
    mean = pool.mean(dim=0).expand(20, 1, 8, 8)
    assert identified(mean, pool, pool, psnr_db).sum() <= 1
    tie = torch.tensor([[0.0], [1.0]])
    assert not identified(torch.tensor([[0.5]]), tie[:1], tie, psnr_db).any()


def test_candidates_may_leave_the_sample_out() -> None:
    """With or without the sample itself in the list, the answer is the same."""
    pool = pictures(9, seed=6).inputs
    share = torch.linspace(0.4, 0.6, 9, dtype=torch.float64).view(9, 1, 1, 1)
    guess = share * pool + (1 - share) * torch.roll(pool, 1, 0)
    with_it = [identified(guess[i : i + 1], pool[i : i + 1], pool, psnr_db).item() for i in range(9)]
    without = [
        identified(guess[i : i + 1], pool[i : i + 1], pool[torch.arange(9) != i], psnr_db).item()
        for i in range(9)
    ]
    assert with_it == without and any(with_it) and not all(with_it)


def test_text_is_matched_and_scored_as_tokens() -> None:
    """Swapped sentences come back in order; PSNR has no meaning."""
    original = Batch(inputs=torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), labels=torch.tensor([0, 1]))
    guess = torch.tensor([[5, 6, 8, 7], [1, 2, 3, 4]])
    scores = compare(
        original, found(guess, torch.tensor([1, 0])), text=True, candidates=torch.tensor([[9, 9, 9, 9]])
    )
    assert scores.token_accuracy.tolist() == [1.0, 0.5] and scores.bag_accuracy.tolist() == [1.0, 1.0]
    assert scores.rouge1.tolist() == [1.0, 1.0] and scores.rouge2[1] == pytest.approx(1 / 3)
    assert scores.rouge_l.tolist() == [1.0, 0.75]
    assert scores.label_correct.all()
    assert scores.identified is not None and scores.identified.all()
    assert np.isnan(scores.psnr_db).all()


def test_what_does_not_fit_is_refused() -> None:
    """Another batch size, infinity, candidates of another kind, and lopsided similarities."""
    original = pictures(3)
    with pytest.raises(ConfigError, match="2 labels"):
        compare(original, found(original.inputs[:2], original.labels[:2]))
    with pytest.raises(ConfigError, match="finite"):
        compare(original, found(original.inputs * torch.inf, original.labels))
    with pytest.raises(ConfigError, match="candidates"):
        compare(original, found(original.inputs, original.labels), candidates=torch.zeros(4, 1, 9, 9))
    with pytest.raises(ConfigError, match="matching"):
        matched(similarities(original.inputs[:2], original.inputs, psnr_db))
