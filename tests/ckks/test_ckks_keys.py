"""Keys travel without any library's version inside, and give nothing away on the way."""

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from sealed_vectors import aggregate_reader, mean_of, pair_of, sealed_reader, step_for, steps_for

from secagg.ckks import (
    PROFILES,
    KeyPair,
    Opener,
    PublicKey,
    SealedOperand,
    Sealer,
    SecretKey,
    aggregate_vector,
    generate,
    inner_products,
    profile,
)
from secagg.ckks import (
    pair_of as with_public_key,
)
from secagg.ckks.bounds import NOISE_VARIANCE, error_bound, product_error_bound
from secagg.ckks.context import coefficient_ring, ring_of
from secagg.ckks.opening import LweSecret
from secagg.ckks.wire import parse_aggregate
from secagg.errors import CiphertextError, Code


def holders(pair: KeyPair) -> list[object]:
    """An object of each kind that holds the secret."""
    found: list[object] = [pair.secret, Sealer(pair.secret), Opener(pair.secret)]
    return [*found, LweSecret(pair.secret)] if pair.secret.profile.inner_products else found


def test_secret_rebuilt_from_its_bytes_opens_what_the_original_sealed(pair: KeyPair) -> None:
    """Only ternary coefficients travel; the rebuilt key opens within the bound, and seals for the other."""
    used, rebuilt = pair.secret.profile, SecretKey.from_bytes(pair.secret.to_bytes())
    values = np.linspace(-3, 3, 5000)
    steps = steps_for(used, values.size, 3.0)
    bound = error_bound(used, values.size, np.array([1]), max_abs=3.0, step=step_for(used, 3.0))
    for sealing, opening in ((pair.secret, rebuilt), (rebuilt, pair.secret)):
        reader = sealed_reader(Sealer(sealing).seal(values, steps=steps), used)
        aggregate = b"".join(aggregate_vector([reader], [1], values.size, used))
        opened = Opener(opening).open_vector(aggregate, values.size, steps=steps)
        assert np.abs(opened - mean_of([values], [1])).max() <= bound


def test_public_key_rebuilt_from_its_bytes_releases_what_the_secret_opens(robust: KeyPair) -> None:
    """All the aggregator has is those bytes."""
    rebuilt, vector = PublicKey.from_bytes(robust.public.to_bytes()), np.ones(10, dtype=np.float32)
    reader = sealed_reader(Sealer(robust.secret).seal(vector), robust.secret.profile)
    (scalar,) = inner_products([SealedOperand(reader=reader)], [(0, 0)], 10, rebuilt)
    bound = product_error_bound(robust.secret.profile, 10**0.5, 10**0.5, 10)
    assert abs(Opener(robust.secret).open_scalar(scalar) - 10) <= bound


def test_keys_survive_a_round_trip_byte_for_byte(pair: KeyPair) -> None:
    """Both keys, and with the public one its id."""
    assert SecretKey.from_bytes(pair.secret.to_bytes()).to_bytes() == pair.secret.to_bytes()
    public = PublicKey.from_bytes(pair.public.to_bytes())
    assert public.to_bytes() == pair.public.to_bytes()
    assert public.key_id == pair.key_id
    assert len(pair.key_id) == 16


def test_secret_is_ternary_and_balanced(pair: KeyPair) -> None:
    """Uniform over -1, 0, 1: each count within six deviations of N/3."""
    degree = pair.secret.profile.poly_degree
    counts = np.bincount(pair.secret.coefficients + 1, minlength=3)
    assert counts.sum() == degree
    assert np.abs(counts - degree / 3).max() <= 6 * (degree * 2 / 9) ** 0.5


def test_public_key_is_an_encryption_of_zero_under_the_secret(pair: KeyPair) -> None:
    """b + a·s is small in every coefficient, modulo every key prime: 21, or six deviations of a Gaussian."""
    used = pair.secret.profile
    for row, prime in enumerate(used.key_primes):
        ring = coefficient_ring(used.poly_degree, prime)
        secret = ring.reduce(pair.secret.coefficients.astype(np.int64))[None, :]
        b, a = (ring.transform(part[row][None, :], to_ntt=False) for part in pair.public.residues)
        factor = ring.plaintext(ring.transform(secret, to_ntt=True)[0])
        noise = ring.centred(ring.sum(b, ring.products(a, factor)))[0]
        assert np.abs(noise).max() <= 21
        # Six deviations of the mean of N squares; a Gaussian of deviation 3.2 has 2.5% less variance.
        departure = abs(float(np.mean(np.square(noise))) / NOISE_VARIANCE - 1)
        assert departure <= 6 * (2 / used.poly_degree) ** 0.5 + 0.025


