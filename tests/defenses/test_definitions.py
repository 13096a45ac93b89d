"""Each rule against its definition written out on the vectors themselves, and what sets it apart."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import honest

from defenses import load_rule
from defenses.caf import top_direction
from defenses.flame import majority_cluster
from defenses.krum import krum_scores
from secagg.errors import ConfigError
from secagg.rule import statistics_of

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int = 9, d: int = 12):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, d)) * generator.uniform(0.5, 2.0, (n, 1)), generator


def of(text: str, updates, f: int, **more):
    return load_rule(text).coefficients(statistics_of(updates, **more), f)


def cosine(u, v) -> float:
    return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


@given(seeds, st.integers(0, 3))
def test_krum_scores_sum_the_distances_of_the_nearest(seed, f):
    """|N_i| = n − f − 2, u_i itself not in it."""
    updates, _ = drawn(seed)
    distances = np.square(updates[:, None] - updates).sum(axis=2)
    wanted = [sorted(np.delete(row, i))[: 9 - f - 2] for i, row in enumerate(distances)]
    scores = krum_scores(statistics_of(updates).squared_distances, f)
    assert np.allclose(scores, np.sum(wanted, axis=1))
    best = np.argsort(scores)
    assert np.flatnonzero(of("krum:k_min=1", updates, f)).tolist() == [best[0]]
    assert set(np.flatnonzero(of("multi-krum", updates, f))) == set(best[: 9 - f])
    assert set(np.flatnonzero(of("multi-krum:m=4", updates, f))) == set(best[:4])


@given(seeds, st.integers(0, 4))
def test_no_set_has_a_smaller_diameter_than_mdas(seed, f):
    """Against all n!/(f!(n − f)!) sets; of those with the same diameter, none lies closer together."""
    updates, _ = drawn(seed)
    distances = statistics_of(updates).squared_distances
    chosen = np.flatnonzero(of("mda", updates, f))
    assert len(chosen) == 9 - f

    def measures(members):
        part = distances[np.ix_(members, members)]
        return round(float(part.max()), 9), float(part.sum())

    best = min(measures(list(members)) for members in itertools.combinations(range(9), 9 - f))
    assert measures(chosen) == pytest.approx(best)


def test_mda_is_quick_where_all_sets_are_too_many():
    """40 updates without 12 are 5.6 thousand million sets."""
    updates, generator = drawn(3, n=40)
    updates[:12] += 50 * generator.normal(size=(12, 12))
    assert np.flatnonzero(of("mda", updates, 12)).tolist() == list(range(12, 40))


@given(seeds, st.integers(0, 3))
def test_smea_minimises_the_top_eigenvalue(seed, f):
    updates, _ = drawn(seed)

    def top(members):
        return float(np.linalg.svd(updates[members] - updates[members].mean(axis=0))[1][0] ** 2)

    best = min(top(list(members)) for members in itertools.combinations(range(9), 9 - f))
    assert top(np.flatnonzero(of("smea", updates, f))) == pytest.approx(best)


def test_smea_leaves_out_one_by_one_where_sets_are_too_many():
    """30 updates without 8 are 5.9 million sets; far updates are left out all the same."""
    updates, generator = drawn(3, n=30)
    updates[:8] += 30 * generator.normal(size=(8, 12))
    assert np.flatnonzero(of("smea", updates, 8)).tolist() == list(range(8, 30))


@given(seeds)
def test_top_direction_is_the_weighted_covariances(seed):
    """Eigenvalue and squared projections, from the Gram matrix, as from the covariance matrix."""
    updates, generator = drawn(seed)
    shares = generator.uniform(size=9)
    shares /= shares.sum()
    centred = updates - shares @ updates
    values, vectors = np.linalg.eigh((centred * shares[:, None]).T @ centred)
    value, taus = top_direction(updates @ updates.T, shares)
    assert value == pytest.approx(values[-1])
    assert np.allclose(taus, np.square(centred @ vectors[:, -1]), atol=1e-6 * values[-1])


def test_caf_ends_though_a_dropped_update_still_sticks_out():
    """Only those that have weight left are measured against each other."""
    updates, _ = drawn(1)
    updates[0] *= 1e5
    found = of("caf", updates, 1)
    assert found[0] == 0 and found.sum() == pytest.approx(1.0)


@given(seeds)
def test_the_geometric_median_has_the_smallest_sum_of_distances(seed):
    """No point near it has a smaller one, nor has the mean."""
    updates, generator = drawn(seed)
    median = of("geometric-median", updates, 2) @ updates

    def total(point):
        return float(np.linalg.norm(updates - point, axis=1).sum())

    steps = generator.normal(size=(20, 12))
    assert total(median) <= min(total(median + 0.01 * step) for step in steps) + 1e-6
    assert total(median) <= total(updates.mean(axis=0)) + 1e-6


@given(seeds, st.integers(0, 3))
def test_dnc_drops_along_the_top_singular_vector(seed, f):
    updates, _ = drawn(seed)
    centred = updates - updates.mean(axis=0)
    scores = np.square(centred @ np.linalg.svd(centred)[2][0])
    assert set(np.flatnonzero(of("dnc", updates, f))) == set(np.argsort(scores)[: 9 - f])
    assert np.count_nonzero(of("dnc:c=1.5", updates, f)) == 9 - int(1.5 * f)


def test_dnc_sees_one_direction():
    """Attackers side by side are dropped; one that sticks out elsewhere stays."""
    updates = honest(9, np.random.default_rng(0))
    beside, apart = updates.copy(), updates.copy()
    beside[:2] += 1e4 * np.eye(24)[0]
    apart[0] += 1e4 * np.eye(24)[0]
    apart[1] += 1e2 * np.eye(24)[1]
    assert not of("dnc", beside, 2)[:2].any()
    assert of("dnc", apart, 2)[0] == 0


def test_bulyan_selects_by_krum_among_those_left():
    updates, _ = drawn(4, n=11)
    left, selected = list(range(11)), []
    totals = np.square(updates[:, None] - updates).sum(axis=2).sum(axis=1)
    while len(selected) < 11 - 4:
        distances = np.square(updates[left][:, None] - updates[left]).sum(axis=2)
        scores = np.sort(distances, axis=1)[:, 1 : 1 + max(1, len(left) - 4)].sum(axis=1)
        # The last ones have one neighbour: of two that are each other's, the one nearer to all goes first.
        ranks = [(round(float(s), 9), totals[i]) for s, i in zip(scores, left, strict=True)]
        selected.append(left.pop(min(range(len(left)), key=ranks.__getitem__)))
    assert np.flatnonzero(of("bulyan-selection", updates, 2)).tolist() == sorted(selected)


@given(seeds)
def test_fltrust_is_the_papers(seed):
    """Σ ReLU(cos(u_i, u_0))·(‖u_0‖/‖u_i‖)·u_i / Σ ReLU(cos)."""
    updates, _ = drawn(seed)
    root = updates[4]
    trust = np.array([max(0.0, cosine(u, root)) for u in updates])
    trust[4] = 0
    # Where nobody agrees with the root, nothing counts.
    wanted = trust / (trust.sum() or 1.0) * np.linalg.norm(root) / np.linalg.norm(updates, axis=1)
    assert np.allclose(of("fltrust", updates, 1, root=4), wanted)


def test_fltrust_needs_no_honest_majority():
    """Eight of ten send the opposite, at any length: the two that agree with the root remain."""
    updates = honest(11, np.random.default_rng(0))
    updates[:8] *= -np.linspace(0.1, 100, 8)[:, None]
    assert np.flatnonzero(of("fltrust", updates, 8, root=10)).tolist() == [8, 9]
    assert not of("fltrust", -updates, 8, root=10)[8:].all()


@given(seeds)
def test_foolsgold_is_the_authors_code(seed):
    """With the pardoning and the logit as in ``DistributedML/FoolsGold``, and weights of sum 1."""
    history, _ = drawn(seed)
    n = len(history)
    alike = np.array([[cosine(u, v) for v in history] for u in history]) - np.eye(n)
    highest = alike.max(axis=1)
    pardoned = alike.copy()
    for i in range(n):
        for j in range(n):
            if i != j and highest[i] < highest[j]:
                pardoned[i, j] *= highest[i] / highest[j]
    trust = np.clip(1 - pardoned.max(axis=1), 0, 1)
    trust = trust / trust.max()
    trust[trust == 1] = 0.99
    trust = np.clip(np.log(trust / (1 - trust)) + 0.5, 0, 1)
    found = of("foolsgold", history, 1, history=history)
    # Between 0.99 and 1 both are cut to 1: ln(99) + ½ > 1.
    assert np.allclose(found, trust / trust.sum(), atol=1e-9)


def test_foolsgold_gives_sybils_little_and_lone_clients_all():
    """Three that always say the same against five that do not."""
    generator = np.random.default_rng(0)
    history = np.vstack(
        [generator.normal(size=(5, 60)), np.ones((3, 60)) + 0.01 * generator.normal(size=(3, 60))]
    )
    found = of("foolsgold", history, 3, history=history)
    assert (found[:5] > 0.15).all() and not found[5:].any()


@given(seeds, st.integers(2, 14))
def test_the_cluster_is_hdbscans(seed, n):
    """scikit-learn's, with the paper's parameters; its noise points are those left out."""
    from sklearn.cluster import HDBSCAN

    generator = np.random.default_rng(seed)
    models = generator.normal(size=(n, 6)) + generator.choice([0.0, 2.0])
    units = models / np.linalg.norm(models, axis=1, keepdims=True)
    distances = np.maximum(1 - units @ units.T, 0)
    np.fill_diagonal(distances, 0)
    found = HDBSCAN(
        min_cluster_size=max(2, n // 2 + 1),
        min_samples=1,
        allow_single_cluster=True,
        metric="precomputed",
        copy=True,
    ).fit(distances)
    assert majority_cluster(distances).tolist() == (found.labels_ == 0).tolist()


def test_flame_clips_to_the_median_of_all_norms():
    """min(1, S/‖u_i‖)/|L|, S over those left out as well."""
    updates = honest(9, np.random.default_rng(2))
    updates[:3] *= -3
    updates[3] *= 1.5
    base = np.random.default_rng(1).normal(size=24)
    found = of("flame", updates, 2, base=base)
    models, norms = updates + base, np.linalg.norm(updates, axis=1)
    members = majority_cluster(1 - np.array([[cosine(u, v) for v in models] for u in models]))
    assert not members[:3].any()
    assert np.allclose(found, members * np.minimum(1, np.median(norms) / norms) / members.sum())


@given(seeds)
def test_clipping_to_the_median_norm(seed):
    updates, _ = drawn(seed)
    norms = np.linalg.norm(updates, axis=1)
    assert np.allclose(of("norm-clipping", updates, 2), np.minimum(1, np.median(norms) / norms) / 9)


@pytest.mark.parametrize(
    ("n", "f", "cut"), [(10, 0, 0), (10, 1, 1), (10, 3, 4), (10, 4, 4), (7, 2, 2), (50, 5, 9)]
)
def test_arc_clips_as_many_as_the_paper_says(n, f, cut):
    """⌊2(f/n)(n − f)⌋, to the norm of the next longest."""
    updates = np.diag(np.arange(1.0, n + 1))
    found = of("arc", updates, f) * n
    assert np.allclose(found, np.minimum(1, (n - cut) / np.arange(1.0, n + 1)))


@given(seeds)
def test_centred_clipping_with_a_wide_bound_is_the_mean(seed):
    updates, _ = drawn(seed)
    assert np.allclose(of("centered-clipping:tau=1e6", updates, 2), 1 / 9)


@given(seeds, st.integers(0, 3))
def test_coordinate_rules_stay_between_honest_values(seed, f):
    """However far f of the n = 2f + 1 … values are; Meamed within three times the honest spread."""
    generator = np.random.default_rng(seed)
    n = 2 * f + 1 + int(generator.integers(0, 3))
    values = generator.normal(size=(n, 5))
    values[:f] = generator.choice([-1e6, 1e6], (f, 5))
    low, high = values[f:].min(axis=0), values[f:].max(axis=0)
    order = generator.permutation(n)
    for name in ("median", "trimmed-mean", "meamed"):
        rule = load_rule(name if name == "median" else f"{name}:f={f}")
        found, slack = rule.combine(values), (high - low) if name == "meamed" else 1e-12
        assert (found >= low - slack).all() and (found <= high + slack).all()
        assert np.allclose(rule.combine(values[order]), found)
        assert np.allclose(rule.combine(values + np.arange(5)), found + np.arange(5))


def test_coordinate_rules_refuse_more_attackers_than_they_bear():
    with pytest.raises(ConfigError, match="needs n ≥ 2f \\+ 1: with f = 2 at least 5 updates"):
        load_rule("trimmed-mean:f=2").require(4)
    with pytest.raises(ConfigError):
        load_rule("meamed:f=2").combine(np.zeros((4, 3)))


def test_trimming_as_much_as_possible_is_the_median():
    """Without f: ⌊(n − 1)/2⌋ from either end."""
    values = np.random.default_rng(0).normal(size=(8, 5))
    for n in (7, 8):
        assert np.allclose(load_rule("trimmed-mean").combine(values[:n]), np.median(values[:n], axis=0))
