"""Released statistics open to the augmented Gram matrix of the updates, and to nothing that was not asked
for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from released_statistics import (
    MANIFEST,
    MODES,
    PROFILE,
    Release,
    bound_of,
    check_entries,
    layout_of,
    members,
    spooled,
    summed,
    vector_of,
)

from secagg.aggregate import Additions
from secagg.ckks.bounds import FLOODING, NOISE_VARIANCE, squared_norm_bias
from secagg.errors import Code, ConfigError
from secagg.rule import Stage, StatisticsRequest, statistics_of
from secagg.selection import Layout, Mask
from secagg.statistics.form import Quantity
from secagg.statistics.opening import joined
from secagg.statistics.release import Reference, release_update
from secagg.update import Manifest, TensorSpec

BLOCKS = {
    "everything": (),
    "one": (("last",),),
    "several": (("last",), ("first", "bias")),
    "two of three": (("bias",), ("last",)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("pairs", [False, True])
def test_the_gram_matrix_is_that_of_the_updates(
    tmp_path: Path, mode: str, blocks: tuple[tuple[str, ...], ...], pairs: bool
) -> None:
    """Norms always, products of pairs if they are asked for; hidden and visible halves add up."""
    layout, vectors = layout_of(mode, blocks), [vector_of(seed) for seed in range(3)]
    request = StatisticsRequest(blocks=blocks, pairs=pairs)
    made = Release(updates=[spooled(tmp_path, layout, flat) for flat in vectors], request=request)
    opened = made.opened(tmp_path)
    zero = np.zeros(MANIFEST.size, dtype=np.float32)
    check_entries(opened, layout, [*vectors, zero, zero], lambda i, j: max(i, j) < 3 and (pairs or i == j))
    assert opened.round == 4
    assert opened.update_ids == tuple((bytes([i]) * 16).hex() for i in (1, 2, 3))
    assert opened.sample_counts.tolist() == [10, 11, 12]
    assert opened.root is None and opened.history is None and opened.dropped == 0


def plain_reference(flat: np.ndarray) -> tuple[Reference, np.ndarray]:
    return Reference(plain=flat), flat


def added_reference(folder: Path, layout: Layout, initial: np.ndarray) -> tuple[Reference, np.ndarray]:
    """The initial model and two rounds of differences, added up on ciphertexts."""
    updates = [spooled(folder, layout, vector_of(seed)) for seed in (30, 31, 32)]
    first = summed(folder, updates[:2], (400, 112), additions=Additions(divisor=512, since=0))
    second = summed(
        folder, updates[2:], (512,), round=3, additions=Additions(divisor=512, since=0, before=first)
    )
    exact = initial.astype(np.float64) + (
        400 / 512 * vector_of(30) + 112 / 512 * vector_of(31) + vector_of(32).astype(np.float64)
    )
    return Reference(plain=initial, aggregate=second), exact


def mean_reference(folder: Path, layout: Layout) -> tuple[Reference, np.ndarray]:
    """A mean of models."""
    updates = [spooled(folder, layout, vector_of(seed)) for seed in (20, 21)]
    exact = 0.9 * vector_of(20).astype(np.float64) + 0.1 * vector_of(21)
    return Reference(aggregate=summed(folder, updates, (900, 100))), exact


@pytest.mark.parametrize("mode", ["plain", "full", "layers"])
@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("kinds", [("plain",), ("mean",), ("added",), ("added", "plain"), ("mean", "added")])
def test_products_with_earlier_models_are_right(
    tmp_path: Path, mode: str, blocks: tuple[tuple[str, ...], ...], kinds: tuple[str, ...]
) -> None:
    """The initial model, a mean of models, the initial model plus differences; one of them or two."""
    layout, vectors = layout_of(mode, blocks), [vector_of(seed) for seed in range(2)]
    make = {
        "plain": lambda: plain_reference(vector_of(9)),
        "mean": lambda: mean_reference(tmp_path, layout),
        "added": lambda: added_reference(tmp_path, layout, vector_of(9)),
    }
    made = [make[kind]() for kind in kinds]
    exact = [flat for _, flat in made]
    release = Release(
        updates=[spooled(tmp_path, layout, flat) for flat in vectors],
        request=StatisticsRequest(blocks=blocks, references=len(kinds)),
        references=[reference for reference, _ in made],
        known=[flat.astype(np.float32) for flat in exact],
    )
    zeros = [np.zeros(MANIFEST.size)] * (2 - len(kinds))

    def due(i: int, j: int) -> bool:
        return max(i, j) < 2 + len(kinds) and (i == j or max(i, j) >= 2)

    # A reference of two parts has their errors; its mean's own is below that of a scalar.
    check_entries(release.opened(tmp_path), layout, [*vectors, *exact, *zeros], due, terms=3)


@pytest.mark.parametrize("models", [False, True])
def test_the_model_before_has_the_products_of_the_base_where_it_is_the_same(
    tmp_path: Path, models: bool
) -> None:
    """One released product serves both rows."""
    layout, base = layout_of("full"), vector_of(9)
    release = Release(
        updates=[spooled(tmp_path, layout, vector_of(seed)) for seed in range(2)],
        request=StatisticsRequest(references=2, models=models),
        references=[Reference(plain=base)] * 2,
        known=[base] * 2,
        same_models=True,
    )
    assert not release.front.quantities & Quantity.EARLIER
    opened = release.opened(tmp_path)
    assert not np.isnan(opened.blocks[:, :2, 2:]).any()
    assert np.array_equal(opened.blocks[:, :, 2], opened.blocks[:, :, 3])
    assert np.array_equal(opened.blocks[:, 2], opened.blocks[:, 3])
    moved = [vector_of(seed) - base * models for seed in range(2)]
    allowed = 4 * bound_of(base, base, layout) + 4 * bound_of(moved[0], moved[0], layout)
    assert np.abs(opened.squared_norms - [float(flat @ flat) for flat in moved]).max() <= allowed + 1e-3


def test_products_over_one_layer_do_not_depend_on_the_mask_of_the_rest(tmp_path: Path) -> None:
    """Selective, the last layer named: an aggregate of a round that hid other entries multiplies all the
    same.
    """
    blocks = (("last",),)
    reference, exact = mean_reference(tmp_path, layout_of("selective", blocks, round=1))
    layout, flat = layout_of("selective", blocks, round=2), vector_of(1)
    release = Release(
        updates=[spooled(tmp_path, layout, flat)],
        request=StatisticsRequest(blocks=blocks, references=1),
        references=[reference],
        known=[exact.astype(np.float32)],
    )
    rows = [flat, exact, np.zeros(MANIFEST.size)]
    check_entries(release.opened(tmp_path), layout, rows, lambda i, j: max(i, j) < 2, terms=2)


def test_products_over_everything_are_refused_when_the_mask_changed(tmp_path: Path) -> None:
    """Hidden entries in other slots can't be multiplied: RULE_UNSUPPORTED."""
    reference, exact = mean_reference(tmp_path, layout_of("selective", round=1))
    layout = layout_of("selective", round=2)
    release = Release(
        updates=[spooled(tmp_path, layout, vector_of(1))],
        request=StatisticsRequest(references=1),
        references=[reference],
        known=[exact.astype(np.float32)],
    )
    with pytest.raises(ConfigError, match="names its tensors") as caught:
        release.artifact(tmp_path)
    assert caught.value.code is Code.RULE_UNSUPPORTED
    assert not (tmp_path / "statistics").exists()


