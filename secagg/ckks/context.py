"""The SEAL context of a profile, cached per process, and what it takes to move residues in and out of it."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from secagg.ckks.profiles import Profile
from secagg.ckks.seal_stream import Form


class Ring:
    """A SEAL context over given primes; immutable once made, so threads may share it.

    Args:
        poly_degree: ring degree N.
        primes: key primes; SEAL sets the last of several aside for keys.
        scale: what fresh ciphertexts are marked with.
    """

    def __init__(self, poly_degree: int, primes: tuple[int, ...], scale: float) -> None:
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(poly_degree)
        parameters.set_coeff_modulus([seal.Modulus(prime) for prime in primes])
        # SEAL checks the security table once more and refuses to work beyond it.
        self.seal = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        self.poly_degree = poly_degree
        self.key_primes = primes
        self.primes = primes[:-1] if len(primes) > 1 else primes
        self.scale = scale
        self.encoder = seal.CKKSEncoder(self.seal)
        self.evaluator = seal.Evaluator(self.seal)
        keys = seal.KeyGenerator(self.seal)
        secret, public = keys.secret_key(), seal.PublicKey()
        keys.create_public_key(public)
        self.secret_form = Form.of(secret, (len(primes), poly_degree))
        self.public_form = Form.of(public, (2, len(primes), poly_degree))
        encryptor = seal.Encryptor(self.seal, secret)
        sample = self.encode([0j])
        whole = seal.Ciphertext()
        encryptor.encrypt_symmetric(sample, whole)
        shape = (len(self.primes), poly_degree)
        self.ciphertext_form = Form.of(whole, (2, *shape))
        self.seeded_form = Form.of(encryptor.encrypt_symmetric(sample), shape, seeded=True)
        unit = seal.Plaintext()
        # Scale 1: products with such a plaintext keep the ciphertext's own scale.
        self.encoder.encode(1.0, 1.0, unit)
        self.plaintext_form = Form.of(unit, shape)

    def encode(self, slots: list[complex]) -> Any:
        """A plaintext at this ring's scale from up to N/2 complex slots."""
        plaintext = seal.Plaintext()
        self.encoder.encode(slots, self.scale, plaintext)
        return plaintext

    def integer(self, value: int) -> Any:
        """The constant plaintext ``value`` at scale 1, exact for 0 < value < 2^53."""
        plaintext = seal.Plaintext()
        self.encoder.encode(float(value), 1.0, plaintext)
        return plaintext

    def plaintext(self, residues: NDArray[np.uint64]) -> Any:
        """A plaintext at scale 1 from NTT residues [primes, N]."""
        return self.plaintext_form.load(seal.Plaintext(), self.seal, residues)

    def ciphertext(self, residues: NDArray[np.uint64], *, ntt: bool = True) -> Any:
        """A two-part ciphertext from residues [2, primes, N]."""
        return self.ciphertext_form.load(seal.Ciphertext(), self.seal, residues, ntt=ntt)

    def seeded_ciphertext(self, polynomial: NDArray[np.uint64], seed: bytes) -> Any:
        """A ciphertext whose second part SEAL expands from the seed."""
        return self.seeded_form.load(seal.Ciphertext(), self.seal, polynomial, seed=seed)

    def residues(self, ciphertext: Any) -> NDArray[np.uint64]:
        """Residues uint64 [2, primes, N] of a two-part ciphertext, in whatever form it is."""
        return self.ciphertext_form.read(ciphertext)[0]

    def transform(self, polynomials: NDArray[np.uint64], *, to_ntt: bool) -> NDArray[np.uint64]:
        """Two polynomials [2, primes, N] between coefficients and SEAL's NTT order."""
        item = self.ciphertext(polynomials, ntt=not to_ntt)
        if to_ntt:
            self.evaluator.transform_to_ntt_inplace(item)
        else:
            self.evaluator.transform_from_ntt_inplace(item)
        return self.residues(item)


class Context(Ring):
    """The ring of a profile."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile.poly_degree, profile.key_primes, profile.scale)
        self.profile = profile

    @cached_property
    def key_rings(self) -> tuple[Ring, ...]:
        """One single-prime ring per key prime: SEAL transforms ciphertexts modulo the data primes only."""
        return tuple(Ring(self.poly_degree, (prime,), 1.0) for prime in self.key_primes)


@cache
def context_of(profile: Profile) -> Context:
    """This process's context for a profile; made at the first call (some 20 ms)."""
    return Context(profile)


def conjugate(residues: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """σ: X -> 1/X, which conjugates every slot: in SEAL's NTT order the N residues in reverse.

    Position i holds the value at ψ^(2·rev(i)+1), rev reversing log2(N) bits; rev(N-1-i) = N-1-rev(i), so
    position N-1-i holds the value at ψ^(2N-2·rev(i)-1), the inverse root.

    Args:
        residues: uint64 [..., N] in NTT order.
    """
    return residues[..., ::-1]
