"""How large a modulus a ring degree carries at which security level."""

from __future__ import annotations

STANDARD_MODULUS_BITS = {
    128: {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881},
    192: {1024: 19, 2048: 37, 4096: 75, 8192: 152, 16384: 305, 32768: 611},
    256: {1024: 14, 2048: 29, 4096: 58, 8192: 118, 16384: 237, 32768: 476},
}
"""Security level (bits, classical) -> ring degree -> largest modulus (bits), for a ternary secret.

Source: Albrecht et al., *Homomorphic Encryption Security Standard*, HomomorphicEncryption.org 2018, table 1.
"""


def security_bits(poly_degree: int, modulus: int) -> int:
    """The highest level of the table that a key modulus is within; 0 if it is within none.

    Args:
        poly_degree: ring degree N.
        modulus: the product of all primes that keys use.
    """
    bits = modulus.bit_length()
    return max(
        (level for level, limits in STANDARD_MODULUS_BITS.items() if bits <= limits.get(poly_degree, 0)),
        default=0,
    )
