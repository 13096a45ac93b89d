"""Statistics artifacts of both stages, with every quantity that a rule can ask for."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from benchmarks.fuzzing import content
from benchmarks.fuzzing.content import MANIFEST, ROUND, Source
from benchmarks.fuzzing.form import Form
from secagg.ckks import Opener, profile
from secagg.rule import Stage, StatisticsRequest
from secagg.statistics.draws import WITNESSES
from secagg.statistics.form import Entry, Front, Quantity, drawn_of, pairs_in, possible_scalars
from secagg.statistics.opening import Expectation, open_statistics
from secagg.statistics.release import assemble_statistics

UPDATES = 2
REQUESTS = {
    "statistics": (Stage.STATISTICS, StatisticsRequest(references=1, pairs=True)),
    "statistics screening": (
        Stage.SCREENING,
        StatisticsRequest(blocks=(("last.weight",),), references=2, pairs=True, screened=True),
    ),
    "statistics of the rest": (
        Stage.STATISTICS,
        StatisticsRequest(root=True, history=True, screened=True, sample=0.5),
    ),
}


def statistics_forms(folder: Path) -> list[Form]:
    """One per request."""
    return [_form(name, stage, request, folder) for name, (stage, request) in REQUESTS.items()]


def _form(name: str, stage: Stage, request: StatisticsRequest, folder: Path) -> Form:
    used = profile("robust")
    layout = content.layout_of(content.plan_of("robust", "full", statistics=bool(request.blocks)))
    quantities = Quantity.of(request, stage)
    expected = Expectation(
        round=ROUND,
        stage=stage,
        layout=layout,
        profile=used,
        request=request,
        min_updates=UPDATES,
        references=[Source(f"reference {n}").floats(MANIFEST.size) for n in range(request.references)],
    )
    sampled = bool(quantities & (Quantity.PAIR | Quantity.ROOT))
    made = []
    for number in range(2):
        front = Front(
            round=ROUND,
            stage=stage,
            update_ids=tuple(sha256(bytes((number, place))).digest()[:16] for place in range(UPDATES)),
            sample_counts=tuple(10 + place for place in range(UPDATES)),
            root=1 if request.root else None,
            dropped=number if stage is Stage.STATISTICS and request.screened else 0,
            quantities=quantities,
            seed=sha256(f"{name} {number}".encode()).digest(),
            drawn=drawn_of(layout, used, request.sample if sampled else 1.0),
        )
        witnesses = [Quantity.WITNESS] * WITNESSES if quantities & Quantity.WITNESS else []
        wanted = [item for _ in range(UPDATES) for item in (*quantities.single, *witnesses)]
        count = used.ciphertext_count(layout.hidden_counts[layout.product_blocks[0]])
        wanted += [
            quantity
            for quantity in quantities
            if quantity > Quantity.WITNESS
            for tile in front.tiles(quantity)
            for _ in pairs_in(tile, summed=quantity is Quantity.HISTORY, sampled=front.drawn[0] < count)
        ]
        entries = [_entry(quantity, f"{name} {number} {place}") for place, quantity in enumerate(wanted)]
        assemble_statistics(folder / "statistics", front, (entry.to_bytes() for entry in entries))
        made.append((folder / "statistics").read_bytes())
    opener = Opener(content.secret_key(used))
    return Form(name=name, messages=tuple(made), parse=lambda data: open_statistics(data, expected, opener))


def _entry(quantity: Quantity, seed: str) -> Entry:
    kinds = possible_scalars(quantity, hides=True)[-1]
    scalars = tuple(content.scalar_of(int(kind), f"{seed} {kind}") for kind in kinds)
    return Entry(visible=float(Source(seed).floats(1)[0]), scalars=scalars)
