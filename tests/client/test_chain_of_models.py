"""A model that is the last of a chain of differences is opened from however far back the chain begins."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from secagg.aggregate import Additions, WeightedUpdates, write_aggregate
from secagg.ckks import profile
from secagg.client.models import Form, Models
from secagg.errors import CiphertextError, Code
from secagg.payload import seal_update
from secagg.plan import Protection
from secagg.selection import Layout, derive_mask
from secagg.update import Manifest

MODEL = {"w": np.arange(6, dtype=np.float32)}
MANIFEST = Manifest.of(MODEL)
FORM = Form(
    manifest=MANIFEST,
    protection=Protection.plain(),
    profile="robust",
    statistics_blocks=(),
    differences=True,
)
FEDERATION: Any = SimpleNamespace(descriptor=SimpleNamespace(federation_id=bytes(16)))
LENGTH = 1500
"""More than Python nests calls."""


class Shelf:
    """In place of what downloads: aggregates in a folder, and which of them were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[int] = []

    def download(self, kind: int, round: int, max_bytes: int) -> Path:
        """The file of a round's aggregate."""
        self.asked.append(round)
        path = self.folder / f"aggregate-{round}"
        assert path.stat().st_size == max_bytes
        return path

    def opener(self, key_id: bytes, layout: Layout) -> None:
        """Nothing is hidden."""

    def timed(self, what: str, round: int) -> AbstractContextManager[None]:
        """Nobody wants to know."""
        return nullcontext()


class Offline(Models):
    """Models whose initial one is at hand."""

    def _initial(self) -> dict[str, np.ndarray]:
        return MODEL


def shelf_of(folder: Path, length: int, since: int | None = -1) -> Shelf:
    """A chain: every round adds 1/2 of its difference to the model of the round before.

    Args:
        since: what the first round adds to, instead of the initial model; None for a mean of models.
    """
    layout = Layout(MANIFEST, derive_mask(FORM.protection, MANIFEST, bytes(16), 1))
    update = folder / "update"
    update.write_bytes(b"".join(seal_update(np.ones(6, dtype=np.float32), layout, None)))
    for number in range(1, length + 1):
        first = number == 1 and since != -1
        additions = Additions(divisor=2, since=number - 1) if not first else None
        write_aggregate(
            folder / f"aggregate-{number}",
            WeightedUpdates(
                round=number,
                paths=(update,),
                weights=(1,),
                layout=layout,
                profile=profile("robust"),
                additions=additions,
            ),
        )
    return Shelf(folder)


def test_a_chain_may_be_longer_than_calls_can_be_nested(tmp_path: Path) -> None:
    """Each link is downloaded once, and what is opened is the sum of all of them."""
    shelf = shelf_of(tmp_path, LENGTH)
    models = Offline(FEDERATION, shelf)  # type: ignore[arg-type]
    opened = models.of(LENGTH, FORM, bytes(16))
    assert opened.tolist() == (MODEL["w"] + LENGTH / 2).tolist()
    assert shelf.asked == list(range(LENGTH, 0, -1))


def test_a_chain_is_followed_down_to_what_is_open(tmp_path: Path) -> None:
    """And whatever is asked for again comes from memory, or is opened anew."""
    shelf = shelf_of(tmp_path, 8)
    models = Offline(FEDERATION, shelf)  # type: ignore[arg-type]
    for number in (3, 5, 5, 8, 2, 8):
        assert models.of(number, FORM, bytes(16)).tolist() == (MODEL["w"] + number / 2).tolist()
    assert shelf.asked == [3, 2, 1, 5, 4, 8, 7, 6, 2, 1]


def test_a_mean_of_models_in_the_chain_is_refused(tmp_path: Path) -> None:
    """AGGREGATE_MALFORMED, with the round it is said to be of."""
    shelf = shelf_of(tmp_path, 4, since=None)
    with pytest.raises(CiphertextError, match="round 1 is a mean of models") as caught:
        Offline(FEDERATION, shelf).of(4, FORM, bytes(16))  # type: ignore[arg-type]
    assert caught.value.code is Code.AGGREGATE_MALFORMED
