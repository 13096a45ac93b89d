"""What a server received in the clear, kept where its operator asks for it (``secagg serve --record DIR``).

    DIR/round-N/round.npz            what all updates of round N have in common: ``RecordedRound``
    DIR/round-N/updates/CLIENT.npz   one accepted update: ``RecordedUpdate``

Both are numpy archives without pickled objects; every file says of which version it is:

    field     in                dtype, shape     content
    version   both              int64            VERSION
    about     both              uint8 [bytes]    JSON, UTF-8: the other fields of the two classes below
    manifest  round.npz         uint8 [bytes]    ``Manifest.to_bytes``: names, shapes, order of d entries
    mask      round.npz         uint8 [bytes]    ``Mask.to_bytes``: the entries that travel encrypted
    visible   CLIENT.npz        float32 [v]      values of the others, in the order of the manifest

Values are bit for bit what was sent. A client's ciphertexts are not kept: they say nothing to a server, and
with the key they would say everything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from secagg.array_file import read_arrays
from secagg.ckks.profiles import profile
from secagg.config_complaint import briefly
from secagg.envelope import valid_client_name
from secagg.errors import Code, ConfigError, SecaggError
from secagg.payload import UpdateFile
from secagg.plan import Protection, RoundPlan
from secagg.selection.layout import Layout
from secagg.selection.mask import Mask
from secagg.update import Manifest

VERSION = 1
ROUND_FILE = "round.npz"
UPDATES = "updates"
_NUMBERED = re.compile(r"round-([1-9][0-9]*)")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedRound:
    """What all updates of one round have in common.

    Args:
        round: 1, 2, 3, …
        state: how it ended, CLOSED or ABORTED.
        manifest: names and shapes of an update's tensors.
        mask: the entries that travelled encrypted: those of the plan's mask, and those of blocks that are
            hidden whole (``Layout``).
        protection: as the plan has it.
        rule, profile: their names.
        base_round: the round whose model clients started from; 0 for the initial one.
        divisor: positive if updates are differences to that model; 0 if they are models.
    """

    round: int
    state: str
    manifest: Manifest
    mask: Mask
    protection: Protection
    rule: str
    profile: str
    base_round: int
    divisor: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedUpdate:
    """What one client sent in the clear.

    Args:
        client: its name.
        sample_count: how many samples it says it was trained on.
        own_weight: what its hidden values, not its visible ones, were multiplied by before they were sealed;
            1 unless the profile quantises.
        visible: float32 [v], in the order of the manifest.
    """

    client: str
    sample_count: int
    own_weight: float
    visible: NDArray[np.float32]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _RoundFields(_Fields):
    """``about`` of ``round.npz``."""

    round: Annotated[int, Field(ge=1)]
    state: Literal["CLOSED", "ABORTED"]
    protection: Protection
    rule: str
    profile: str
    base_round: Annotated[int, Field(ge=0)]
    divisor: Annotated[int, Field(ge=0)]


class _UpdateFields(_Fields):
    """``about`` of ``CLIENT.npz``."""

    client: str
    sample_count: Annotated[int, Field(ge=1)]
    own_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]


_About = TypeVar("_About", bound=_Fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An accepted update in the spool: whose, of how many samples, where."""

    client: str
    sample_count: int
    path: Path


def write_round(
    folder: Path, plan: RoundPlan, layout: Layout, state: str, received: Sequence[Received]
) -> None:
    """Write one round; can be repeated. ``round.npz`` comes last: where it is, the round is complete.

    Raises:
        ServerError: SPOOL_CORRUPT for an update that is not there.
    """
    place = round_folder(folder, plan.round)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in (folder, place, place / UPDATES):
        path.mkdir(mode=0o700, exist_ok=True)
    recorded = _recorded(plan, layout, state)
    for update in received:
        _write(
            place / UPDATES / f"{update.client}.npz",
            {"client": update.client, "sample_count": update.sample_count,
             "own_weight": plan.own_weight(update.sample_count)},
            visible=_visible(UpdateFile(path=update.path, layout=layout, profile=profile(plan.profile))),
        )  # fmt: skip
    about = {
        name: getattr(recorded, name)
        for name in ("round", "state", "rule", "profile", "base_round", "divisor")
    }
    _write(
        place / ROUND_FILE,
        {**about, "protection": asdict(recorded.protection)},
        manifest=_bytes(recorded.manifest.to_bytes()),
        mask=_bytes(recorded.mask.to_bytes()),
    )


def recorded_rounds(folder: Path) -> list[int]:
    """Numbers of the rounds that are recorded, ascending; none if the folder is not there.

    Raises:
        ConfigError: DATA_MALFORMED for a folder that is named like a round without a number.
    """
    return sorted(_number(path) for path in folder.glob(f"round-*/{ROUND_FILE}"))


def recorded_clients(folder: Path, number: int) -> list[str]:
    """Names of those whose update of a round is recorded, in order; nothing is read.

    Raises:
        ConfigError: DATA_MALFORMED for a file that is named like no client's.
    """
    return names_of(round_folder(folder, number) / UPDATES)


