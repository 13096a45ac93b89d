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

LONG_ROUNDS, LONG_START = 50, 31
CAMPAIGN = (
    Grid(rules=RULES, attacks=ATTACKS, starts=(LONG_START,)),
    Grid(rules=FEW_RULES, attacks=FEW_ATTACKS, starts=(LONG_START,), fractions=(0.1, 0.2, 0.4)),
    Grid(rules=RULES, attacks=("ipm", "alie", "sign-flip"), starts=(LONG_START,), domains=("byzfl",)),
    Grid(rules=FEW_RULES, attacks=("ipm", "sign-flip"), starts=(LONG_START,), domains=("cipher",)),
    Grid(rules=FEW_RULES, attacks=("ipm", "sign-flip"), starts=(COLD,)),
    Grid(datasets=("cifar10",), rules=FEW_RULES, attacks=("ipm", "sign-flip"), starts=(LONG_START,)),
)
"""An hour on two cores."""
