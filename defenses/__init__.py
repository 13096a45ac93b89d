"""Rules that turn a round's statistics into weights, by name.

A rule is written as ``NAME`` or ``NAME:PARAMETER=VALUE,…``, for instance ``mean`` or ``multi-krum:f=3``.
Rules that mix updates come before others: ``nnm+krum:f=3``. A new rule is one module and one line in
``RULES``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

from defenses.arc import ARC
from defenses.bulyan_selection import BulyanSelection
from defenses.caf import CAF
from defenses.centered_clipping import CenteredClipping
from defenses.coordinate_rule import CoordinateWise
from defenses.ddfed import DDFed
from defenses.ddfed_hardened import DDFedHardened
from defenses.dnc import DnC
from defenses.flame import Flame
from defenses.fltrust import FLTrust
from defenses.foolsgold import FoolsGold
from defenses.geometric_median import GeometricMedian
from defenses.gram_rule import Common, GramRule
from defenses.krum import Krum, MultiKrum
from defenses.mda import MDA
from defenses.meamed import Meamed
from defenses.mean import Mean
from defenses.median import Median
from defenses.mixing import Mixing
from defenses.monna import MoNNA
from defenses.nnm import NNM
from defenses.norm_clipping import NormClipping
from defenses.smea import SMEA
from defenses.trimmed_mean import TrimmedMean
from secagg.errors import Code, ConfigError
from secagg.rule import Rule

__all__ = ["RULES", "DDFed", "DDFedHardened", "Mean", "load_rule"]

_CLASSES: tuple[type[Mean | DDFed | GramRule | CoordinateWise], ...] = (
    *(
        Mean,
        DDFed,
        DDFedHardened,
        FLTrust,
        Krum,
        MultiKrum,
        MDA,
        NNM,
        MoNNA,
        GeometricMedian,
        CenteredClipping,
    ),
    *(NormClipping, ARC, Flame, DnC, CAF, SMEA, BulyanSelection, FoolsGold, Median, TrimmedMean, Meamed),
)
RULES: Mapping[str, Callable[..., Rule]] = MappingProxyType({rule.name: rule for rule in _CLASSES})
"""Name -> factory; a factory takes its parameters as keyword numbers."""
_SIGNS = ("sign", "signsgd", "sign-majority")
_MIXING = tuple(rule.name for rule in _CLASSES if issubclass(rule, Mixing))


def load_rule(name: str) -> Rule:
    """The rule with this name and these parameters.

    Args:
        name: ``NAME`` or ``NAME:PARAMETER=VALUE,…``; values are decimal numbers. NAME may be several,
            joined by ``+``: all but the last mix updates. A parameter goes to whichever of them has it.

    Raises:
        ConfigError: RULE_UNKNOWN for a name that is not in ``RULES``; CONFIG_INVALID for a parameter that
            the rule does not have, or a value outside its range; RULE_UNSUPPORTED for rules that can't be
            joined, and for those on signs of gradients.

    >>> load_rule("mean").name, load_rule("nnm+krum:f=3").name
    ('mean', 'nnm+krum')
    >>> load_rule("medain")     # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    secagg.errors.ConfigError: RULE_UNKNOWN: no rule 'medain'; there are: mean, ddfed, ddfed-hardened, ...
    """
    base, _, text = name.partition(":")
    parts = base.split("+")
    for part in parts:
        if part in _SIGNS:
            raise ConfigError(
                Code.RULE_UNSUPPORTED,
                f"rule {part!r} is not offered: rules on signs of gradients need steps of fixed size and see "
                "each coordinate; use median or trimmed-mean with protect = plain",
            )
        if part not in RULES:
            raise ConfigError(Code.RULE_UNKNOWN, f"no rule {part!r}; there are: {', '.join(RULES)}")
    parameters = _parameters(name, text)
    accepted = {part: _accepted(part) for part in parts}
    known = {key for keys in accepted.values() for key in keys}
    if unknown := [key for key in parameters if key not in known]:
        takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise ConfigError(
            Code.CONFIG_INVALID, f"rule {base!r} does not take the parameters {', '.join(unknown)}; {takes}"
        )
    rule: Rule | None = None
    for place, part in reversed(list(enumerate(parts))):
        own: dict[str, object] = {key: value for key, value in parameters.items() if key in accepted[part]}
        if place:
            # Gates and k_min are the first one's: what a later one selects are mixtures already.
            own = {
                key: value for key, value in own.items() if key == "f" or key not in Common.__annotations__
            }
            own |= {"k_min": 1} if "k_min" in accepted[part] else {}
        if place < len(parts) - 1:
            if part not in _MIXING:
                raise ConfigError(
                    Code.RULE_UNSUPPORTED,
                    f"rule {base!r}: {part} does not mix updates, so that nothing can follow it; "
                    f"{', '.join(_MIXING)} do",
                )
            own["then"] = rule
        rule = RULES[part](**own)
    assert rule is not None
    return rule


def _accepted(part: str) -> frozenset[str]:
    """The names of a rule's parameters."""
    found = set()
    for parameter in inspect.signature(RULES[part]).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found |= set(Common.__annotations__)
        elif parameter.name != "then":
            found.add(parameter.name)
    return frozenset(found)


def _parameters(name: str, text: str) -> dict[str, float]:
    parameters: dict[str, float] = {}
    for item in text.split(",") if text else ():
        key, _, value = (part.strip() for part in item.partition("="))
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(
                Code.CONFIG_INVALID, f"rule {name!r}: {item!r} must read PARAMETER=NUMBER"
            ) from None
        if key in parameters:
            raise ConfigError(Code.CONFIG_INVALID, f"rule {name!r} names {key} twice")
        parameters[key] = int(number) if number.is_integer() else number
    return parameters
