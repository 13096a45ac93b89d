"""What hiding so large a share costs, measured on the CKKS engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attacks.inversion.bench.cell import FULL, NONE, Cell
from attacks.inversion.bench.store import Store
from defenses import load_rule
from secagg.overhead.measure import Setting, measure
from secagg.overhead.schemes import PLAIN, SELECTIVE, SELECTIVE_PROFILE, Scheme
from secagg.update import Manifest

REPEAT = 5
"""Times are medians of so many runs."""
PROFILE = SELECTIVE_PROFILE
"""What ``auto`` takes for a mean over this many clients: the smallest of the profiles."""


def scheme_of(significance: str, ratio: float) -> str:
    """As ``Scheme.parse`` reads it.

    >>> scheme_of("magnitude", 0.1)
    'selective:0.1:compact'
    """
    if significance == NONE or ratio == 0:
        return PLAIN
    return PROFILE if significance == FULL or ratio == 1 else f"{SELECTIVE}:{ratio:g}:{PROFILE}"


def costs_of(
    cells: Sequence[Cell],
    manifests: Mapping[str, Manifest],
    store: Store,
    *,
    out: Path,
    clients: int,
    seed: int,
    note: Callable[[str], None] = lambda _text: None,
) -> Iterator[dict[str, Any]]:
    """One row per victim and ratio: seal a client's update of that many entries, sum all, open.

    Rows that are stored are not measured again.

    Args:
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
    wanted = dict.fromkeys(
        (cell.victim, cell.ratio, scheme_of(cell.significance, cell.ratio)) for cell in cells
    )
    with Setting.opened(
        out, clients=clients, seed=seed, repeat=REPEAT, workers=1, rules=load_rule
    ) as setting:
        for victim, ratio, name in sorted(wanted):
            scheme, manifest = Scheme.parse(name), manifests[victim]
            key = f"{victim} {manifest.digest.hex()[:16]} {name} {clients}"
            row = store.cost(key)
            if row is None:
                measured = measure(victim, manifest, scheme, setting, note=note)
                row = {
                    "victim": victim,
                    "ratio": ratio,
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
            yield row


def check_clients(clients: int) -> None:
    """See that the profile has room for so many.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    Scheme.parse(PROFILE).check_clients(clients)