@pytest.mark.parametrize("mode", ["plain", "full"])
def test_statistics_of_models_are_told_of_differences(tmp_path: Path, mode: str) -> None:
    """⟨w_i − g, w_j − g⟩, ⟨w_i − g, g⟩, ⟨w_i − g, g'⟩: what a rule would see if differences had travelled."""
    layout, base, before = layout_of(mode), vector_of(50), vector_of(51)
    models = [base + vector_of(seed, deviation=0.03) for seed in range(3)]
    updates = np.stack(models).astype(np.float64) - base
    release = Release(
        updates=[spooled(tmp_path, layout, flat) for flat in models],
        request=StatisticsRequest(pairs=True, references=2, models=True),
        references=[Reference(plain=base), Reference(plain=before)],
        known=[base, before],
    )
    opened = release.opened(tmp_path)
    wanted = statistics_of(updates, base=base.astype(np.float64), before=before.astype(np.float64))
    # Each told number is the sum of at most four opened ones, none longer than the longest model's norm.
    longest = max([*models, base, before], key=lambda flat: float(np.linalg.norm(flat)))
    assert np.abs(opened.blocks - wanted.blocks).max() <= 4 * bound_of(longest, longest, layout)
    # The models' own norms are far from that: 562 entries of variance 0.01 against 0.0009.
    assert opened.squared_norms.max() < 0.2 * float(longest @ longest)
    assert np.abs(opened.model_gram - np.stack(models).astype(np.float64) @ np.stack(models).T).max() <= (
        8 * bound_of(longest, longest, layout)
    )