def names_of(folder: Path) -> list[str]:
    """Whose files ``CLIENT.npz`` a folder holds, in order; what desktops and editors hide there counts not.

    Raises:
        ConfigError: DATA_MALFORMED for a file that is named like no client's.
    """
    names = sorted(path.stem for path in folder.glob("*.npz") if not path.name.startswith("."))
    for name in names:
        if not valid_client_name(name):
            raise ConfigError(
                Code.DATA_MALFORMED,
                f"{folder / f'{name}.npz'} is named like no client's file, as client-1.npz is; remove it",
            )
    return names


def _number(path: Path) -> int:
    number = _NUMBERED.fullmatch(path.parent.name)
    if number is None:
        raise _malformed(path, f"folder {path.parent.name} names no round, as round-1 does; remove it")
    return int(number[1])


def read_round(folder: Path, number: int) -> tuple[RecordedRound, tuple[RecordedUpdate, ...]]:
    """What was recorded of one round, updates in the order of their clients' names.

    Raises:
        ConfigError: DATA_MISSING if the round is not recorded; DATA_MALFORMED, naming the file, for another
            version or content.
    """
    common, place = read_common(folder, number), round_folder(folder, number) / UPDATES
    visible = common.manifest.size - common.mask.hidden_count
    return common, tuple(_update(place / f"{name}.npz", visible) for name in recorded_clients(folder, number))


def read_common(folder: Path, number: int) -> RecordedRound:
    """What all updates of a round have in common; raises as ``read_round``."""
    path = round_folder(folder, number) / ROUND_FILE
    about, arrays = _read(path, _RoundFields)
    try:
        manifest = Manifest.from_bytes(arrays["manifest"].tobytes())
        mask = Mask.from_bytes(arrays["mask"].tobytes(), size=manifest.size)
    except (KeyError, ValueError, SecaggError) as error:
        raise _malformed(path, error) from None
    if about.round != number:
        raise _malformed(path, f"it is of round {about.round}")
    return RecordedRound(manifest=manifest, mask=mask, **dict(about))


def _update(path: Path, visible: int) -> RecordedUpdate:
    about, arrays = _read(path, _UpdateFields)
    if about.client != path.stem:
        raise _malformed(path, f"it is of client {about.client!r}")
    values = arrays.get("visible")
    if values is None or values.dtype != np.float32 or values.shape != (visible,):
        shown = "missing" if values is None else f"{values.dtype} {values.shape}"
        raise _malformed(path, f"visible is {shown}, not float32 ({visible},)")
    if not np.isfinite(values).all():
        raise _malformed(path, "visible holds NaN or infinity")
    return RecordedUpdate(visible=values, **dict(about))


def round_folder(folder: Path, number: int) -> Path:
    """Where a round is recorded."""
    return folder / f"round-{number}"


def _recorded(plan: RoundPlan, layout: Layout, state: str) -> RecordedRound:
    return RecordedRound(
        round=plan.round,
        state=state,
        manifest=plan.manifest,
        mask=Mask(layout.hidden),
        protection=plan.protection,
        rule=plan.rule,
        profile=plan.profile,
        base_round=plan.base_round,
        divisor=plan.divisor,
    )


def _visible(update: UpdateFile) -> NDArray[np.float32]:
    """An update's visible values in the order of the manifest, whatever blocks they travel in."""
    flat = np.empty(update.layout.size, dtype=np.float32)
    for block in range(len(update.layout.blocks)):
        parts = list(update.visible(block))
        if parts:
            flat[update.layout.visible_places(block)] = np.concatenate(parts)
    visible: NDArray[np.float32] = flat[~update.layout.hidden]
    return visible


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8)


def _write(path: Path, about: Mapping[str, object], **arrays: NDArray[Any]) -> None:
    """A reader sees no file or a whole one, and nobody but its owner sees either."""
    temporary = path.with_suffix(".new")
    temporary.touch(mode=0o600)
    with temporary.open("wb") as file:
        common: dict[str, Any] = {"version": np.int64(VERSION), "about": _bytes(json.dumps(about).encode())}
        np.savez(file, allow_pickle=False, **common, **arrays)
    temporary.replace(path)


def _read(path: Path, form: type[_About]) -> tuple[_About, dict[str, NDArray[Any]]]:
    try:
        arrays = read_arrays(path)
        version, about = int(arrays["version"]), arrays["about"].tobytes()
    except FileNotFoundError:
        raise ConfigError(Code.DATA_MISSING, f"{path} is missing: this round was not recorded") from None
    except KeyError as error:
        raise _malformed(path, f"it has no {error}") from None
    except (ValueError, TypeError) as error:
        raise _malformed(path, error) from None
    if version != VERSION:
        raise _malformed(path, f"it is of version {version}; this build reads {VERSION}")
    try:
        return form.model_validate_json(about), arrays
    except ValidationError as error:
        raise _malformed(path, briefly(error)) from None
    except SecaggError as error:  # a protection that contradicts itself
        raise _malformed(path, error.message) from None


def _malformed(path: Path, complaint: object) -> ConfigError:
    return ConfigError(Code.DATA_MALFORMED, f"{path} is no recording: {complaint}")
