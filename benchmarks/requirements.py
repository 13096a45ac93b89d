"""What is asked of the overhead, held against what one run measured, each beside the peer's figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console

from benchmarks.alternating import Seconds
from benchmarks.engine import ADDITIONS
from secagg.overhead.table import ratio, titled

Flat = Mapping[str, object]

REFERENCE = "cnn"
"""The model that bytes are held against plain on."""
SEALED_MODEL = "gpt2"
"""The model whose sealing takes memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One figure.

    Args:
        what: is measured.
        wanted: at most or at least so much; empty for a figure that is only to be seen.
        measured: what it came to, in ``unit``.
        ok: whether that is as wanted; None if nothing is.
        peer: the peer's figure in the same run.
    """

    what: str
    wanted: str
    measured: float
    unit: str
    ok: bool | None
    peer: str

    def flat(self) -> dict[str, object]:
        """As it is written to ``result.json``."""
        return asdict(self)


def at_most(
    limit: float, what: str, measured: float, *, unit: str = "x", aim: str = "", peer: str
) -> Requirement:
    """A figure that must not be larger."""
    wanted = f"≤ {limit:g} {unit}{aim}"
    return Requirement(
        what=what, wanted=wanted, measured=measured, unit=unit, ok=measured <= limit, peer=peer
    )


def at_least(limit: float, what: str, measured: float, *, peer: str) -> Requirement:
    """A ratio that must not be smaller."""
    return Requirement(
        what=what, wanted=f"≥ {limit:g} x", measured=measured, unit="x", ok=measured >= limit, peer=peer
    )


def seen(what: str, measured: float, *, unit: str = "x", peer: str) -> Requirement:
    """A figure that is shown beside the others."""
    return Requirement(what=what, wanted="", measured=measured, unit=unit, ok=None, peer=peer)


def of_bytes(rows: Sequence[Flat]) -> Iterator[Requirement]:
    """Bytes against plain float32, from the rows of ``REFERENCE``."""
    found = {str(row["peer"] or row["scheme"]): row for row in rows if row["model"] == REFERENCE}
    plain = 4 * float(str(next(iter(found.values()))["values"]))

    def times(name: str, way: str) -> float:
        return float(str(found[name][f"bytes_{way}"])) / plain

    def peers(way: str) -> str:
        names = [name for name, row in found.items() if row["peer"]]
        return ", ".join(f"{name} {ratio(times(name, way))} x" for name in names) or "not run"

    up = peers("up")
    yield at_most(1.02, "compact, bytes up / plain", times("compact", "up"), peer=up)
    yield at_most(0.70, "compact-10, bytes up / plain", times("compact-10", "up"), peer=up)
    yield at_most(3.2, "robust, bytes up / plain", times("robust", "up"), aim=", aim 2.3", peer=up)
    yield at_most(2.05, "compact, bytes down / plain", times("compact", "down"), peer=peers("down"))


def of_sealing(found: Seconds) -> Iterator[Requirement]:
    """A million values against TenSEAL's path, and two processes against one."""
    for limit, name in ((8, "compact"), (4, "robust")):
        figures = f"TenSEAL {found.median('tenseal'):.3f} s, ours {found.median(name):.3f} s"
        yield at_least(
            limit, f"seal 10^6 values, {name}: TenSEAL / ours", found.ratio("tenseal", name), peer=figures
        )
    for name in ("compact", "robust"):
        figures = f"one {found.median(f'{name}_1'):.3f} s, two {found.median(f'{name}_2'):.3f} s"
        yield at_least(
            1.7,
            f"seal 10^6 values, {name}: two processes",
            found.ratio(f"{name}_1", f"{name}_2"),
            peer=figures,
        )
    limits = (
        ("compact / SEAL's encode + encrypt", "compact", "seal"),
        ("compact / its encryptions of zero alone", "compact", "seal_compact"),
        ("robust / its encryptions of zero alone", "robust", "seal_robust"),
    )
    for text, name, alone in limits:
        figures = f"SEAL {found.median(alone):.3f} s"
        yield seen(f"seal 10^6 values, {text}", found.ratio(name, alone), peer=figures)


def of_inner_product(found: Seconds) -> Iterator[Requirement]:
    """200,000 values against TenSEAL's ``dot``."""
    kinds = (
        ("ready", "tenseal", "operands ready"),
        ("released", "tenseal", "and masked"),
        ("stored", "tenseal_stored", "from bytes"),
    )
    for name, other, what in kinds:
        figures = f"TenSEAL {found.median(other):.3f} s, ours {1e3 * found.median(name):.1f} ms"
        text, measured = f"inner product of 200,000, {what}: TenSEAL / ours", found.ratio(other, name)
        wanted = name == "ready"
        yield at_least(80, text, measured, peer=figures) if wanted else seen(text, measured, peer=figures)


def of_gram(found: Seconds) -> Iterator[Requirement]:
    """The Gram matrix of ten updates."""
    one = found.median("tenseal")
    figures = f"TenSEAL {55 * one:.0f} s (55 x {one:.2f} s, one measured)"
    yield at_most(
        1.0, "Gram matrix of 10 x 225,034, two processes", found.median("ours"), unit="s", peer=figures
    )


def of_addition(found: Seconds) -> Iterator[Requirement]:
    """The server's work on one ciphertext."""
    micro = {name: 1e6 * found.median(name) / ADDITIONS for name in ("ours", "seal")}
    figures = f"SEAL {micro['seal']:.0f} µs, ours {micro['ours']:.0f} µs"
    text = "parse + add one ciphertext / SEAL's load + add"
    yield at_most(1.3, text, found.ratio("ours", "seal"), peer=figures)


def of_memory(model: str, sealed: Flat, rows: Sequence[Flat]) -> Iterator[Requirement]:
    """What sealing takes beside the vector.

    Args:
        model: whose values were sealed.
        sealed: its ``values`` and ``seal_over_vector_mib``.
        rows: for the peers' figures, over the largest model that they were measured on.
    """
    values = int(str(sealed["values"]))
    instead = "" if model == SEALED_MODEL else f" (not {SEALED_MODEL}'s 124M)"
    peers = [row for row in rows if row["peer"]]
    largest = max((int(str(row["values"])) for row in peers), default=0)
    figures = ", ".join(
        f"{row['peer']} {float(str(row['client_peak_mib'])) - 4 * largest / 2**20:.0f} MiB"
        for row in peers
        if row["values"] == largest
    )
    yield at_most(
        300,
        f"sealing {values:,} values{instead}, compact: peak over the vector",
        float(str(sealed["seal_over_vector_mib"])),
        unit="MiB",
        peer=f"{figures} at {largest:,} values" if figures else "not run",
    )


def print_requirements(requirements: Sequence[Requirement], console: Console) -> None:
    """The table: wanted, measured, the peer's figure."""
    table = titled("What is asked for")
    for name in ("", "wanted", "measured", "", "peer, same run"):
        table.add_column(name, justify="right" if name == "measured" else "left")
    for item in requirements:
        verdict = {True: "ok", False: "SHORT", None: ""}[item.ok]
        table.add_row(item.what, item.wanted, f"{ratio(item.measured)} {item.unit}", verdict, item.peer)
    console.print()
    console.print(table)
