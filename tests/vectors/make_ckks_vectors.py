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
    Opener,
    PlainOperand,
    SealedOperand,
    Sealer,
    Steps,
    aggregate_vector,
    generate,
    inner_products,
)

FOLDER = Path(__file__).parent
WEIGHT = 3
STEP = 2.0**-9


def main() -> None:
    """Write ``ckks_<profile>.*`` and ``ckks.json``."""
    values = np.linspace(-0.9, 0.9, 1000)
    answers = {}
    for name, profile in PROFILES.items():
        pair = generate(profile)
        steps = Steps.uniform(values.size, STEP) if profile.quantised else None
        sealed = Sealer(pair.secret).seal(values, steps=steps)
        reader = lambda _, data=sealed: data[3:]  # noqa: E731
        aggregate = b"".join(aggregate_vector([reader], [WEIGHT], values.size, profile))
        files = {"secret": pair.secret.to_bytes(), "public": pair.public.to_bytes(), "sealed": sealed}
        answers[name] = {
            "values": values.size,
            "weight": WEIGHT,
            "step": STEP if profile.quantised else 0.0,
            "key_id": pair.key_id.hex(),
            "aggregate_sha256": hashlib.sha256(aggregate).hexdigest(),
            "opened": [
                float(x) for x in Opener(pair.secret).open_vector(aggregate, values.size, steps=steps)[:8]
            ],
        }
        if profile.inner_products:
            operands = [SealedOperand(reader=reader), PlainOperand(values=values)]
            scalars = inner_products(operands, [(0, 1), (0, 0)], values.size, pair.public)
            for kind, scalar in zip(("linear", "bilinear"), scalars, strict=True):
                files[kind] = scalar
                answers[name][kind] = Opener(pair.secret).open_scalar(scalar)
        for kind, data in files.items():
            (FOLDER / f"ckks_{name}.{kind}").write_bytes(data)
    (FOLDER / "ckks.json").write_text(json.dumps(answers, indent=2) + "\n")


if __name__ == "__main__":
    main()
