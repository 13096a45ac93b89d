"""Attackers by name, and the ``NAME[:OPTION=NUMBER,…]`` that sweeps use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from types import MappingProxyType

from attacks.inversion.attackers.attacker import Attacker, Budget, Reconstruction, Status
from secagg.errors import Code, ConfigError

__all__ = ["ATTACKERS", "FORM", "Attacker", "Budget", "Reconstruction", "Status", "load_attacker"]

FORM = "NAME[:OPTION=NUMBER,…]"

_HERE = "attacks.inversion.attackers"
ATTACKERS: Mapping[str, str] = MappingProxyType(
    {
        "dlg": f"{_HERE}.dlg:DeepLeakage",
        "idlg": f"{_HERE}.idlg:ImprovedDeepLeakage",
        "inverting-gradients": f"{_HERE}.inverting_gradients:InvertingGradients",
        "gauss-newton": f"{_HERE}.gauss_newton:GaussNewton",
        "sme": f"{_HERE}.sme:SurrogateModel",
        "prior-only": f"{_HERE}.prior_only:PriorOnly",
        "analytic": f"{_HERE}.analytic:Analytic",
        "rank-completion": f"{_HERE}.rank_completion:RankCompletion",
        "imprint": f"{_HERE}.imprint:Imprint",
        "tag": f"{_HERE}.tag:Tag",
        "embedding-rows": f"{_HERE}.embedding_rows:EmbeddingRows",
        "dager": f"{_HERE}.dager:Dager",
    }
)
"""Name -> ``module:Class``; a module is imported when one of its attackers is asked for."""


def load_attacker(text: str) -> Attacker:
    """The attacker with this name and these options; its ``name`` is the text.

    Args:
        text: ``NAME`` or ``NAME:OPTION=NUMBER,OPTION=NUMBER``; options are the numeric fields of its class.

    Raises:
        ConfigError: CONFIG_INVALID for an unknown name, an option it doesn't have, or no number.

    >>> load_attacker("inverting-gradients:tv=0.05").name
    'inverting-gradients:tv=0.05'
    """
    name, colon, rest = text.partition(":")
    if name not in ATTACKERS:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"attacker: none is called {name!r}; write {FORM} with one of {', '.join(ATTACKERS)}",
        )
    module, _, kind = ATTACKERS[name].partition(":")
    attacker: Attacker = getattr(import_module(module), kind)()
    if colon:
        for option, value in _options(text, rest).items():
            _set(attacker, option, value, text)
        attacker.name = text
    return attacker


def _options(text: str, rest: str) -> dict[str, float]:
    found = {}
    for item in rest.split(","):
        option, _, written = item.partition("=")
        try:
            value = float(written)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(
                Code.CONFIG_INVALID, f"attacker {text!r}: {item!r} is no OPTION=NUMBER with a number ≥ 0"
            )
        found[option] = value
    return found


def _set(attacker: Attacker, option: str, value: float, text: str) -> None:
    """Give one numeric field its value, as int where its default is one."""
    # As a plain object: mypy holds that nothing with the protocol of an attacker can be a dataclass.
    plain: object = attacker
    numeric: dict[str, bool] = {}
    if is_dataclass(plain):
        for each in fields(plain):
            if type(each.default) in (int, float):
                numeric[each.name] = isinstance(each.default, int)
    if option not in numeric:
        known = f"has {', '.join(numeric)}" if numeric else "has none"
        raise ConfigError(Code.CONFIG_INVALID, f"attacker {text!r}: no option {option!r}; it {known}")
    whole = numeric[option]
    if whole and (value != int(value) or value < 1):
        raise ConfigError(Code.CONFIG_INVALID, f"attacker {text!r}: {option} must be a whole number ≥ 1")
    setattr(attacker, option, int(value) if whole else value)
