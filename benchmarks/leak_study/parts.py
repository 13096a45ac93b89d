"""What is attacked: networks, data, ways to choose entries, attackers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from attacks.inversion.bench.cell import FULL, MEASURE, NONE, Cell
from attacks.inversion.bench.config import SweepConfig
from attacks.inversion.bench.sweep import Sweep
from benchmarks.leak_study.labels import LABELS
from secagg.config import parse_toml

SIGNIFICANCES = (
    "magnitude",
    "sensitivity",
    "product",
    "weighted",
    "maskcrypt",
    "first",
    "last",
    "random",
)
OPTIMISERS = ("gauss-newton", "inverting-gradients", "tag")
"""Attackers that fit an update by descent; others read the words or pixels off it."""
LABELLED = 10
"""Images per protection from whose mask the label is guessed, whether they are attacked or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One network on one data set.

    Args:
        name: as asked for.
        victim: as in ``load_victim``.
        dataset: as in ``attacks.inversion.data``.
        title: for people.
        attackers: tried under every protection.
        costly: tried on the first sample only, at ``costly_ratios`` of ``costly_significances``.
        precision: as in ``SweepConfig``.
        ratios: hidden entries / all, without 0, which is always there.
        text: True if samples are words.
    """

    name: str
    victim: str
    dataset: str
    title: str
    attackers: tuple[str, ...]
    costly: tuple[str, ...] = ()
    costly_ratios: tuple[float, ...] = (0.1, 0.5)
    costly_significances: tuple[str, ...] = ("magnitude", "sensitivity", "random")
    precision: str = "wire"
    ratios: tuple[float, ...] = (0.01, 0.1, 0.3, 0.5, 0.9)
    text: bool = False


PARTS = (
    Part(
        name="lenet-sigmoid",
        victim="lenet-sigmoid",
        dataset="digits",
        title="LeNet with sigmoids, handwritten digits 8 x 8",
        attackers=("gauss-newton",),
        costly=("inverting-gradients",),
        ratios=(0.01, 0.1, 0.3, 0.5, 0.9, 0.99),
    ),
    Part(
        name="lenet",
        victim="lenet",
        dataset="cifar10@16",
        title="LeNet with ReLU, CIFAR-10 at 16 x 16",
        attackers=("gauss-newton", "inverting-gradients"),
    ),
    Part(
        name="cnn",
        victim="benchmarks.leak_study.victims:cnn",
        dataset="pneumonia@14",
        title="CNN of secagg run, pneumonia X-rays at 14 x 14",
        attackers=("gauss-newton", "inverting-gradients"),
    ),
    Part(
        name="mlp",
        victim="mlp",
        dataset="pneumonia@14",
        title="MLP, pneumonia X-rays at 14 x 14",
        attackers=("gauss-newton", "rank-completion"),
        costly=("inverting-gradients",),
    ),
    Part(
        name="bert",
        victim="bert",
        dataset="sst2",
        title="BERT (2 layers, width 128), SST-2, 16 tokens",
        attackers=("dager", "embedding-rows"),
        costly=("tag",),
        costly_ratios=(0.1,),
        costly_significances=("magnitude", "random"),
        precision="float32",
        text=True,
    ),
    Part(
        name="gpt2",
        victim="gpt2",
        dataset="sst2",
        title="GPT-2 (2 layers, width 128), SST-2, 16 tokens",
        attackers=("dager", "embedding-rows"),
        costly=("tag",),
        costly_ratios=(0.1,),
        costly_significances=("magnitude", "random"),
        precision="float32",
        text=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """How much of it.

    Args:
        samples: updates of one sample each that are attacked.
        significances: ways to choose entries.
        ratios: in place of each part's own; none for those.
        costly: False to leave costly attackers out.
        effort: as in ``Budget``.
        seed: of everything that is drawn.
        processes: that play cells; 0: one per core.
    """

    samples: int
    significances: tuple[str, ...] = SIGNIFICANCES
    ratios: tuple[float, ...] = ()
    costly: bool = True
    effort: float = 1.0
    seed: int = 0
    processes: int = 1


FULL_GRID = Grid(samples=3)
SHORT_GRID = Grid(
    samples=1,
    significances=("magnitude", "sensitivity", "random"),
    ratios=(0.1, 0.5),
    costly=False,
    effort=0.5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A part, checked.

    Args:
        part: what it is of.
        sweeps: of the part's attackers; of the costly ones, where there are any.
        labels: cells whose label is guessed from the mask.
    """

    part: Part
    sweeps: tuple[Sweep, ...]
    labels: tuple[Cell, ...] = field(repr=False)

    def cells(self, update: int) -> list[Cell]:
        """Those of one sample, in the order in which they are played, costly ones aside."""
        found: dict[Cell, None] = {}
        labels = {cell.key for cell in self.labels}
        for cell in (cell for cell in self.sweeps[0].cells if cell.update == update):
            found[cell] = None
            label = replace(cell, attacker=LABELS)
            if cell.attacker == MEASURE and label.key in labels:
                # Right after the measures, which have the same exposure.
                found[label] = None
        return list(found)

    @property
    def costly(self) -> list[Cell]:
        """Those of costly attackers."""
        return [cell for sweep in self.sweeps[1:] for cell in sweep.cells]


def planned(part: Part, grid: Grid, *, data: str | None) -> Planned:
    """Check a part and list its cells.

    Raises:
        ConfigError: as ``Sweep.planned``.
    """

    def sweep(attackers: Sequence[str], **changes: object) -> Sweep:
        asked: dict[str, object] = {
            "victim": (part.victim,),
            "dataset": part.dataset,
            "data": data,
            "significance": grid.significances,
            "ratio": (0.0, *(grid.ratios or part.ratios)),
            "attacker": tuple(attackers),
            "samples": grid.samples,
            # As published: each attacked client is protected by its own scores.
            "scores": "own",
            "precision": part.precision,
            "effort": grid.effort,
            "seed": grid.seed,
            "processes": grid.processes,
        }
        return Sweep.planned(parse_toml(SweepConfig, asked | changes))

    main = sweep(part.attackers)
    sweeps = [main]
    if part.costly and grid.costly:
        chosen = tuple(name for name in part.costly_significances if name in grid.significances)
        ratios = (0.0, *part.costly_ratios)
        if chosen:
            sweeps.append(sweep(part.costly, samples=1, significance=chosen, ratio=ratios))
    masked = [
        replace(cell, attacker=LABELS)
        for cell in main.cells
        if cell.attacker == MEASURE and cell.update == 0 and cell.significance not in (NONE, FULL)
    ]
    count = grid.samples if part.text else max(grid.samples, LABELLED)
    labels = tuple(replace(cell, update=update) for update in range(count) for cell in masked)
    return Planned(part=part, sweeps=tuple(sweeps), labels=labels)
