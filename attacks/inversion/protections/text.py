"""The text form of protections, as flags and sweep files give it.

    significance[=tensor,tensor][/granularity][@scores][:ratio][+step]…[+statistics=tensor,tensor]

A step is ``noise:STD`` (relative to the root mean square of what it is added to), ``noise-absolute:STD``,
``clip:NORM``, ``prune:SHARE`` or ``quantise:BITS``. Examples: ``magnitude:0.1``,
``magnitude/layer@common:0.1``, ``layers=conv1.weight,conv1.bias``, ``none+noise:0.01+quantise:8``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TypeVar

from attacks.inversion.protections.perturbations import Clipping, Noise, Perturbation, Pruning, Quantisation
from secagg.errors import Code, ConfigError

_Name = TypeVar("_Name", bound=StrEnum)

STATISTICS = "statistics"
_SEPARATORS = "+,"

_STEPS: dict[str, Callable[[str], Perturbation]] = {
    "noise": lambda text: Noise(std=number(text)),
    "noise-absolute": lambda text: Noise(std=number(text), relative=False),
    "clip": lambda text: Clipping(norm=number(text)),
    "prune": lambda text: Pruning(share=number(text)),
    "quantise": lambda text: Quantisation(bits=_whole(text)),
}


def parse_perturbations(text: str) -> tuple[Perturbation, ...]:
    """``noise:0.01+clip:1`` → (Noise(std=0.01), Clipping(norm=1)); none for an empty text.

    Raises:
        ConfigError: CONFIG_INVALID for an unknown step, listing what there is, or a value it can't take.
    """
    return tuple(parse_step(step) for step in text.split("+")) if text else ()


def parse_step(text: str) -> Perturbation:
    """One step, as in ``parse_perturbations``."""
    name, colon, value = text.partition(":")
    if name not in _STEPS:
        raise invalid(f"no perturbation {name!r}: give {', '.join(f'{known}:VALUE' for known in _STEPS)}")
    if not colon:
        raise invalid(f"perturbation {name} needs a value: {name}:VALUE")
    return _STEPS[name](value)


def print_step(step: Perturbation) -> str:
    """Inverse of ``parse_step``."""
    match step:
        case Noise():
            return f"{'noise' if step.relative else 'noise-absolute'}:{print_number(step.std)}"
        case Clipping():
            return f"clip:{print_number(step.norm)}"
        case Pruning():
            return f"prune:{print_number(step.share)}"
        case Quantisation():
            return f"quantise:{step.bits}"
    raise invalid(f"{step!r} has no text form")


def parse_tensors(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name for name in text.split(",") if name)


def check_tensors(names: Iterable[str], what: str) -> None:
    """Raises ConfigError, CONFIG_INVALID, for a name that the text form can't hold, or one given twice."""
    names = tuple(names)
    for name in names:
        if not name or any(separator in name for separator in _SEPARATORS):
            raise invalid(f"{what}: a tensor name is not empty and holds none of {_SEPARATORS}; got {name!r}")
    if len(set(names)) != len(names):
        raise invalid(f"{what}: a tensor is named twice in {','.join(names)}")


def choose(kind: type[_Name], text: str, what: str) -> _Name:
    """The member with this name.

    Raises:
        ConfigError: CONFIG_INVALID, listing what there is.
    """
    try:
        return kind(text)
    except ValueError:
        raise invalid(f"no {what} {text!r}: give {', '.join(kind)}") from None


def number(text: str) -> float:
    """A decimal number.

    Raises:
        ConfigError: CONFIG_INVALID for anything else, NaN included.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise invalid(f"{text!r} is no number")
    return value


def print_number(value: float) -> str:
    """The shortest text that gives the same number, without a plus sign."""
    if abs(value) < 1e15 and float(value).is_integer():
        return str(int(value))
    return repr(float(value)).replace("e+", "e")


def invalid(message: str) -> ConfigError:
    """A setting that can't be used."""
    return ConfigError(Code.CONFIG_INVALID, message)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise invalid(f"{text!r} is no whole number") from None
