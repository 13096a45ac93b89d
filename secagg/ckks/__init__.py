"""All lattice cryptography: profiles, keys, sums, inner products. Nothing outside imports tenseal."""

from secagg.ckks.keys import KEY_ID_BYTES, KeyPair, PublicKey, SecretKey, generate, pair_of
from secagg.ckks.products import (
    AggregateOperand,
    Itself,
    Operand,
    PlainOperand,
    SealedOperand,
    inner_products,
)
from secagg.ckks.profiles import PROFILES, WEIGHT_TOTAL, Profile, ProfileLiteral, checked, profile
from secagg.ckks.vectors import CiphertextReader, Opener, Sealer, weighted_sum

__all__ = [
    "KEY_ID_BYTES",
    "PROFILES",
    "WEIGHT_TOTAL",
    "AggregateOperand",
    "CiphertextReader",
    "Itself",
    "KeyPair",
    "Opener",
    "Operand",
    "PlainOperand",
    "Profile",
    "ProfileLiteral",
    "PublicKey",
    "SealedOperand",
    "Sealer",
    "SecretKey",
    "checked",
    "generate",
    "inner_products",
    "pair_of",
    "profile",
    "weighted_sum",
]
