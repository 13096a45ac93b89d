"""The whole way of an update: any shapes, any number of clients, and the opened aggregate is their mean."""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.aggregate import Shares, WeightedUpdates, mean_error_bound, open_aggregate, write_aggregate
from secagg.ckks import PROFILES, KeyPair, Opener, Sealer, generate
from secagg.ckks.bounds import error_bound, max_squared_norm
from secagg.payload import Quantisation, seal_update
from secagg.plan import Protection, Significance
from secagg.scales import Scales
from secagg.selection import Layout, derive_mask
from secagg.update import Manifest, TensorSpec

MODES = {
    "full": Protection.full(),
    "selective": Protection.selective(significance=Significance.RANDOM, ratio=0.3),
}
MOST_CLIENTS, MOST_VALUES = 50, 10**6
UNIT = 1000
"""The sample count of weight 1 under a quantising profile."""

AT_ONCE = 1_500_000
"""Most values drawn of all sealed vectors of one round together: what keeps the test short."""

EXPONENTS = tuple(np.linspace(0, 1, 33).tolist())
Shapes = Sequence[tuple[int, ...]]


@cache
def pair_of(name: str) -> KeyPair:
    """One key pair per profile."""
    return generate(PROFILES[name])


@st.composite
def shapes_of(draw: st.DrawFn, most: int) -> list[tuple[int, ...]]:
    """Shapes of 1 to 6 tensors of one to three dimensions; their sizes' sum is log-uniform up to ``most``."""
    size = round(most ** draw(st.sampled_from(EXPONENTS)))
    cuts = sorted(draw(st.sets(st.integers(1, size - 1), max_size=5))) if size > 1 else []
    shapes = []
    for start, end in zip([0, *cuts], [*cuts, size], strict=True):
        shape = [end - start]
        for factor in draw(st.lists(st.sampled_from([2, 3, 5, 7]), max_size=2)):
            if shape[-1] % factor == 0:
                shape[-1:] = [factor, shape[-1] // factor]
        shapes.append(tuple(shape))
    return shapes


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Shapes, int, int]:
    """Shapes, how many clients, and how many different vectors they have between them."""
    clients = draw(st.integers(1, MOST_CLIENTS))
    # Mostly everybody has a vector of their own; where vectors are long, several send the same ciphertexts.
    different = draw(st.sampled_from([clients, clients, min(clients, 3), 1]))
    return draw(shapes_of(min(MOST_VALUES, AT_ONCE // different))), clients, different


def model_of(manifest: Manifest, largest: float, seed: list[int]) -> dict[str, NDArray[np.float32]]:
    """Named tensors with |value| up to ``largest``."""
    generator = np.random.default_rng(seed)
    return {
        spec.name: generator.uniform(-largest, largest, spec.shape).astype(np.float32)
        for spec in manifest.tensors
    }


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(set(PROFILES) - {"nvflare"})),
    mode=st.sampled_from(sorted(MODES)),
    round_=rounds(),
    largest=st.sampled_from([0.0, 1e-6, 0.05, 1.0, 16.0]),
    seed=st.integers(0, 2**32 - 1),
)
@example(name="precise", mode="full", round_=([(1,)], 1, 1), largest=1.0, seed=0)
@example(name="precise", mode="full", round_=([(1000, 999), (1000,)], 2, 2), largest=0.05, seed=1)
@example(name="robust", mode="full", round_=([(1000, 999), (1000,)], 2, 2), largest=0.05, seed=2)
@example(
    name="robust", mode="selective", round_=([(100, 300), (7, 5, 11), (3,)], 50, 50), largest=1.0, seed=3
)
@example(name="precise", mode="full", round_=([(100, 300), (7, 5, 11), (3,)], 50, 50), largest=16.0, seed=4)
@example(
    name="compact", mode="selective", round_=([(100, 300), (7, 5, 11), (3,)], 50, 50), largest=1.0, seed=6
)
@example(name="compact-10", mode="full", round_=([(1000, 999), (1000,)], 50, 2), largest=0.05, seed=7)
@example(name="precise", mode="full", round_=([(250, 800)], 50, 4), largest=0.05, seed=5)
def test_opened_aggregate_is_the_weighted_mean_of_any_models(
    name: str, mode: str, round_: tuple[Shapes, int, int], largest: float, seed: int
) -> None:
    """1 to 50 clients, 1 to 10⁶ values, integer weights that may be 0: every entry is within the noise bound
    (and the rounding to float32), and every tensor comes back in its place."""
    shapes, clients, different = round_
    manifest = Manifest(
        tensors=tuple(TensorSpec(name=f"t{index}", shape=shape) for index, shape in enumerate(shapes))
    )
    used = PROFILES[name]
    if used.inner_products:
        # What may be sealed there is bounded in norm, too: |value| ≤ L gives ‖u‖² ≤ L²·d.
        largest = min(largest, float(np.sqrt(max_squared_norm(used) / manifest.size)))
    layout = Layout(manifest, derive_mask(MODES[mode], manifest, bytes(16), 1))
    models = [model_of(manifest, largest, [seed, index]) for index in range(different)]
    generator = np.random.default_rng(seed)
    if used.quantised:
        # Who sends the same ciphertexts has the same sample count; up to 50 clients of weight 1 have
        # headroom.
        counts = [int(n) for n in generator.integers(UNIT // 2, UNIT + 1, different)]
        weights = [counts[client % different] for client in range(clients)]
        # The base model of a real round is like its updates; here it covers them all.
        base = np.max([np.abs(manifest.flatten(model)) for model in models], axis=0)
        scales = Scales.around(base, manifest)
    else:
        weights = [
            int(w) for w in generator.multinomial(used.weight_total, generator.dirichlet([0.3] * clients))
        ]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"update-{index}" for index in range(different)]
        for index, (path, model) in enumerate(zip(paths, models, strict=True)):
            flat = manifest.flatten(model)
            how = Quantisation(scales=scales, weight=counts[index] / UNIT) if used.quantised else None
            path.write_bytes(b"".join(seal_update(flat, layout, Sealer(pair_of(name).secret), how)))
        out = Path(folder) / "aggregate"
        updates = WeightedUpdates(
            round=1,
            paths=tuple(paths[client % different] for client in range(clients)),
            weights=tuple(weights),
            layout=layout,
            profile=used,
            shares=Shares(unit=UNIT, scales=scales) if used.quantised else None,
        )
        write_aggregate(out, updates)
        opened = open_aggregate(
            out, round=1, layout=layout, profile=used, opener=Opener(pair_of(name).secret)
        )
    # Ciphertexts sent twice carry the same noise: their weights add up.
    added = np.array([sum(weights[index::different]) for index in range(different)])
    if used.quantised:
        bound = mean_error_bound(updates, max_abs=largest)
    else:
        bound = error_bound(used, manifest.size, added, max_abs=largest)
    for tensor_name, tensor in manifest.unflatten(opened).items():
        terms = zip(added, models, strict=True)
        exact = sum(w * model[tensor_name].astype(np.float64) for w, model in terms) / sum(weights)
        assert tensor.shape == exact.shape
        assert (np.abs(tensor - exact) <= bound + np.spacing(np.abs(tensor)) / 2).all()
