"""Rules that turn a round's statistics into weights, by name.

A rule is written as ``NAME`` or ``NAME:PARAMETER=VALUE,…``, for instance ``mean`` or
``ddfed:epsilon=10,delta=1e-5``. A new rule is one module and one line in ``RULES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from defenses.ddfed import DDFed
from defenses.mean import Mean
from secagg.errors import Code, ConfigError
from secagg.rule import Rule

__all__ = ["RULES", "DDFed", "Mean", "load_rule"]

RULES: Mapping[str, Callable[..., Rule]] = MappingProxyType({"mean": Mean, "ddfed": DDFed})
"""Name -> factory; a factory takes its parameters as keyword floats."""


def load_rule(name: str) -> Rule:
    """The rule with this name and these parameters.

    Args:
        name: ``NAME`` or ``NAME:PARAMETER=VALUE,…``; values are decimal numbers.

    Raises:
        ConfigError: RULE_UNKNOWN for a name that is not in ``RULES``; CONFIG_INVALID for a parameter
            that the rule does not have, or a value outside its range.

    >>> load_rule("mean").name
    'mean'
    >>> load_rule("median")
    Traceback (most recent call last):
    ...
    secagg.errors.ConfigError: RULE_UNKNOWN: no rule 'median'; there are: mean, ddfed
    """
    base, _, text = name.partition(":")
    if base not in RULES:
        raise ConfigError(Code.RULE_UNKNOWN, f"no rule {base!r}; there are: {', '.join(RULES)}")
    parameters = _parameters(name, text)
    try:
        return RULES[base](**parameters)
    except TypeError:
        raise ConfigError(
            Code.CONFIG_INVALID, f"rule {base!r} does not take the parameters {', '.join(parameters)}"
        ) from None


def _parameters(name: str, text: str) -> dict[str, float]:
    parameters: dict[str, float] = {}
    for item in text.split(",") if text else ():
        key, _, value = item.partition("=")
        try:
            parameters[key.strip()] = float(value)
        except ValueError:
            raise ConfigError(
                Code.CONFIG_INVALID, f"rule {name!r}: {item!r} must read PARAMETER=NUMBER"
            ) from None
    return parameters
