"""SEAL contexts, cached per process, and what it takes to move residues in and out of them.

CKKS adds the message to an encryption of zero: c0 + c1·s = m + e with m and e integer polynomials. A
``CoefficientRing`` does just that, on coefficients. SEAL ties a ciphertext's representation to the label of
its context: under CKKS's it makes encryptions of zero in NTT order, under BFV's as coefficients; the
distributions are the same. Ours carry the second label, so that integers are added to coefficients in numpy
and no floating-point transform stands between a value and its coefficient. Nothing else of BFV (its scaling
by q/t) is used. A ``SlotRing`` is SEAL's CKKS as TenSEAL uses it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from secagg.ckks.parameters import Profile, Slots
from secagg.ckks.seal_stream import Form

MAX_POLYNOMIALS = 16
"""As many polynomials as SEAL lets one ciphertext have; they are transformed together."""

_PLAIN_MODULUS = 2**20
"""Bounds the integers that ``CoefficientRing.times`` multiplies with; SEAL needs one to be set."""


class Ring:
    """A SEAL context over given primes; immutable once made, so threads may share it.

    Args:
        scheme: SEAL's label.
        poly_degree: ring degree N.
        key_primes: SEAL sets the last of several aside for keys.
    """

    def __init__(self, scheme: Any, poly_degree: int, key_primes: tuple[int, ...]) -> None:
        parameters = seal.EncryptionParameters(scheme)
        parameters.set_poly_modulus_degree(poly_degree)
        parameters.set_coeff_modulus([seal.Modulus(prime) for prime in key_primes])
        if scheme == seal.SCHEME_TYPE.BFV:
            parameters.set_plain_modulus(_PLAIN_MODULUS)
        # SEAL checks the security table once more and refuses to work beyond it.
        self.seal = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        self.poly_degree = poly_degree
        self.primes = key_primes[:-1] if len(key_primes) > 1 else key_primes
        self.evaluator = seal.Evaluator(self.seal)
        keys = seal.KeyGenerator(self.seal)
        secret, public = keys.secret_key(), seal.PublicKey()
        keys.create_public_key(public)
        self.secret_form = Form.of(secret, (len(key_primes), poly_degree))
        self.public_form = Form.of(public, (2, len(key_primes), poly_degree))
        encryptor = seal.Encryptor(self.seal, secret)
        whole = seal.Ciphertext()
        encryptor.encrypt_zero_symmetric(whole)
        shape = (len(self.primes), poly_degree)
        self.ciphertext_form = Form.of(whole, (2, *shape))
        self.seeded_form = Form.of(encryptor.encrypt_zero_symmetric(), shape, seeded=True)

    def expand(self, polynomial: NDArray[np.uint64], seed: bytes) -> Any:
        """A fresh ciphertext from its first polynomial [primes, N]; SEAL expands the second from the seed."""
        return self.seeded_form.load(seal.Ciphertext(), self.seal, polynomial, seed=seed)

    def residues(self, ciphertext: Any) -> NDArray[np.uint64]:
        """Residues uint64 [2, primes, N] of a two-part ciphertext, in whatever order it has them."""
        return self.ciphertext_form.read(ciphertext)[0]

    def add(self, running: Any, item: Any) -> Any:
        """``running`` (None at first) plus ``item``; ``running`` is changed and returned."""
        if running is None:
            return item
        _unless_transparent(running, self.evaluator.add_inplace, running, item)
        return running


class CoefficientRing(Ring):
    """Polynomials modulo one prime p and X^N + 1; ciphertexts hold coefficients unless said otherwise."""

    def __init__(self, poly_degree: int, prime: int) -> None:
        super().__init__(seal.SCHEME_TYPE.BFV, poly_degree, (prime,))
        self.prime = prime
        unit = seal.Plaintext("1")
        self.evaluator.transform_to_ntt_inplace(unit, self.seal.first_parms_id())
        self._plaintext_form = Form.of(unit, (1, poly_degree))
        self._forms: dict[int, Form] = {}

    def ciphertext(self, polynomials: NDArray[np.uint64], *, ntt: bool = False) -> Any:
        """A ciphertext of 2 to ``MAX_POLYNOMIALS`` polynomials, uint64 [parts, N]."""
        form = self._form(len(polynomials))
        return form.load(seal.Ciphertext(), self.seal, polynomials[:, None, :], ntt=ntt)

    def polynomials(self, ciphertext: Any) -> NDArray[np.uint64]:
        """A ciphertext's polynomials, uint64 [parts, N], in whatever order it has them."""
        return self._form(ciphertext.size()).read(ciphertext)[0][:, 0]

    def plaintext(self, polynomial: NDArray[np.uint64]) -> Any:
        """A plaintext from one polynomial in NTT order, uint64 [N]."""
        return self._plaintext_form.load(seal.Plaintext(), self.seal, polynomial[None, :])

    def times(self, ciphertext: Any, factor: int) -> Any:
        """The ciphertext times an integer, 1 to 2^20 - 1; changed in place."""
        if factor != 1:
            self.evaluator.multiply_plain_inplace(ciphertext, seal.Plaintext(f"{factor:x}"))
        return ciphertext

    def multiply(self, ciphertext: Any, plaintext: Any) -> Any:
        """ciphertext·plaintext, both in NTT order, as a new ciphertext."""
        product = seal.Ciphertext()
        _unless_transparent(product, self.evaluator.multiply_plain, ciphertext, plaintext, product)
        return product

    def to_ntt(self, ciphertext: Any) -> Any:
        """Coefficients to SEAL's NTT order, in place."""
        _unless_transparent(ciphertext, self.evaluator.transform_to_ntt_inplace, ciphertext)
        return ciphertext

    def from_ntt(self, ciphertext: Any) -> Any:
        """SEAL's NTT order to coefficients, in place."""
        _unless_transparent(ciphertext, self.evaluator.transform_from_ntt_inplace, ciphertext)
        return ciphertext

    def transform(self, polynomials: NDArray[np.uint64], *, to_ntt: bool) -> NDArray[np.uint64]:
        """Polynomials uint64 [k, N], 1 ≤ k ≤ ``MAX_POLYNOMIALS``, between coefficients and NTT order."""
        count = len(polynomials)
        padded = polynomials if count > 1 else np.concatenate((polynomials, polynomials))
        item = self.ciphertext(padded, ntt=not to_ntt)
        return self.polynomials(self.to_ntt(item) if to_ntt else self.from_ntt(item))[:count]

    def products(self, polynomials: NDArray[np.uint64], factor: Any) -> NDArray[np.uint64]:
        """Coefficients of each polynomial [k, N] (coefficients) times a plaintext, uint64 [k, N]."""
        count = len(polynomials)
        padded = polynomials if count > 1 else np.concatenate((polynomials, polynomials))
        product = self.multiply(self.to_ntt(self.ciphertext(padded)), factor)
        return self.polynomials(self.from_ntt(product))[:count]

    def reduce(self, integers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Integers of size below p modulo p: uint64 of the same shape."""
        return np.where(integers < 0, integers + np.int64(self.prime), integers).view(np.uint64)

    def centred(self, residues: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The integers of size below p/2 that residues stand for: int64 of the same shape."""
        signed = residues.view(np.int64)
        return np.where(signed > self.prime // 2, signed - np.int64(self.prime), signed)

    def shifted(self, residues: NDArray[np.uint64], integers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Residues modulo p of residues + integers of size below p, uint64 of their shape."""
        total = (residues.view(np.int64) + integers).view(np.uint64)
        # A sum below 0 has wrapped around to something large; adding p wraps it back.
        np.minimum(total, total + np.uint64(self.prime), out=total)
        np.minimum(total, total - np.uint64(self.prime), out=total)
        return total

    def sum(self, left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Residues modulo p of left + right, both reduced, uint64 of their shape."""
        total = left + right
        # Below p the subtraction wraps around to something larger.
        np.minimum(total, total - np.uint64(self.prime), out=total)
        return total

    def conjugate(self, polynomial: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """σ: X -> 1/X on coefficients uint64 [N]: c_0, -c_{N-1}, …, -c_1, as X^-k = -X^(N-k)."""
        turned = np.empty_like(polynomial)
        turned[0], rest = polynomial[0], polynomial[:0:-1]
        turned[1:] = np.where(rest == 0, rest, np.uint64(self.prime) - rest)
        return turned

    def _form(self, parts: int) -> Form:
        if parts not in self._forms:
            sample = seal.Ciphertext(self.seal)
            sample.resize(self.seal, parts)
            self._forms[parts] = Form.of(sample, (parts, 1, self.poly_degree))
        return self._forms[parts]


class SlotRing(Ring):
    """SEAL's CKKS: complex slots, several primes, ciphertexts in NTT order.

    Args:
        scale: what plaintexts are encoded at.
    """

    def __init__(self, poly_degree: int, key_primes: tuple[int, ...], scale: float) -> None:
        super().__init__(seal.SCHEME_TYPE.CKKS, poly_degree, key_primes)
        self._scale = scale
        self._encoder = seal.CKKSEncoder(self.seal)
        # Ciphertexts are marked with the scale of what they encrypt; zero has none.
        secret = seal.KeyGenerator(self.seal).secret_key()
        encryptor, sample = seal.Encryptor(self.seal, secret), self.encode(np.zeros(1))
        whole = seal.Ciphertext()
        encryptor.encrypt_symmetric(sample, whole)
        self.ciphertext_form = Form.of(whole, self.ciphertext_form.shape)
        seeded = encryptor.encrypt_symmetric(sample)
        self.seeded_form = Form.of(seeded, self.seeded_form.shape, seeded=True)

    def encode(self, values: NDArray[np.float64]) -> Any:
        """A plaintext of up to N/2 reals, one per slot."""
        plaintext = seal.Plaintext()
        self._encoder.encode(values.tolist(), self._scale, plaintext)
        return plaintext

    def decode(self, plaintext: Any) -> NDArray[np.float64]:
        """All slots' real parts, float64 [N/2]."""
        return np.array(self._encoder.decode_double(plaintext), dtype=np.float64)

    def ciphertext(self, residues: NDArray[np.uint64]) -> Any:
        """A two-part ciphertext from residues [2, primes, N] in NTT order."""
        return self.ciphertext_form.load(seal.Ciphertext(), self.seal, residues)

    def times(self, ciphertext: Any, factor: int) -> Any:
        """The ciphertext times an integer, exact for 0 < factor < 2^53; changed in place."""
        if factor != 1:
            plaintext = seal.Plaintext()
            # Encoded at scale 1, it leaves the ciphertext's own scale as it is.
            self._encoder.encode(float(factor), 1.0, plaintext)
            self.evaluator.multiply_plain_inplace(ciphertext, plaintext)
        return ciphertext


@cache
def coefficient_ring(poly_degree: int, prime: int) -> CoefficientRing:
    """This process's ring of this degree and prime; made at the first call (some 20 ms)."""
    return CoefficientRing(poly_degree, prime)


@cache
def _slot_ring(poly_degree: int, key_primes: tuple[int, ...], scale: float) -> SlotRing:
    return SlotRing(poly_degree, key_primes, scale)


def ring_of(profile: Profile) -> CoefficientRing | SlotRing:
    """The ring a profile's ciphertexts live in."""
    if isinstance(profile.encoding, Slots):
        return _slot_ring(profile.poly_degree, profile.key_primes, profile.encoding.scale)
    return coefficient_ring(profile.poly_degree, profile.primes[0])


def conjugate(residues: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """σ: X -> 1/X on NTT values: in SEAL's order the N residues in reverse.

    Position i holds the value at ψ^(2·rev(i)+1), rev reversing log2(N) bits; rev(N-1-i) = N-1-rev(i), so
    position N-1-i holds the value at ψ^(2N-2·rev(i)-1), the inverse root.

    Args:
        residues: uint64 [..., N] in NTT order.
    """
    return residues[..., ::-1]


def _unless_transparent(result: Any, operation: Any, *arguments: Any) -> None:
    """Run a SEAL operation whose result may be "transparent", all polynomials but the first being zero.

    SEAL computes it first and then objects. Here it is harmless: batches of polynomials are no ciphertexts; a
    sum or product of a hostile client's ciphertexts can come out so, but is no secret's only cover, as
    encryptions of zero are added before anything is released; and it must not end the round.
    """
    try:
        operation(*arguments)
    except RuntimeError:
        if not result.is_transparent():
            raise
