"""The names of what a protection is made of."""

from __future__ import annotations

from enum import StrEnum


class Significance(StrEnum):
    """What decides which entries are encrypted; ``magnitude``, ``random`` and ``layers`` are the wire's."""

    NONE = "none"
    FULL = "full"
    MAGNITUDE = "magnitude"
    SENSITIVITY = "sensitivity"
    PRODUCT = "product"
    WEIGHTED = "weighted"
    MASKCRYPT = "maskcrypt"
    RANDOM = "random"
    FIRST = "first"
    LAST = "last"
    LAYERS = "layers"

    @property
    def scored(self) -> bool:
        """True if every entry has a score, which depends on the samples."""
        return self in _SCORED

    @property
    def fixed(self) -> bool:
        """True if the ratio says nothing: nothing, everything, or what is named is encrypted."""
        return self in (Significance.NONE, Significance.FULL, Significance.LAYERS)


_SCORED = frozenset(
    {
        Significance.MAGNITUDE,
        Significance.SENSITIVITY,
        Significance.PRODUCT,
        Significance.WEIGHTED,
        Significance.MASKCRYPT,
    }
)


class Granularity(StrEnum):
    """What is encrypted as a piece: single entries, or whole tensors."""

    ENTRY = "entry"
    LAYER = "layer"


class Scores(StrEnum):
    """Whose scores count: the attacked client's own, as published, or other clients', as on the wire."""

    OWN = "own"
    COMMON = "common"
