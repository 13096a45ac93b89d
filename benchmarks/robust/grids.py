"""The grids that the campaign runs without being told others."""

from __future__ import annotations

from benchmarks.robust.plan import ATTACKS, FEW_ATTACKS, FEW_RULES, RULES, Grid

COLD = 1

SHORT_ROUNDS, SHORT_START = 28, 17
SHORT = (
    Grid(rules=FEW_RULES, attacks=FEW_ATTACKS, starts=(SHORT_START,)),
    Grid(
        rules=("multi-krum:f={f}",),
        attacks=("sign-flip",),
        starts=(SHORT_START,),
        domains=("cipher", "byzfl"),
    ),
)
"""Some ten minutes on two cores."""

SHARED_RULES = (
    *("mean", "krum:f={f},k_min=1", "multi-krum:f={f}", "nnm+krum:f={f}", "median", "trimmed-mean:f={f}"),
    *("meamed:f={f}", "geometric-median:steps=3,nu=0.1", "mda:f={f}", "monna:f={f}", "caf:f={f}"),
    "arc+multi-krum:f={f}",
)
"""Those that byzfl has, too."""

LONG_ROUNDS, LONG_START = 41, 31
CAMPAIGN = (
    Grid(rules=RULES, attacks=ATTACKS, starts=(LONG_START,)),
    Grid(rules=FEW_RULES, attacks=FEW_ATTACKS, starts=(LONG_START,), fractions=(0.2, 0.4)),
    Grid(rules=SHARED_RULES, attacks=("ipm", "alie"), starts=(LONG_START,), domains=("plain", "byzfl")),
    Grid(rules=FEW_RULES, attacks=("ipm", "sign-flip"), starts=(LONG_START,), domains=("cipher",)),
    Grid(rules=FEW_RULES, attacks=("ipm", "sign-flip"), starts=(COLD,)),
    Grid(datasets=("cifar10",), rules=FEW_RULES, attacks=("ipm", "sign-flip"), starts=(LONG_START,)),
)
"""An hour on two cores."""
