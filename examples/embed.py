"""Logistic regression on scikit-learn's breast cancer data, trained by hospitals that keep their records.

Usage: python examples/embed.py IDENTITY_DIR HOST:PORT PART PARTS

Each client takes every PARTS-th record from PART on. The part that embeds secagg is ``main``.
"""

import sys

import numpy as np
from sklearn.datasets import load_breast_cancer

import defenses
from secagg import Client


def hospital(part, parts):
    """This client's records, standardised: float32 [n, 30] and labels [n] in {0, 1}."""
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x[part::parts].astype(np.float32), y[part::parts].astype(np.float32)


def train(model, x, y, steps=50, rate=0.5):
    """Gradient descent on the logistic loss, from the global model."""
    w, b = model["weight"], model["bias"]
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(x @ w + b))) - y
        w = w - rate * (x.T @ error) / len(y)
        b = b - rate * error.mean(keepdims=True)
    return {"weight": w.astype(np.float32), "bias": b.astype(np.float32)}


def accuracy(model, x, y):
    """Share of records on the right side of the hyperplane."""
    return float(np.mean((x @ model["weight"] + model["bias"] > 0) == y))


def main(identity, server, part, parts):
    x, y = hospital(part, parts)
    with Client.load(identity, server=server, rules=defenses.load_rule) as client:
        for round in client.rounds():
            tensors = train(round.model, x, y)
            result = round.contribute(tensors, sample_count=len(y))
            print(f"round {result.round}: accuracy {accuracy(result.model, x, y):.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
