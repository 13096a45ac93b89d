"""Makes ``byzfl_*.npz``: what byzfl 0.0.11 (LPD-EPFL/byzfl, MIT) makes of some updates; run by hand.

    pip install --target /tmp/byzfl --no-deps byzfl==0.0.11
    python tests/vectors/make_byzfl_vectors.py /tmp/byzfl

byzfl as a whole imports torchvision, seaborn and pandas, of which its aggregators need nothing. They are
imported alone, under a package object that has byzfl's path and none of its top level; tests need the files
only.

CAF and SMEA of byzfl find the top eigenvector by one step of power iteration from a random vector, and give
another result in each call. What is kept here is what the same code gives with so many steps that it
converges.
"""

import inspect
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

FOLDER = Path(__file__).parent
STEPS = {"CAF": 20_000, "SMEA": 2_000}
CASES = {"small": (7, 2, 12), "usual": (10, 3, 60), "odd": (11, 3, 40), "half": (9, 4, 25)}
"""Name -> n, f, d."""


def main(packages: str) -> None:
    """Write one file per case."""
    package = ModuleType("byzfl")
    package.__path__ = [str(Path(packages) / "byzfl")]
    sys.modules["byzfl"] = package
    import byzfl.aggregators as published
    from byzfl.aggregators import aggregators

    for at, (case, (n, f, d)) in enumerate(CASES.items()):
        np.random.seed(at)
        updates = some_updates(n, f, d, np.random.default_rng([2502, at]))

        def of(name: str, u=updates, **parameters: object) -> np.ndarray:
            # A new object and a copy each time: clipping changes its argument, centred clipping keeps state.
            return getattr(published, name)(**parameters)(u.copy())

        def converged(name: str, u=updates, f=f) -> np.ndarray:
            source = inspect.getsource(getattr(aggregators, name)).replace(
                "max_iters=1", f"max_iters={STEPS[name]}"
            )
            scope = dict(vars(aggregators))
            exec(source, scope)
            return scope[name](f=f)(u.copy())

        found = {
            "krum": of("Krum", f=f),
            "multi_krum": of("MultiKrum", f=f),
            "mda": of("MDA", f=f),
            "nnm": of("NNM", f=f),
            "nnm_krum": published.Krum(f=f)(of("NNM", f=f)),
            "monna": of("MoNNA", f=f, idx=1),
            "geometric_median": of("GeometricMedian"),
            "centered_clipping": of("CenteredClipping", L=1, tau=100.0),
            "centered_clipping_short": of("CenteredClipping", L=4, tau=2.5),
            "norm_clipping": of("Clipping", c=2.0),
            "arc": of("ARC", f=f),
            "caf": converged("CAF"),
            "smea": converged("SMEA"),
            "median": of("Median"),
            "trimmed_mean": of("TrMean", f=f),
            "meamed": of("Meamed", f=f),
        }
        np.savez_compressed(FOLDER / f"byzfl_{case}.npz", f=f, updates=updates, **found)
        print(case, {name: value.shape for name, value in found.items()})


def some_updates(n: int, f: int, d: int, generator: np.random.Generator) -> np.ndarray:
    """n − f around one point, f elsewhere, such that one set of n − f has the smallest diameter."""
    while True:
        updates = generator.normal(size=(n, d)) * generator.uniform(0.5, 1.5, (n, 1)) + generator.normal(
            size=d
        )
        updates[generator.choice(n, f, replace=False)] += generator.normal(size=(f, d)) * 0.7
        distances = np.linalg.norm(updates[:, None] - updates[None], axis=2)
        sets = itertools.combinations(range(n), n - f)
        diameters = sorted(distances[np.ix_(members, members)].max() for members in sets)
        if diameters[1] > diameters[0] + 1e-6:
            return updates


if __name__ == "__main__":
    main(sys.argv[1])
