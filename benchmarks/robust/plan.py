"""Which cells a campaign has: grids of rules, attacks, shares, domains and starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.robust.cell import DOMAINS, NO_ATTACK, Cell, Setting
from benchmarks.robust.coalition import attack_of
from benchmarks.robust.domains import possible
from defenses import load_rule
from secagg.errors import Code, ConfigError

FEW_RULES = (
    "mean",
    "ddfed",
    "ddfed-hardened:f={f}",
    "multi-krum:f={f}",
    "nnm+krum:f={f}",
    "trimmed-mean:f={f}",
)
RULES = (
    *FEW_RULES,
    "krum:f={f},k_min=1",
    "median",
    "geometric-median",
    "centered-clipping",
    "norm-clipping",
    "mda:f={f}",
    "dnc:f={f}",
    "flame",
    "fltrust",
    "foolsgold",
)
FEW_ATTACKS = ("ipm", "alie:1.5", "sign-flip", "label-flip")
ATTACKS = (
    *FEW_ATTACKS,
    *("gaussian", "min-max", "mimic", "model-scaling", "model-negation", "backdoor", "adaptive"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every combination of these; ``none`` comes with every rule and domain.

    Args:
        datasets: names or paths.
        rules: with ``{f}`` where the number of attackers goes.
        attacks: ``NAME`` or ``NAME:STRENGTH``.
        fractions: of malicious clients among a round's; rules assume the first where nobody attacks.
        domains: of ``DOMAINS``; combinations that do not exist are left out.
        starts: first rounds with an attack.
    """

    datasets: tuple[str, ...] = ("fashion-mnist",)
    rules: tuple[str, ...] = RULES
    attacks: tuple[str, ...] = ATTACKS
    fractions: tuple[float, ...] = (0.3,)
    domains: tuple[str, ...] = ("plain",)
    starts: tuple[int, ...] = (31,)

    def check(self) -> None:
        """See that every name is known.

        Raises:
            ConfigError: RULE_UNKNOWN or CONFIG_INVALID, naming what is not.
        """
        for rule in self.rules:
            load_rule(rule.replace("{f}", "0"))
        for attack in self.attacks:
            attack_of(attack)
        for domain in self.domains:
            if domain not in DOMAINS:
                raise _invalid(f"no domain {domain!r}; there are: {', '.join(DOMAINS)}")
        for fraction in self.fractions:
            if not 0 < fraction < 1:
                raise _invalid(f"fraction = {fraction:g} must lie between 0 and 1")

    def cells(self, setting: Setting) -> list[Cell]:
        """Its cells, those without attack first: others go on from where they stand when the attack starts.

        Args:
            setting: of all cells, but for data set and start.
        """
        fractions = [(NO_ATTACK, self.fractions[0])]
        fractions += [
            (attack, share) for share in self.fractions for attack in self.attacks if attack != NO_ATTACK
        ]
        return [
            Cell(
                setting=replace(setting, dataset=dataset, start_round=start),
                rule=rule,
                attack=attack,
                fraction=fraction,
                domain=domain,
            )
            for dataset in self.datasets
            for start in self.starts
            for attack, fraction in fractions
            for domain in self.domains
            for rule in self.rules
            if possible(rule, domain)
        ]


def cells_of(grids: Iterable[Grid], setting: Setting) -> tuple[list[Cell], list[str]]:
    """The cells of several grids, each once, and which rules can't bear as many attackers."""
    found: dict[str, Cell] = {}
    refused: dict[str, None] = {}
    for grid in grids:
        for cell in grid.cells(setting):
            try:
                if cell.domain != "byzfl":
                    load_rule(cell.resolved_rule).require(setting.per_round)
            except ConfigError as error:
                refused[f"left out {cell.resolved_rule}: {error}"] = None
                continue
            found.setdefault(cell.key, cell)
    unattacked = [cell for cell in found.values() if cell.attack == NO_ATTACK]
    return unattacked + [cell for cell in found.values() if cell.attack != NO_ATTACK], list(refused)


def labels(rules: Sequence[str]) -> dict[str, str]:
    """What rules are called in tables and pictures: without parameters, where that tells them apart."""
    names = [rule.partition(":")[0] for rule in rules]
    return {rule: name if names.count(name) == 1 else rule for rule, name in zip(rules, names, strict=True)}


def _invalid(complaint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, complaint)
