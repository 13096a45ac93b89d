"""Every CKKS profile beside the others: what it costs, holds and promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np
from rich.console import Console
from rich.table import Table

from secagg.ckks.bounds import error_bound
from secagg.ckks.parameters import Profile
from secagg.ckks.profiles import PROFILES
from secagg.selection.layout import FLOAT32_BYTES

VALUES = 10**6
"""Errors and bytes per value are those of a vector of so many values."""

PURPOSES = {
    "compact": "means; what auto takes for rule mean",
    "compact-10": "means, fewest bytes, coarser",
    "robust": "rules that need inner products, as ddfed",
    "precise": "means of many clients, or exact ones",
    "nvflare": "comparing with NVIDIA FLARE",
}
"""What a profile is for."""


def profile_row(profile: Profile) -> dict[str, object]:
    """One profile as a flat object.

    ``error`` bounds |opened - exact| of one client's values of size up to 1, and, where they are quantised,
    relative to the range of the tensor; exceeded with probability below 2^-40.
    """
    one = np.array([1], dtype=np.int64)
    step = 2.0 ** (1 - profile.encoding.bits) if profile.quantised else 0.0  # type: ignore[union-attr]
    up, down = profile.sealed_bytes(VALUES) / VALUES, profile.aggregate_bytes(VALUES) / VALUES
    return {
        "profile": profile.name,
        "ring_degree": profile.poly_degree,
        "modulus_bits": profile.modulus.bit_length(),
        "key_modulus_bits": prod(profile.key_primes).bit_length(),
        "security_bits": profile.security_bits,
        "max_clients": profile.weight_total,
        "max_abs": None if profile.quantised else profile.max_abs,
        "error": error_bound(profile, VALUES, one, max_abs=1.0, step=step),
        "error_is_relative": profile.quantised,
        "bytes_per_value_up": up,
        "bytes_per_value_down": down,
        "up_ratio": up / FLOAT32_BYTES,
        "down_ratio": down / FLOAT32_BYTES,
        "purpose": PURPOSES.get(profile.name, ""),
    }


def profile_rows() -> list[dict[str, object]]:
    """All presets."""
    return [profile_row(profile) for profile in PROFILES.values()]


def print_profiles(console: Console) -> None:
    """The table, a column per profile, and what its lines say."""
    rows = profile_rows()
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_column(str(row["profile"]), ratio=1)
    for title, text in _LINES.items():
        table.add_row(title, *(text(row) for row in rows))
    console.print(table)
    console.print(_NOTES, highlight=False, soft_wrap=True)


_LINES: dict[str, Callable[[Mapping[str, object]], str]] = {
    "ring degree": lambda row: str(row["ring_degree"]),
    "modulus, bits": lambda row: str(row["key_modulus_bits"]),
    "security, bits": lambda row: str(row["security_bits"]),
    "clients, at most": lambda row: f"{row['max_clients']:,}",
    "largest value": lambda row: (
        "scaled" if row["max_abs"] is None else f"{row['max_abs']:,}".removesuffix(".0")
    ),
    "error, at most": lambda row: f"{row['error']:.1e}" + (" r" if row["error_is_relative"] else ""),
    "bytes/value up": lambda row: f"{row['bytes_per_value_up']:.2f}",
    "  x float32": lambda row: f"{row['up_ratio']:.2f}",
    "bytes/value down": lambda row: f"{row['bytes_per_value_down']:.2f}",
    "  x float32 ": lambda row: f"{row['down_ratio']:.2f}",
    "for": lambda row: str(row["purpose"]),
}

_NOTES = """
modulus: all primes that keys use; security: that row of the HomomorphicEncryption.org standard.
largest value: that a client may seal. scaled: each tensor has a range of its own, 4 to 8 times its
largest value when the round begins (16 to 32 times if it is small); what is beyond goes with the next
update.
error: of one client's 10^6 values of size up to 1 (r: relative to their tensor's range), exceeded with
probability below 2^-40; a mean of many clients has less. bytes/value: of 10^6 values."""