def test_every_pair_has_its_own_id() -> None:
    """Also two public keys of one secret."""
    first = generate(profile("precise"))
    assert len({first.key_id, generate(profile("precise")).key_id, with_public_key(first.secret).key_id}) == 3


def test_the_same_key_bytes_under_another_profile_have_another_id(robust: KeyPair) -> None:
    """Profiles share a ring; an id names the profile, too, so nothing is opened by the wrong rules."""
    data = robust.public.to_bytes()
    ids = {
        PublicKey.from_bytes(data[:2] + bytes([PROFILES[name].code]) + data[3:]).key_id
        for name in ("robust", "precise", "compact", "compact-10")
    }
    assert len(ids) == 4


def test_nothing_of_a_secret_is_in_a_repr(pair: KeyPair) -> None:
    """The repr of each object that holds a secret names the profile and no coefficient."""
    for item in (pair, *holders(pair)):
        assert pair.secret.profile.name in repr(item)
        assert "coefficients" not in repr(item)
        assert "array" not in repr(item)


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_secret_can_not_be_pickled_or_copied(pair: KeyPair, duplicate: Callable[[object], object]) -> None:
    """TypeError from every object that holds a secret, so none reaches a worker process by accident."""
    for item in holders(pair):
        with pytest.raises(TypeError, match="not pickled"):
            duplicate(item)


@pytest.mark.parametrize(
    "fault",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"",
        lambda data: b"\x01" + data[1:],
        lambda data: data[:1] + b"\x01" + data[2:],
        lambda data: data[:2] + b"\xee" + data[3:],
    ],
    ids=["truncated", "trailing", "empty", "version", "form", "profile"],
)
def test_refusal_of_a_malformed_key_quotes_no_byte_of_it(
    pair: KeyPair, fault: Callable[[bytes], bytes]
) -> None:
    """Each fault is KEY_MALFORMED, for both keys."""
    for cls, data in ((SecretKey, pair.secret.to_bytes()), (PublicKey, pair.public.to_bytes())):
        with pytest.raises(CiphertextError) as caught:
            cls.from_bytes(fault(data))
        assert caught.value.code is Code.KEY_MALFORMED
        assert data[3:11].hex() not in str(caught.value)
        assert repr(data[3:11])[2:-1] not in str(caught.value)


def test_sealed_noise_is_that_of_a_fresh_encryption(robust: KeyPair) -> None:
    """c0 + c1·s - m is SEAL's noise and nothing else: its size, its mean and its variance."""
    used = robust.secret.profile
    ring = ring_of(used)
    sealed = Sealer(robust.secret).seal(np.zeros(64 * 4096, dtype=np.float32))
    aggregate = b"".join(aggregate_vector([sealed_reader(sealed, used)], [1], 64 * 4096, used))
    read = aggregate_reader(aggregate, used)
    assert parse_aggregate(read(0), used).shape == (2, len(ring.primes), ring.poly_degree)
    noise = Opener(robust.secret).open_vector(aggregate, 64 * 4096) * 2**16
    assert np.array_equal(noise, np.rint(noise))
    assert np.abs(noise).max() <= 21
    # Six deviations of the mean, and of the variance, whose own is below v·sqrt(2/n).
    assert abs(noise.mean()) <= 6 * (NOISE_VARIANCE / noise.size) ** 0.5
    assert abs(noise.var() - NOISE_VARIANCE) <= max(6 * NOISE_VARIANCE * (2 / noise.size) ** 0.5, 0.3)


def test_generated_pairs_of_every_profile_differ() -> None:
    """No two secrets of this run are alike."""
    assert len({pair_of(name).secret.to_bytes()[3:67] for name in PROFILES}) == len(PROFILES)
