"""What hiding so large a share costs, measured on the CKKS engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from attacks.inversion.bench.cell import MEASURE, Cell
from attacks.inversion.bench.store import Outcome, Store
from defenses import load_rule
from secagg.overhead.measure import Setting, measure
from secagg.overhead.schemes import PLAIN, SELECTIVE, SELECTIVE_PROFILE, Scheme
from secagg.update import Manifest

REPEAT = 5
"""Times are medians of so many runs."""
PROFILE = SELECTIVE_PROFILE
"""What ``auto`` takes for a mean over this many clients: the smallest of the profiles."""


def scheme_of(share: float) -> str:
    """As ``Scheme.parse`` reads it.

    >>> scheme_of(0.1)
    'selective:0.1:compact'
    """
    if share in (0, 1):
        return PROFILE if share else PLAIN
    return f"{SELECTIVE}:{share:g}:{PROFILE}"


def shares_of(
    ended: Sequence[tuple[Cell, Outcome]], manifests: Mapping[str, Manifest]
) -> dict[tuple[str, float], list[str]]:
    """Which shares are really encrypted, and under what: (victim, share) -> protections.

    Whole tensors, and statistics beside a mask, come to more than the ratio that was asked for. A protection
    under which updates differ counts with their mean; costs are linear in the share. Shares that a whole
    number of entries makes of a ratio are that ratio; others are rounded to four digits.

    Args:
        ended: of which those that hold the measures of exposures count.
        manifests: of the victims.
    """
    found: dict[tuple[str, str, float, str], list[float]] = {}
    for cell, outcome in ended:
        if cell.attacker == MEASURE:
            names = (cell.victim, cell.significance, cell.ratio, cell.perturb)
            shares = [row["hidden_share"] for row in outcome.rows if row.get("hidden_share") is not None]
            found.setdefault(names, []).extend(shares)
    wanted: dict[tuple[str, float], list[str]] = {}
    for (victim, significance, ratio, perturb), shares in found.items():
        if shares:
            share = fmean(shares)
            # Nothing and everything are schemes of their own; what is near to them is neither.
            if 0 < share < 1:
                near = abs(share - ratio) * manifests[victim].size <= 1 and 0 < ratio < 1
                share = ratio if near else min(float(f"{share:.4g}"), 0.9999)
            title = f"{significance} {ratio:g}" + (f" + {perturb}" if perturb else "")
            wanted.setdefault((victim, share), []).append(title)
    return dict(sorted(wanted.items()))


def costs_of(
    ended: Sequence[tuple[Cell, Outcome]],
    manifests: Mapping[str, Manifest],
    store: Store,
    *,
    out: Path,
    clients: int,
    seed: int,
    note: Callable[[str], None] = lambda _text: None,
) -> Iterator[dict[str, Any]]:
    """One row per victim and share: seal a client's update of that many entries, sum all, open.

    A row's ``ratio`` is the share that is really encrypted; ``protections`` are those that come to it.

    Rows that are stored are not measured again.

    Args:
        ended: as in ``shares_of``.
        manifests: of the victims.
        store: keeps rows as they come.
        out: folder for scratch files, which are gone afterwards.
        clients: whose updates the server sums; at least 1.
        seed: of the values.
        note: told what happens next.

    Raises:
        ConfigError: CONFIG_INVALID if the profile has no room for so many clients.
        SecaggError: INTERNAL if a process of the engine fails.
    """
    with Setting.opened(
        out, clients=clients, seed=seed, repeat=REPEAT, workers=1, rules=load_rule
    ) as setting:
        for (victim, share), protections in shares_of(ended, manifests).items():
            name = scheme_of(share)
            scheme, manifest = Scheme.parse(name), manifests[victim]
            key = f"{victim} {manifest.digest.hex()[:16]} {name} {clients}"
            row = store.cost(key)
            if row is None:
                measured = measure(victim, manifest, scheme, setting, note=note)
                row = {
                    "victim": victim,
                    "ratio": share,
                    "scheme": name,
                    "clients": clients,
                    "values": measured.values,
                    "bytes_up": measured.bytes_up,
                    "bytes_down": measured.bytes_down,
                    "seal_ms": round(1000 * measured.seal_s, 3),
                    "aggregate_ms": round(1000 * measured.aggregate_s, 3),
                    "open_ms": round(1000 * measured.open_s, 3),
                }
                store.add_cost(key, row)
            yield row | {"protections": protections}


def check_clients(clients: int) -> None:
    """See that the profile has room for so many.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    Scheme.parse(PROFILE).check_clients(clients)
