"""How a data set's training samples are dealt out to clients."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError

MIN_BETA, MAX_BETA = 1e-3, 1e6


def parse_partition(text: str) -> float | None:
    """None for ``iid``, β for ``dirichlet:β``.

    Raises:
        ConfigError: CONFIG_INVALID for anything else, or β outside 0.001 … 1,000,000.

    >>> parse_partition("dirichlet:0.5")
    0.5
    """
    if text == "iid":
        return None
    kind, _, number = text.partition(":")
    try:
        beta = float(number) if kind == "dirichlet" else math.nan
    except ValueError:
        beta = math.nan
    if not MIN_BETA <= beta <= MAX_BETA:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"partition = {text!r} must be iid or dirichlet:β with β from {MIN_BETA:g} to {MAX_BETA:g}",
        )
    return beta


def partition(labels: NDArray[np.int64], clients: int, how: str, seed: int) -> list[NDArray[np.int64]]:
    """One sorted array of sample indices per client; every sample goes to exactly one, nobody is left empty.

    ``iid`` shuffles and cuts into parts whose sizes differ by at most one. ``dirichlet:β`` draws, per
    class, the clients' shares from Dirichlet(β, …, β) (Hsu, Qi, Brown, arXiv 1909.06335, per class
    instead of per client); small β means few classes per client. Who would get nothing then receives
    one sample from whoever has most.

    Args:
        labels: int64 [n].
        clients: 1 … n.
        seed: the same seed gives the same parts.

    Raises:
        ConfigError: CONFIG_INVALID for more clients than samples or an unknown ``how``.
    """
    beta = parse_partition(how)
    if not 1 <= clients <= len(labels):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"clients = {clients} must be 1 to {len(labels)}, the number of training samples",
        )
    generator = np.random.default_rng([seed, 0])
    if beta is None:
        parts = np.array_split(generator.permutation(len(labels)), clients)
    else:
        parts = _dirichlet(labels, clients, beta, generator)
    return [np.sort(part).astype(np.int64) for part in parts]


def _dirichlet(
    labels: NDArray[np.int64], clients: int, beta: float, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    owner = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        # Gammas that all underflow would make the shares NaN; the tiny floor makes them equal then.
        gammas = generator.standard_gamma(beta, clients) + np.finfo(np.float64).tiny
        bounds = np.cumsum(gammas / gammas.sum())
        owner[members] = np.searchsorted(bounds, (np.arange(len(members)) + 0.5) / len(members)).clip(
            max=clients - 1
        )
    sizes = np.bincount(owner, minlength=clients)
    for client in np.flatnonzero(sizes == 0):
        richest = int(np.argmax(sizes))
        owner[generator.choice(np.flatnonzero(owner == richest))] = client
        sizes[richest] -= 1
        sizes[client] += 1
    return [np.flatnonzero(owner == client) for client in range(clients)]
