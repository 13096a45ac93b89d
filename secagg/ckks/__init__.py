"""All lattice cryptography: profiles, keys, sums, inner products. Nothing outside imports tenseal."""

from secagg.ckks.crew import Crew
from secagg.ckks.keys import KEY_ID_BYTES, KeyPair, PublicKey, SecretKey, generate, pair_of
from secagg.ckks.parameters import Profile, ProfileLiteral
from secagg.ckks.products import (
    AggregateOperand,
    Operand,
    PlainOperand,
    ProductSum,
    SealedOperand,
    gram_pairs,
    inner_products,
    product_sums,
)
from secagg.ckks.profiles import PROFILES, checked, profile
from secagg.ckks.quantisation import Carry, Steps
from secagg.ckks.vectors import CiphertextReader, Opener, Sealer, aggregate_vector, weighted_sum

__all__ = [
    "KEY_ID_BYTES",
    "PROFILES",
    "AggregateOperand",
    "Carry",
    "CiphertextReader",
    "Crew",
    "KeyPair",
    "Opener",
    "Operand",
    "PlainOperand",
    "ProductSum",
    "Profile",
    "ProfileLiteral",
    "PublicKey",
    "SealedOperand",
    "Sealer",
    "SecretKey",
    "Steps",
    "aggregate_vector",
    "checked",
    "generate",
    "gram_pairs",
    "inner_products",
    "pair_of",
    "product_sums",
    "profile",
    "weighted_sum",
]
