"""PSNR that the information measure predicts, against what the strongest attacker attains, without images.

Small images, crops of scikit-learn's two photographs or its handwritten digits, one at a time, through
LeNet with sigmoids; entries hidden by magnitude, at random, or from either end of the network, at ratios on
both sides of the counting bound; with and without noise on what is visible. For each setting: the measure's
prediction (``attacks.inversion.measures``), and what Gauss-Newton makes of the same exposure, knowing the
mask and the label. Then Spearman's rank correlation over all settings.

The attacker starts again, from elsewhere, until its loss is what rounding and noise explain: it knows both.
Beside the correlation of the bare figures stands that of figures up to ``FULL_DB``, past which every pixel
rounds to the right one of 256 levels, so that pictures are the same; and that of settings below it alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import log10
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.datasets import load_digits, load_sample_images

from attacks.inversion.attackers import Budget, Reconstruction, load_attacker
from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import jacobian, measure
from attacks.inversion.measures.noise import deviation, precision_of
from attacks.inversion.metrics.image import psnr_db
from attacks.inversion.protections import Protection
from attacks.inversion.training import Training
from attacks.inversion.victims import Victim, load_victim
from secagg.errors import SecaggError
from secagg.overhead.sweep import out_folder
from secagg.simulation.result import write_result

FULL_DB = 10 * log10(12 * 255**2)
"""PSNR of rounding to 8 bits, variance 1/(12·255²): 58.9 dB."""
LIMIT = 0.9
STARTS = (1, 3)
SOLVED = 1e-27
"""A loss that is rounding of float64."""
SHRINK = 4
"""A crop's pixel is the mean of so many by so many of the photograph's."""
SIGNIFICANCES = ("magnitude", "random", "last", "first")
RATIOS = (0.0, 0.5, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995)
NOISES = (0.0, 0.01)
PRECISIONS = ("float32", "float64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting; field names are those of ``result.json``."""

    victim: str
    sample: int
    significance: str
    ratio: float
    noise: float
    nonzero_visible: int
    leaked_dimensions: float
    psnr_pred_db: float
    psnr_db: float
    psnr_naive_pred_db: float
    i2f: float
    psnr_naive_db: float | None
    attack_loss: float
    status: str


def crops(size: int, count: int, seed: int) -> torch.Tensor:
    """Grey squares of two photographs in turn, float64 [count, 1, size, size] in [0, 1]."""
    photographs = [torch.tensor(image).double().mean(dim=-1) / 255 for image in load_sample_images().images]
    generator = torch.Generator().manual_seed(seed)
    found, side = [], SHRINK * size
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        top, left = (
            int(torch.randint(0, length - side + 1, (1,), generator=generator)) for length in photograph.shape
        )
        square = photograph[None, top : top + side, left : left + side]
        found.append(torch.nn.functional.avg_pool2d(square, SHRINK))
    return torch.stack(found)


def samples(asked: argparse.Namespace) -> Batch:
    """As many images as are asked for, with labels."""
    if asked.digits:
        digits = load_digits()
        places = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(asked.seed))[
            : asked.images
        ]
        inputs = torch.tensor(digits.images)[places, None].double() / 16
        return Batch(inputs=inputs, labels=torch.tensor(digits.target)[places].long())
    inputs = crops(asked.size, asked.images, asked.seed)
    return Batch(inputs=inputs, labels=torch.arange(asked.images) % 10)


def settings(asked: argparse.Namespace) -> list[tuple[str, float, float]]:
    """Significance, ratio and noise; hiding nothing is the same under all significances."""
    return [
        (significance, ratio, noise)
        for noise in asked.noises
        for place, significance in enumerate(asked.significances)
        for ratio in asked.ratios
        if ratio or not place
    ]


def play(
    victim: Victim,
    batch: Batch,
    sample: int,
    asked: argparse.Namespace,
    several: Iterable[tuple[str, float, float]],
) -> Iterator[Row]:
    """These settings of one image."""
    parameters, training = victim.parameters(), Training()
    matrix = jacobian(victim, parameters, training, batch)
    for significance, ratio, noise in several:
        protection = Protection.parse(f"{significance}:{ratio:g}" + (f"+noise:{noise:g}" if noise else ""))
        exposure = protection.expose(
            victim, parameters, training, batch, seed=asked.seed + sample, precision=asked.precision
        )
        found = measure(exposure, batch, matrix=matrix)
        made = strongest(exposure, explained_loss(exposure, batch), seed=asked.seed + sample)
        naive_db: float | None = None
        if asked.naive:
            naive = strongest(exposure.seen_by(aware=False), 0.0, seed=asked.seed + sample)
            naive_db = float(psnr_db(naive.inputs, batch.inputs)[0])
        yield Row(
            victim=victim.name,
            sample=sample,
            significance=significance,
            ratio=ratio,
            noise=noise,
            nonzero_visible=found.nonzero_visible,
            leaked_dimensions=found.leaked_dimensions,
            psnr_pred_db=found.psnr_pred_db,
            psnr_db=float(psnr_db(made.inputs, batch.inputs)[0]),
            psnr_naive_pred_db=found.psnr_naive_pred_db,
            i2f=found.i2f,
            psnr_naive_db=naive_db,
            attack_loss=made.loss,
            status=str(made.status),
        )


