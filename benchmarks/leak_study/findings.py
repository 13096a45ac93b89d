"""What follows from a part's rows: functions of rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.verdict import Row, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What attackers of one kind reached under one protection.

    Args:
        median, worst: over samples, of the attacker that did best on each: PSNR in dB, or the share of words
            that were read, at their places or not, 0 … 1; None if nobody could begin.
        known: the same figure of what is known without the update, median.
        leaked: samples that were read, by the verdict of the bench.
        samples: how many there are.
        holds: True if nobody read any, and every sample was tried by somebody who reads it in the clear.
    """

    median: float | None
    worst: float | None
    known: float | None
    leaked: int
    samples: int
    holds: bool


def reached(rows: Sequence[Row], *, text: bool) -> Reached:
    """Of rows under one protection.

    Args:
        rows: of attackers of one kind, as ``judged`` returns them.
        text: whether samples are words.
    """
    samples = sorted({row["sample"] for row in rows})
    mine = [[row for row in rows if row["sample"] == sample] for sample in samples]
    best = [max(values) for one in mine if (values := list(_figures(one, text=text)))]
    known = [max(values) for one in mine if (values := list(_figures(one, "prior_", text=text)))]
    leaked = sum(any(row["status"] == Status.LEAKED for row in one) for one in mine)
    resisted = sum(any(row["status"] == Status.RESISTED for row in one) for one in mine)
    return Reached(
        median=median(best) if best else None,
        worst=max(best, default=None),
        known=median(known) if known else None,
        leaked=leaked,
        samples=len(samples),
        holds=bool(samples) and not leaked and resisted == len(samples),
    )


def smallest(rows: Sequence[Row], *, text: bool) -> float | None:
    """The ratio from which on, up to the largest tried, nobody reads anything; None if there is none.

    Args:
        rows: of one significance and of attackers of one kind.
    """
    found = None
    for ratio in sorted({row["ratio"] for row in rows}, reverse=True):
        if not reached([row for row in rows if row["ratio"] == ratio], text=text).holds:
            break
        found = float(ratio)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """How ways to choose entries compare against attackers of one kind.

    Args:
        part: whose name it is.
        aware: whether they know the mask.
        tried: the smallest ratio that was tried.
        smallest: per significance, as ``smallest``.
        figure: per significance the mean over ratios of the median figure; the smaller, the better it hides.
    """

    part: str
    aware: bool
    tried: float
    smallest: dict[str, float | None]
    figure: dict[str, float]

    @property
    def decided(self) -> bool:
        """True if any way holds at any ratio that was tried."""
        return any(ratio is not None for ratio in self.smallest.values())

    @property
    def best(self) -> tuple[str, ...]:
        """Those that hold at the smallest ratio; by the figure alone if none holds."""
        if not self.decided:
            return (min(self.figure, key=self.figure.__getitem__),) if self.figure else ()
        least = min(ratio for ratio in self.smallest.values() if ratio is not None)
        return tuple(name for name, ratio in self.smallest.items() if ratio == least)

    @property
    def lowest(self) -> str:
        """The one that leaves least on average over ratios."""
        return min(self.figure, key=self.figure.__getitem__)


def ranking(part: str, rows: Sequence[Row], *, aware: bool, text: bool) -> Ranking | None:
    """Of all significances of a part, against attackers of one kind; None if there are none.

    Only ratios at which all were tried count.

    Args:
        rows: of attackers that were tried under all of them; else one is better for having been tried less.
    """
    mine = [row for row in rows if row["aware"] is aware and row["significance"] not in (NONE, FULL)]
    names = dict.fromkeys(str(row["significance"]) for row in mine)
    if not names:
        return None
    of = {name: [row for row in mine if row["significance"] == name] for name in names}
    common = set.intersection(*({row["ratio"] for row in each} for each in of.values()))
    figures = {}
    for name, each in of.items():
        medians = [
            reached([row for row in each if row["ratio"] == ratio], text=text).median for ratio in common
        ]
        # Nobody could begin: nothing was read.
        figures[name] = mean(0.0 if value is None else value for value in medians) if medians else 0.0
    return Ranking(
        part=part,
        aware=aware,
        tried=min(common, default=0.0),
        smallest={
            name: smallest([row for row in each if row["ratio"] in common], text=text)
            for name, each in of.items()
        },
        figure=figures,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """How much more must be hidden from attackers who know the mask.

    Args:
        part, significance: of what.
        tried: the smallest ratio that was tried.
        naive, aware: smallest ratios that hold; None beyond the grid.
        advised: the bench's advice, which asks the information measure as well; None: hide everything.
    """

    part: str
    significance: str
    tried: float
    naive: float | None
    aware: float | None
    advised: float | None = None

    @property
    def decided(self) -> bool:
        """False if nothing holds against attackers who don't know, or the smallest ratio against both."""
        return self.naive is not None and self.aware != self.tried

    @property
    def least(self) -> float | None:
        """aware/naive, 1/naive where no ratio holds against the aware; None if undecided."""
        if self.naive is None or not self.decided:
            return None
        return (1.0 if self.aware is None else self.aware) / self.naive

    @property
    def advised_least(self) -> float | None:
        """The same of what is advised; None if nothing holds against attackers who don't know the mask."""
        return None if self.naive is None else (1.0 if self.advised is None else self.advised) / self.naive

    @property
    def bound(self) -> bool:
        """True if it is a lower bound: less than was tried may do against those who don't know the mask."""
        return self.decided and self.naive == self.tried


def factors(naive: Ranking, aware: Ranking, advised: Mapping[str, float | None]) -> Iterator[Factor]:
    """Of every significance of a part."""
    for name, ratio in naive.smallest.items():
        yield Factor(
            part=naive.part,
            significance=name,
            tried=naive.tried,
            naive=ratio,
            aware=aware.smallest.get(name),
            advised=advised.get(name),
        )


def _figures(rows: Sequence[Row], prefix: str = "", *, text: bool) -> Iterator[float]:
    names = ("token_accuracy", "bag_accuracy") if text else ("psnr_db",)
    yield from (
        float(value) for row in rows for name in names if (value := row.get(prefix + name)) is not None
    )
