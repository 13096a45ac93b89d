"""Federated learning under CKKS encryption: the aggregator never sees a client's update.

Everything a program that embeds a client needs is here; names are loaded when first used, so that
``import secagg.errors`` brings in neither gRPC nor the lattice engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secagg.client.result import FederationEnd, RoundResult, Trainer
    from secagg.client.round import Round
    from secagg.client.session import Client
    from secagg.errors import (
        CiphertextError,
        Code,
        ConfigError,
        CustodyError,
        RoundError,
        SecaggError,
        ServerError,
        TransferError,
        UpdateError,
    )
    from secagg.plan import Protection, ProtectionMode, RoundPlan, RoundState, Significance
    from secagg.rule import Answer, CoordinateRule, Reason, Rule, RuleLoader, Statistics, StatisticsRequest
    from secagg.update import Manifest, Tensors, TensorSpec

__version__ = "0.1.0"

_HOMES = {
    "secagg.client.session": ("Client",),
    "secagg.client.result": ("FederationEnd", "RoundResult", "Trainer"),
    "secagg.client.round": ("Round",),
    "secagg.errors": (
        "CiphertextError",
        "Code",
        "ConfigError",
        "CustodyError",
        "RoundError",
        "SecaggError",
        "ServerError",
        "TransferError",
        "UpdateError",
    ),
    "secagg.plan": ("Protection", "ProtectionMode", "RoundPlan", "RoundState", "Significance"),
    "secagg.rule": (
        "Answer",
        "CoordinateRule",
        "Reason",
        "Rule",
        "RuleLoader",
        "Statistics",
        "StatisticsRequest",
    ),
    "secagg.update": ("Manifest", "TensorSpec", "Tensors"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "CiphertextError",
    "Client",
    "Code",
    "ConfigError",
    "CoordinateRule",
    "CustodyError",
    "FederationEnd",
    "Manifest",
    "Protection",
    "ProtectionMode",
    "Reason",
    "Round",
    "RoundError",
    "RoundPlan",
    "RoundResult",
    "RoundState",
    "Rule",
    "RuleLoader",
    "SecaggError",
    "ServerError",
    "Significance",
    "Statistics",
    "StatisticsRequest",
    "TensorSpec",
    "Tensors",
    "Trainer",
    "TransferError",
    "UpdateError",
    "__version__",
]


def __getattr__(name: str) -> object:
    try:
        home = _HOME_OF[name]
    except KeyError:
        raise AttributeError(f"module 'secagg' has no attribute {name!r}") from None
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