@pytest.mark.parametrize("mode", ["plain", "full", "layers"])
def test_products_with_the_root_update_alone_are_right(tmp_path: Path, mode: str) -> None:
    """Row and column of the root update, and the norms; no other pair."""
    layout, vectors = layout_of(mode), [vector_of(seed) for seed in range(4)]
    updates = [spooled(tmp_path, layout, flat) for flat in vectors]
    for root in (0, 2, 3):
        opened = Release(updates=updates, request=StatisticsRequest(root=True), root=root).opened(tmp_path)
        assert opened.root == root
        rows = [*vectors, *[np.zeros(MANIFEST.size)] * 2]
        check_entries(opened, layout, rows, lambda i, j, r=root: max(i, j) < 4 and (i == j or r in (i, j)))


@pytest.mark.parametrize("mode", ["plain", "full", "layers"])
@pytest.mark.parametrize("blocks", [(), (("last",), ("first",))])
def test_history_over_three_rounds_is_the_gram_matrix_of_summed_updates(
    tmp_path: Path, mode: str, blocks: tuple[tuple[str, ...], ...]
) -> None:
    """Client 2 joins in the second round, client 1 misses the third; over all blocks together."""
    layout = layout_of(mode, blocks)
    rounds = [{0: 100, 1: 101}, {0: 110, 1: 111, 2: 112}, {0: 120, 2: 122}]
    histories, exact = {}, {}
    for seeds in rounds:
        for client, seed in seeds.items():
            update = spooled(tmp_path, layout, vector_of(seed))
            additions = Additions(divisor=1, since=0, before=histories.get(client))
            histories[client] = summed(tmp_path, [update], (1,), additions=additions)
            exact[client] = exact.get(client, 0.0) + vector_of(seed).astype(np.float64)
    release = Release(
        updates=[spooled(tmp_path, layout, vector_of(seed)) for seed in range(3)],
        request=StatisticsRequest(blocks=blocks, history=True),
        histories=[histories[client] for client in range(3)],
    )
    opened = release.opened(tmp_path)
    assert opened.history is not None
    covered = np.any(np.stack(members(layout)), axis=0)
    for i in range(3):
        for j in range(3):
            left, right = exact[i][covered], exact[j][covered]
            # The noise of a sum of three has three times the variance; one bound per block.
            allowed = 3 * len(release.front.drawn) * bound_of(left, right, layout)
            assert abs(opened.history[i, j] - left @ right) <= allowed, (i, j)
    assert np.array_equal(opened.history, opened.history.T)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_work_in_parts_opens_to_the_same(tmp_path: Path, parts: int) -> None:
    """However many workers share a tile; up to what each release is re-randomised and flooded with."""
    size = 5 * PROFILE.values_per_ciphertext - 7
    manifest = Manifest(tensors=(TensorSpec(name="w", shape=(size,)),))
    layout = layout_of("full", manifest=manifest)
    updates = [spooled(tmp_path, layout, vector_of(seed, size)) for seed in range(3)]
    request = StatisticsRequest(pairs=True, sample=1.0)
    whole = Release(updates=updates, request=request).opened(tmp_path)
    apart = Release(updates=updates, request=request, parts=parts).opened(tmp_path)
    # Twelve deviations of two encryptions of zero, and twice the flooding.
    zero = 12 * (2 * NOISE_VARIANCE * (2 * PROFILE.poly_degree + 1)) ** 0.5
    allowed = (zero + 2 * FLOODING) / 2.0**32
    assert np.nanmax(np.abs(whole.blocks - apart.blocks)) <= allowed