def explained_loss(exposure: Exposure, batch: Batch) -> float:
    """The attacker's loss at the truth that is to be expected: Σσ²/‖g‖² over visible entries."""
    blur = deviation(
        exposure.victim.manifest,
        exposure.training.update(exposure.victim, exposure.parameters, batch),
        noise=exposure.noise,
        carried=precision_of(exposure.visible),
        computed=exposure.parameters.dtype,
    )
    power = float(exposure.visible.square().sum())
    return float(blur[~exposure.hidden].square().sum()) / power if power else float("inf")


def strongest(exposure: Exposure, explained: float, *, seed: int) -> Reconstruction:
    """Gauss-Newton's best by its own loss, of as many starts as it needs, ``STARTS`` in all at most."""
    attacker, best = load_attacker("gauss-newton"), None
    for attempt, restarts in enumerate(STARTS):
        made = attacker.attack(exposure, seed=seed + 1000 * attempt, budget=Budget(restarts=restarts))
        best = made if best is None or made.loss < best.loss else best
        if best.loss <= max(2 * explained, SOLVED):
            break
    assert best is not None
    return best


def correlations(rows: Sequence[Row]) -> dict[str, float]:
    """Spearman's ρ: of bare figures, of figures up to ``FULL_DB``, of settings that are not read in full."""
    partly = [row for row in rows if min(row.psnr_pred_db, row.psnr_db) < FULL_DB]
    found = {
        "spearman": _rank([row.psnr_pred_db for row in rows], [row.psnr_db for row in rows]),
        "spearman_8bit": _rank(
            [min(row.psnr_pred_db, FULL_DB) for row in rows], [min(row.psnr_db, FULL_DB) for row in rows]
        ),
        "spearman_partly": _rank([row.psnr_pred_db for row in partly], [row.psnr_db for row in partly]),
    }
    naive = [(row, row.psnr_naive_db) for row in rows if row.psnr_naive_db is not None]
    if naive:
        attained = [db for _, db in naive]
        found["spearman_naive_i2f"] = _rank([row.psnr_naive_pred_db for row, _ in naive], attained)
        found["spearman_naive_information"] = _rank([row.psnr_pred_db for row, _ in naive], attained)
    return found


def _rank(predicted: Sequence[float], attained: Sequence[float]) -> float:
    return float(spearmanr(predicted, attained).statistic)


def table(rows: Sequence[Row]) -> Table:
    """Predicted and attained PSNR, a line per setting."""
    found = Table(title=f"{rows[0].victim}, {len(rows)} settings; PSNR in dB")
    for name in ("image", "hidden by", "ratio", "noise", "visible", "leaked", "predicted", "attained"):
        found.add_column(name, justify="left" if name == "hidden by" else "right")
    naive = any(row.psnr_naive_db is not None for row in rows)
    if naive:
        found.add_column("naive,\npredicted", justify="right")
        found.add_column("naive,\nattained", justify="right")
    for row in rows:
        cells = [str(row.sample), row.significance, f"{row.ratio:g}", f"{row.noise:g}"]
        cells += [f"{row.nonzero_visible:,}", f"{row.leaked_dimensions:.1f}"]
        cells += [f"{row.psnr_pred_db:.1f}", f"{row.psnr_db:.1f}"]
        if row.psnr_naive_db is not None:
            cells += [f"{row.psnr_naive_pred_db:.1f}", f"{row.psnr_naive_db:.1f}"]
        found.add_row(*cells)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, print, write; 0, 1 if ranks agree worse than ``LIMIT``, 2 as ever, 130 after Ctrl-C."""
    asked = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    rows: list[Row] = []
    interrupted = False
    try:
        out = out_folder(asked.out)
        whole = samples(asked)
        victim = load_victim(asked.victim, shape=tuple(whole.inputs.shape[1:]), classes=10, seed=asked.seed)
        several = settings(asked)
        with Progress(*Progress.get_default_columns(), console=console, transient=True) as progress:
            task = progress.add_task("settings", total=len(whole) * len(several))
            for sample in range(len(whole)):
                for row in play(victim, whole.take(torch.tensor([sample])), sample, asked, several):
                    rows.append(row)
                    progress.advance(task)
    except SecaggError as error:
        print(f"leakage_information: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        interrupted = True
    if len(rows) < 2:
        print("leakage_information: no ranks without two settings", file=sys.stderr)
        return 130 if interrupted else 2
    console.print(table(rows))
    found = correlations(rows)
    for name, value in found.items():
        print(f"{name} {value:.3f}")
    result = write_result(
        out,
        command=" ".join(sys.argv),
        seed=asked.seed,
        rows=[asdict(row) for row in rows],
        more={
            **{name: value if value == value else None for name, value in found.items()},
            "precision": asked.precision,
            "full_db": FULL_DB,
            "complete": not interrupted,
        },
    )
    print(f"written to {result}")
    return 130 if interrupted else int(not found["spearman"] >= LIMIT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leakage_information", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--victim", default="lenet-sigmoid", help="(lenet-sigmoid)")
    parser.add_argument("--digits", action="store_true", help="handwritten digits, 8x8, instead of crops")
    parser.add_argument("--size", type=int, default=10, help="crops' side, pixels (10)")
    parser.add_argument("--images", type=int, default=1, help="(1)")
    parser.add_argument("--significances", nargs="+", default=SIGNIFICANCES, help=" ".join(SIGNIFICANCES))
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS, help="shares that are hidden")
    parser.add_argument("--noises", nargs="+", type=float, default=NOISES, help="of the visible RMS (0 0.01)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="as values travel (float32)"
    )
    parser.add_argument("--naive", action="store_true", help="also the attacker who takes hidden for zero")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/leakage_information"), help="folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
