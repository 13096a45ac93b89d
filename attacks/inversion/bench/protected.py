"""The protections of a sweep: from what was asked for to what each cell plays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from attacks.inversion.bench.cell import FULL, NONE, Cell, Setting
from attacks.inversion.bench.npy import array_of
from attacks.inversion.protections import Granularity, Protection, Scores, Significance, parse_perturbations
from attacks.inversion.protections.scores import Evidence
from attacks.inversion.protections.text import print_step
from secagg.errors import Code, ConfigError, UpdateError
from secagg.selection import Mask
from secagg.update import Manifest

FILE = "file="
"""Begins the significance whose mask is in a file."""
PLAIN = "plain"
"""Names no perturbation at all."""


@dataclass(frozen=True, kw_only=True)
class GivenMask(Protection):
    """A protection whose mask comes from outside; its ``significance`` and ``ratio`` decide nothing.

    Args:
        mask: which entries are encrypted.
    """

    mask: Mask

    def masked(self, evidence: Evidence, *, seed: int, round: int = 1) -> Mask:  # noqa: ARG002
        """The mask itself, whatever the scores."""
        return self.mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """What a cell says of its protection.

    Args:
        significance, ratio, perturb: as in ``Cell``.
    """

    significance: str
    ratio: float
    perturb: str = ""


def protections_of(
    asked: Sequence[str],
    ratios: Sequence[float],
    perturb: Sequence[str],
    setting: Setting,
    manifest: Manifest,
) -> list[Protected]:
    """Every significance at every ratio under every perturbation; ratios 0 and 1 once for all significances.

    Args:
        asked: text forms, of which those that hold a ratio or decide by themselves are tried once.
        ratios: for the others.
        perturb: text forms of perturbations; those in a significance's own text come first.
        setting: ``granularity`` and ``scores`` of those whose text says nothing of them.
        manifest: of the victim.

    Raises:
        ConfigError: CONFIG_INVALID for a text that is none, DATA_MISSING or DATA_MALFORMED for a mask's file.
        UpdateError: MASK_MISMATCH, MASK_MALFORMED for a mask that doesn't fit; MANIFEST_MISMATCH for an
            unknown tensor.
    """
    found: dict[Protected, None] = {}
    for step in [_checked(text) for text in perturb] or [""]:
        for text in asked:
            for one in _of(text, ratios, setting, manifest):
                joined = "+".join(filter(None, (one.perturb, step)))
                found[replace(one, perturb=joined)] = None
    return list(found)


def protection_of(cell: Cell, manifest: Manifest) -> Protection:
    """The protection that a cell plays.

    Raises:
        ConfigError, UpdateError: as ``protections_of``.
    """
    steps = parse_perturbations(cell.perturb)
    if cell.significance.startswith(FILE):
        mask = load_mask(Path(cell.significance.removeprefix(FILE)), manifest.size)
        return GivenMask(significance=Significance.RANDOM, ratio=_share(mask), mask=mask, perturbations=steps)
    return replace(Protection.parse(cell.significance, ratio=cell.ratio), perturbations=steps)


def load_mask(path: Path, size: int) -> Mask:
    """A mask in its wire form (``Mask.to_bytes``), or a bool vector in a ``.npy`` file; True is encrypted.

    Args:
        path: ends in ``.npy``, in letters of either case, if it is the latter.
        size: d, of the victim.

    Raises:
        ConfigError: DATA_MISSING if there is no such file; DATA_MALFORMED if it holds no mask.
        UpdateError: MASK_MISMATCH, MASK_MALFORMED.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(Code.DATA_MISSING, f"mask {path} can't be read: {error.strerror}") from None
    except ValueError as error:  # no path at all, with a zero byte in it say
        raise ConfigError(Code.DATA_MISSING, f"mask {str(path)!r} is not a path: {error}") from None
    try:
        if path.suffix.lower() != ".npy":
            return Mask.from_bytes(data, size=size)
        mask = Mask(array_of(data))
    except ValueError:
        raise ConfigError(Code.DATA_MALFORMED, f"mask {path} is no .npy file of one bool vector") from None
    except UpdateError as error:
        raise UpdateError(error.code, f"{path}: {error.message}") from None
    if mask.size != size:
        raise UpdateError(
            Code.MASK_MISMATCH, f"{path}: mask covers {mask.size} entries; the victim has {size}"
        )
    return mask


def _of(text: str, ratios: Sequence[float], setting: Setting, manifest: Manifest) -> list[Protected]:
    if text.startswith(FILE):
        path, steps = _path_and_steps(text.removeprefix(FILE))
        if not path:
            raise ConfigError(Code.CONFIG_INVALID, "no mask's file is named; give --mask PATH or file=PATH")
        mask = load_mask(Path(path), manifest.size)
        return [Protected(significance=f"{FILE}{path}", ratio=_share(mask), perturb=_checked(steps))]
    protection = _with_defaults(Protection.parse(text, ratio=0.5), text, setting)
    for name in (*protection.layers, *protection.statistics):
        manifest.slice_of(name)
    steps = "+".join(map(print_step, protection.perturbations))
    bare = replace(protection, perturbations=())
    made = partial(Protected, perturb=steps)
    if protection.significance is Significance.NONE:
        return [made(significance=NONE, ratio=0.0)]
    if protection.significance is Significance.FULL:
        return [made(significance=FULL, ratio=1.0)]
    if protection.significance is Significance.LAYERS:
        named = sum(spec.size for spec in manifest.tensors if spec.name in protection.layers)
        return [made(significance=bare.label, ratio=_rounded(named / manifest.size))]
    head = text.partition("+")[0]
    own = [protection.ratio] if ":" in head else ratios
    return [
        made(significance={0.0: NONE, 1.0: FULL}.get(ratio, bare.label), ratio=float(ratio)) for ratio in own
    ]


def _path_and_steps(text: str) -> tuple[str, str]:
    """``PATH[+step]…`` in two: the longest path that is a file, since plus signs stand in paths too.

    Without any such file all of it is the path, so that whoever reads it complains of what was given.
    """
    # As Path would have it, ./MASK became MASK, and its cells other cells.
    text = os.path.expanduser(text)  # noqa: PTH111
    ends = [at for at, character in enumerate(text) if character == "+"]
    paths = (text[:end] for end in (None, *reversed(ends)))
    path = next((path for path in paths if os.path.isfile(path)), text)  # noqa: PTH113
    return path, text[len(path) + 1 :]


def _with_defaults(protection: Protection, text: str, setting: Setting) -> Protection:
    """The sweep's granularity and scores, where they mean something and the text names none."""
    head = text.partition("+")[0]
    if "/" not in head and not protection.significance.fixed:
        protection = replace(protection, granularity=Granularity(setting.granularity))
    if "@" not in head and protection.significance.scored:
        protection = replace(protection, scores=Scores(setting.scores))
    return protection


def _checked(text: str) -> str:
    """The perturbation's canonical text form."""
    return "+".join(map(print_step, parse_perturbations("" if text == PLAIN else text)))


def _share(mask: Mask) -> float:
    return _rounded(mask.hidden_count / mask.size)


def _rounded(share: float) -> float:
    return float(f"{share:.4g}")