@pytest.mark.parametrize("mode", ["plain", "full"])
def test_screening_and_the_rest_join_to_what_one_stage_tells(tmp_path: Path, mode: str) -> None:
    """Norms, references and witnesses from the first stage, pairs from the second, of those that passed."""
    layout, vectors, base = layout_of(mode), [vector_of(seed) for seed in range(4)], vector_of(9)
    updates = [spooled(tmp_path, layout, flat) for flat in vectors]
    request = StatisticsRequest(pairs=True, references=1, screened=True)
    first = Release(
        updates=updates,
        request=request,
        stage=Stage.SCREENING,
        references=[Reference(plain=base)],
        known=[base],
    ).opened(tmp_path)
    rows = [*vectors, base, np.zeros(MANIFEST.size)]
    check_entries(first, layout, rows, lambda i, j: max(i, j) < 5 and (i == j or max(i, j) == 4), terms=2)
    kept = [0, 2, 3]
    ids = tuple(bytes([i + 1]) * 16 for i in kept)
    counts = tuple(10 + i for i in kept)
    release = Release(
        updates=[updates[i] for i in kept],
        request=request,
        dropped=1,
        known=[base],
        changes={"update_ids": ids, "sample_counts": counts},
    )
    second = release.opened(tmp_path)
    assert second.witnesses is None
    both = joined(first, second)
    assert both.update_ids == tuple(item.hex() for item in ids)
    assert both.dropped == 1
    assert first.witnesses is not None and both.witnesses is not None
    assert np.array_equal(both.witnesses, first.witnesses[kept])
    assert np.array_equal(both.squared_norms, first.squared_norms[kept])
    check_entries(
        both,
        layout,
        [*(vectors[i] for i in kept), base, np.zeros(MANIFEST.size)],
        lambda i, j: max(i, j) < 4,
        terms=2,
    )


def test_a_squared_norm_opens_without_the_bias_of_its_own_noise(tmp_path: Path) -> None:
    """Over 40 seals of nothing but zeros the mean is nearer to 0 than a fifth of the bias, seven deviations.

    So it is where norms are formed over a sample, with twice the deviation.
    """
    size = 10 * PROFILE.values_per_ciphertext
    layout = layout_of("full", manifest=Manifest(tensors=(TensorSpec(name="w", shape=(size,)),)))
    updates = [spooled(tmp_path, layout, np.zeros(size, dtype=np.float32)) for _ in range(40)]
    opened = Release(updates=updates, request=StatisticsRequest()).opened(tmp_path)
    assert abs(float(opened.squared_norms.mean())) <= squared_norm_bias(PROFILE, size) / 5
    sampled = Release(updates=updates, request=StatisticsRequest(pairs=True, sample=0.5)).opened(tmp_path)
    assert abs(float(np.diagonal(sampled.gram).mean())) <= squared_norm_bias(PROFILE, size) * 2 / 5


def test_hidden_entries_are_not_released_without_the_key_that_masks_them(tmp_path: Path) -> None:
    """A caller's mistake."""
    release = Release(
        updates=[spooled(tmp_path, layout_of("full"), vector_of(0))], request=StatisticsRequest()
    )
    with pytest.raises(ValueError, match="public key"):
        release_update(
            release.updates[0],
            quantities=release.front.quantities,
            references=(),
            seed=release.front.seed,
            public_key=None,
        )


def test_a_mask_without_blocks_keeps_one_block(tmp_path: Path) -> None:
    """Every second entry hidden: the halves of a pair's product add up."""
    layout = Layout(MANIFEST, Mask(np.arange(MANIFEST.size) % 2 == 0))
    vectors = [vector_of(seed) for seed in range(3)]
    updates = [spooled(tmp_path, layout, flat) for flat in vectors]
    opened = Release(updates=updates, request=StatisticsRequest(pairs=True)).opened(tmp_path)
    rows = [*vectors, *[np.zeros(MANIFEST.size)] * 2]
    check_entries(opened, layout, rows, lambda i, j: max(i, j) < 3)
