"""Makes the known-answer files of the CKKS wire forms; run by hand, and only when a wire version is added.

    python tests/vectors/make_ckks_vectors.py

Everything random is fresh on each run, so the files differ each time; what a test checks is that the
committed ones keep their meaning.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from secagg.ckks import (
    PROFILES,
    Itself,
    Opener,
    PlainOperand,
    Sealer,
    generate,
    inner_products,
    weighted_sum,
)

FOLDER = Path(__file__).parent
WEIGHT = 3


def main() -> None:
    """Write ``ckks_<profile>.*`` and ``ckks.json``."""
    values = np.linspace(-1, 1, 1000)
    answers = {}
    for name, profile in PROFILES.items():
        pair = generate(profile)
        sealed = Sealer(pair.secret).seal(values)
        reader = lambda _, data=sealed: data[3:]  # noqa: E731
        aggregate = b"".join(weighted_sum([reader], [WEIGHT], values.size, profile))
        (FOLDER / f"ckks_{name}.secret").write_bytes(pair.secret.to_bytes())
        (FOLDER / f"ckks_{name}.sealed").write_bytes(sealed)
        answers[name] = {
            "values": values.size,
            "weight": WEIGHT,
            "aggregate_sha256": hashlib.sha256(aggregate).hexdigest(),
            "opened": [float(x) for x in Opener(pair.secret).open_vector(aggregate, values.size)[:8]],
        }
        if profile.inner_products:
            linear, _ = inner_products(reader, [PlainOperand(values=values), Itself()], 1000, pair.public)
            (FOLDER / f"ckks_{name}.scalar").write_bytes(linear)
            answers[name]["scalar"] = Opener(pair.secret).open_scalar(linear)
    (FOLDER / "ckks.json").write_text(json.dumps(answers, indent=2) + "\n")


if __name__ == "__main__":
    main()
