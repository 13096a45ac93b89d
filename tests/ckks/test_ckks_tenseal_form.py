"""Vectors are exchanged with TenSEAL, and no byte of a foreign one reaches a parser of TenSEAL or SEAL."""

import struct
import tracemalloc
import zlib
from functools import cache
from math import log, sqrt

import numpy as np
import pytest
import tenseal
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sealed_vectors import sealed

from secagg.ckks import KeyPair, Opener, SecretKey, aggregate_vector, pair_of, profile
from secagg.ckks.bounds import FAILURE_LOG2, ROUNDING_VARIANCE, error_bound
from secagg.ckks.context import ring_of
from secagg.ckks.tenseal_form import read_tenseal_vector, secret_key_of, write_tenseal_vector
from secagg.errors import CiphertextError, Code

NVFLARE = profile("nvflare")
VALUES = 5000
HEADER_BYTES = 16


def context(bits: tuple[int, ...] = (60, 40, 40), *, symmetric: bool = True) -> tenseal.Context:
    """A TenSEAL context as NVFlare makes it."""
    kind = tenseal.ENCRYPTION_TYPE.SYMMETRIC if symmetric else tenseal.ENCRYPTION_TYPE.ASYMMETRIC
    made = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, -1, list(bits), encryption_type=kind)
    made.global_scale = 2**40
    return made


@cache
def shared_context() -> tenseal.Context:
    """One context for the whole run."""
    return context()


@cache
def shared_secret() -> SecretKey:
    """Its secret key."""
    return secret_of(shared_context())


def secret_of(made: tenseal.Context) -> SecretKey:
    """A context's secret key, through the bytes of a file with it."""
    data = made.serialize(save_secret_key=True, save_galois_keys=False, save_relin_keys=False)
    return secret_key_of(data, NVFLARE)


def vector_of(seed: int = 0, values: int = VALUES) -> NDArray[np.float64]:
    """Values within ± 1."""
    return np.random.default_rng(seed).uniform(-1, 1, values)


def encrypted(values: NDArray[np.float64], made: tenseal.Context | None = None) -> tenseal.CKKSVector:
    """A TenSEAL vector; what it says of long ones is of no use here."""
    return tenseal.ckks_vector(made or shared_context(), values.tolist())


@cache
def serialised() -> bytes:
    """A TenSEAL vector of two ciphertexts."""
    data: bytes = encrypted(vector_of()).serialize()
    return data


def opened(data: bytes, secret: SecretKey, values: int = VALUES) -> NDArray[np.float64]:
    """What our own opener makes of a TenSEAL vector."""
    return Opener(secret).open_vector(read_tenseal_vector(data, values, NVFLARE), values)


@pytest.mark.parametrize("values", [1, 4095, 4096, 4097, 12_288])
def test_tenseal_vector_opens_within_the_bound(values: int) -> None:
    """Encrypted by TenSEAL under its secret key, read here, opened by our opener with that key."""
    vector = vector_of(1, values)
    found = opened(encrypted(vector).serialize(), shared_secret(), values)
    assert np.abs(found - vector).max() <= error_bound(NVFLARE, values, np.array([1]), max_abs=1.0)


def test_tenseal_vector_under_a_public_key_opens_too() -> None:
    """Its noise is that of dividing by the special prime: both polynomials are rounded, one of them times s.

    Per coefficient a proxy of (1 + N)/12, and rounding of the message; the rest, divided by 2^40, is nothing.
    """
    made = context(symmetric=False)
    found = opened(encrypted(vector_of(), made).serialize(), secret_of(made))
    tail = sqrt(2 * (log(2 * VALUES) - FAILURE_LOG2 * log(2)))
    variance = ROUNDING_VARIANCE * (NVFLARE.poly_degree + 2)
    bound = sqrt(variance * NVFLARE.poly_degree / 2) * tail / 2.0**40
    assert np.abs(found - vector_of()).max() <= bound


def test_sum_made_by_tenseal_opens_to_the_sum() -> None:
    """What NVFlare's server holds: two vectors added, one of them first sent through bytes."""
    first, second = vector_of(1), vector_of(2)
    loaded = tenseal.ckks_vector_from(shared_context(), encrypted(second).serialize())
    total = (encrypted(first) + loaded).serialize()
    bound = 2 * error_bound(NVFLARE, VALUES, np.array([1, 1]), max_abs=1.0)
    assert np.abs(opened(total, shared_secret()) - first - second).max() <= bound


def aggregate_of(pair: KeyPair, weights: list[int]) -> tuple[bytes, NDArray[np.float64]]:
    """Our own aggregate vector, and the weighted sum it holds."""
    vectors = [vector_of(seed) for seed in range(len(weights))]
    readers = [sealed(pair, vector) for vector in vectors]
    aggregate = b"".join(aggregate_vector(readers, weights, VALUES, NVFLARE))
    return aggregate, sum(w * v for w, v in zip(weights, vectors, strict=True))  # type: ignore[return-value]


def test_our_aggregate_is_decrypted_by_tenseal() -> None:
    """Sealed and summed here under the context's key; TenSEAL loads it, and can add to it."""
    weights = [3, 4]
    aggregate, total = aggregate_of(pair_of(shared_secret()), weights)
    bound = 7 * error_bound(NVFLARE, VALUES, np.array(weights), max_abs=1.0)
    loaded = tenseal.ckks_vector_from(shared_context(), write_tenseal_vector(aggregate, VALUES, NVFLARE))
    assert loaded.size() == VALUES
    assert np.abs(np.array(loaded.decrypt()) - total).max() <= bound
    both = np.array((loaded + loaded).decrypt())
    assert np.abs(both - 2 * total).max() <= 2 * bound


def test_written_vector_is_read_back_to_the_same_polynomials(nvflare: KeyPair) -> None:
    """Byte for byte, but for the weight total, which TenSEAL's form does not hold."""
    aggregate, _ = aggregate_of(nvflare, [1, 2])
    written = write_tenseal_vector(aggregate, VALUES, NVFLARE)
    again = read_tenseal_vector(written, VALUES, NVFLARE)
    assert again[7:] == aggregate[7:]
    assert again[:7] == aggregate[:3] + (1).to_bytes(4, "little")
    # What TenSEAL itself makes of it says the same.
    resaved = tenseal.ckks_vector_from(shared_context(), written).serialize()
    assert read_tenseal_vector(resaved, VALUES, NVFLARE) == again


def varint_at(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def varint(value: int) -> bytes:
    """The shortest form."""
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def parts_of(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Sizes, streams and what follows them."""
    length, at = varint_at(data, 1)
    sizes, at, streams = data[at : at + length], at + length, []
    while data[at] == 0x12:
        length, start = varint_at(data, at + 1)
        streams.append(data[start : start + length])
        at = start + length
    return sizes, streams, data[at:]


def joined(sizes: bytes, streams: list[bytes], tail: bytes) -> bytes:
    """A message of these parts."""
    fields = (b"\x12" + varint(len(stream)) + stream for stream in streams)
    return b"\x0a" + varint(len(sizes)) + sizes + b"".join(fields) + tail


SIZES, STREAMS, TAIL = parts_of(serialised())
BODY = zstandard.ZstdDecompressor().decompress(STREAMS[0][HEADER_BYTES:])
PREFIX = len(ring_of(NVFLARE).ciphertext_form.prefix)


def stream_of(body: bytes, compression: int = 0, *, minor: int = 1, major: int = 4) -> bytes:
    """A SEAL stream of a body that is compressed already."""
    total = HEADER_BYTES + len(body)
    return struct.pack("<HBBBBHQ", 0xA15E, HEADER_BYTES, major, minor, compression, 0, total) + body


def with_stream(stream: bytes) -> bytes:
    """The message with another first stream."""
    return joined(SIZES, [stream, STREAMS[1]], TAIL)


def with_body(at: int, new: bytes) -> bytes:
    """The message whose first ciphertext has other bytes somewhere."""
    return with_stream(stream_of(BODY[:at] + new + BODY[at + len(new) :]))


@pytest.mark.parametrize("minor", [0, 1, 3, 9])
@pytest.mark.parametrize(
    ("compression", "compress"),
    [
        (0, lambda body: body),
        (1, zlib.compress),
        (2, lambda body: zstandard.ZstdCompressor().compress(body)),
        (2, lambda body: zstandard.ZstdCompressor(level=1, write_content_size=False).compress(body)),
    ],
    ids=["none", "zlib", "zstd", "zstd-unsized"],
)
def test_any_seal_of_version_4_is_read_under_any_of_its_compressions(
    minor: int, compression: int, compress: object
) -> None:
    """TenSEAL 0.3.15 writes SEAL 4.1, 0.3.18 writes 4.3, in both the outer and the nested header."""
    nested = PREFIX - 8 - HEADER_BYTES
    body = BODY[: nested + 4] + bytes([minor]) + BODY[nested + 5 :]
    data = with_stream(stream_of(compress(body), compression, minor=minor))  # type: ignore[operator]
    assert read_tenseal_vector(data, VALUES, NVFLARE) == read_tenseal_vector(serialised(), VALUES, NVFLARE)


def prime_at(part: int, row: int) -> tuple[int, bytes]:
    """Where the last residue of a polynomial modulo one prime lies, and that prime in its place."""
    last = ((part * 2 + row) * 8192 + 8191) * 8 + PREFIX
    return last, struct.pack("<Q", NVFLARE.primes[row])


BOMB = zstandard.ZstdCompressor().compress(bytes(1 << 26))

FAULTS = {
    "empty": b"",
    "a size and no ciphertext": b"\x0a\x02\x88\x27\x19" + TAIL[1:],
    "one ciphertext too few": joined(SIZES, STREAMS[:1], TAIL),
    "one ciphertext too many": joined(SIZES, [*STREAMS, STREAMS[0]], TAIL),
    "sizes of other values": joined(varint(4096) + varint(905), STREAMS, TAIL),
    "sizes the other way round": joined(varint(904) + varint(4096), STREAMS, TAIL),
    "no sizes": joined(b"", STREAMS, TAIL),
    "one size too many": joined(SIZES + b"\x01", STREAMS, TAIL),
    "size in more bytes than it takes": joined(varint(4096) + b"\x88\x87\x00", STREAMS, TAIL),
    "size without end": joined(b"\xff" * 12, STREAMS, TAIL),
    "no scale": joined(SIZES, STREAMS, b""),
    "another scale": joined(SIZES, STREAMS, b"\x19" + struct.pack("<d", 2.0**39)),
    "scale NaN": joined(SIZES, STREAMS, b"\x19" + struct.pack("<d", float("nan"))),
    "scale twice": joined(SIZES, STREAMS, TAIL + TAIL),
    "unknown field behind": joined(SIZES, STREAMS, TAIL + b"\x20\x01"),
    "unknown field in front": b"\x20\x01" + serialised(),
    "scale in front": TAIL + joined(SIZES, STREAMS, b""),
    "ciphertext longer than the message": joined(SIZES, [], b"\x12\xff\xff\xff\x7f" + STREAMS[0]),
    "ciphertext of 2^35 bytes": joined(SIZES, [], b"\x12\xff\xff\xff\xff\x7f" + STREAMS[0]),
    "empty stream": with_stream(b""),
    "stream shorter than its header": with_stream(STREAMS[0][:15]),
    "other magic": with_stream(b"\x5f" + STREAMS[0][1:]),
    "other header size": with_stream(STREAMS[0][:2] + b"\x20" + STREAMS[0][3:]),
    "SEAL 3": with_stream(stream_of(BODY, major=3)),
    "SEAL 5": with_stream(stream_of(BODY, major=5)),
    "unknown compression": with_stream(stream_of(BODY, 3)),
    "reserved bits": with_stream(STREAMS[0][:6] + b"\x01" + STREAMS[0][7:]),
    "another total": with_stream(STREAMS[0][:8] + b"\x00" + STREAMS[0][9:]),
    "zstd that is none": with_stream(stream_of(BODY, 2)),
    "zlib that is none": with_stream(stream_of(BODY, 1)),
    "zstd cut off": with_stream(stream_of(STREAMS[0][HEADER_BYTES:-1], 2)),
    "zstd and more": with_stream(stream_of(STREAMS[0][HEADER_BYTES:] + b"\0", 2)),
    "two zstd frames": with_stream(stream_of(STREAMS[0][HEADER_BYTES:] * 2, 2)),
    "zstd of 64 MiB": with_stream(stream_of(BOMB, 2)),
    "zlib of 64 MiB": with_stream(stream_of(zlib.compress(bytes(1 << 26)), 1)),
    "zlib cut off": with_stream(stream_of(zlib.compress(BODY)[:-1], 1)),
    "zlib and more": with_stream(stream_of(zlib.compress(BODY) + b"\0", 1)),
    "body one byte short": with_stream(stream_of(BODY[:-1])),
    "body one byte long": with_stream(stream_of(BODY + b"\0")),
    "zstd of one byte less": with_stream(stream_of(zstandard.ZstdCompressor().compress(BODY[:-1]), 2)),
    "no body": with_stream(stream_of(b"")),
    "other parameters": with_body(0, b"\0"),
    "not in NTT order": with_body(32, b"\0"),
    "three polynomials": with_body(33, b"\x03"),
    "degree 4096": with_body(41, struct.pack("<Q", 4096)),
    "one prime": with_body(49, b"\x01"),
    "ciphertext of another scale": with_body(57, struct.pack("<d", 2.0**41)),
    "a correction factor": with_body(65, b"\x02"),
    "nested magic": with_body(PREFIX - 24, b"\0"),
    "nested SEAL 3": with_body(PREFIX - 21, b"\x03"),
    "nested compression": with_body(PREFIX - 19, b"\x02"),
    "nested length": with_body(PREFIX - 16, b"\0"),
    "count of residues": with_body(PREFIX - 8, b"\x01"),
    "residue is its prime": with_body(*prime_at(0, 0)),
    "residue is its second prime": with_body(*prime_at(1, 1)),
    "residue of all ones": with_body(PREFIX, b"\xff" * 8),
    "first polynomial zero": with_body(PREFIX, bytes((len(BODY) - PREFIX) // 2)),
    "second polynomial zero": with_body(PREFIX + (len(BODY) - PREFIX) // 2, bytes((len(BODY) - PREFIX) // 2)),
}


def test_parts_put_together_again_are_the_message() -> None:
    """Each fault below is the only one."""
    assert joined(SIZES, STREAMS, TAIL) == serialised()
    assert with_stream(STREAMS[0]) == serialised()
    assert read_tenseal_vector(with_body(0, b""), VALUES, NVFLARE)


@pytest.mark.parametrize("fault", FAULTS)
def test_malformed_tenseal_vector_is_refused(fault: str) -> None:
    """Each is CIPHERTEXT_MALFORMED, and takes no more memory than an honest one."""
    tracemalloc.start()
    with pytest.raises(CiphertextError) as caught:
        read_tenseal_vector(FAULTS[fault], VALUES, NVFLARE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code is Code.CIPHERTEXT_MALFORMED
    assert peak <= 8 * NVFLARE.aggregate_bytes(VALUES)


@pytest.mark.parametrize("bits", [(60, 40, 60), (60, 60), (40, 40, 40), (60, 40, 40, 40)])
def test_vector_under_other_parameters_is_refused(bits: tuple[int, ...]) -> None:
    """Also those whose ciphertexts have the same length."""
    data = encrypted(vector_of(), context(bits)).serialize()
    with pytest.raises(CiphertextError) as caught:
        read_tenseal_vector(data, VALUES, NVFLARE)
    assert caught.value.code is Code.CIPHERTEXT_MALFORMED


def test_product_made_by_tenseal_is_refused() -> None:
    """It has another level and scale."""
    data = (encrypted(vector_of()) * 0.5).serialize()
    with pytest.raises(CiphertextError) as caught:
        read_tenseal_vector(data, VALUES, NVFLARE)
    assert caught.value.code is Code.CIPHERTEXT_MALFORMED


@settings(max_examples=200)
@given(data=st.data())
def test_mutated_vectors_are_read_or_refused_but_never_crash(data: st.DataObject) -> None:
    """Flipped bits and cuts anywhere, in a compressed message and in one that is not."""
    honest = data.draw(st.sampled_from([serialised(), with_stream(stream_of(BODY))]))
    mutated = bytearray(honest)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, 150), st.integers(0, len(honest) - 1)))
        mutated[place] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.one_of(st.just(len(mutated)), st.integers(0, len(mutated))))
    try:
        found = opened(bytes(mutated[:cut]), shared_secret())
    except CiphertextError as error:
        assert error.code is Code.CIPHERTEXT_MALFORMED
    else:
        assert found.shape == (VALUES,)


def test_profiles_without_slots_have_no_tenseal_form(robust: KeyPair) -> None:
    """PROFILE_MISMATCH names the one that has."""
    preset, aggregate = robust.secret.profile, bytes(7)
    for attempt in (
        lambda: read_tenseal_vector(serialised(), VALUES, preset),
        lambda: write_tenseal_vector(aggregate, VALUES, preset),
        lambda: secret_key_of(b"", preset),
    ):
        with pytest.raises(CiphertextError, match="nvflare") as caught:
            attempt()
        assert caught.value.code is Code.PROFILE_MISMATCH


def test_aggregate_that_is_malformed_is_not_written(nvflare: KeyPair) -> None:
    """Length, header and residues are checked as by an opener; a vector of no values has no form."""
    aggregate, _ = aggregate_of(nvflare, [1])
    for faulty in (aggregate[:-1], aggregate + b"\0", aggregate[:3] + bytes(4) + aggregate[7:]):
        with pytest.raises(CiphertextError):
            write_tenseal_vector(faulty, VALUES, NVFLARE)
    with pytest.raises(CiphertextError, match="not below its prime"):
        write_tenseal_vector(aggregate[:7] + b"\xff" * 16 + aggregate[23:], VALUES, NVFLARE)
    for attempt in (write_tenseal_vector, read_tenseal_vector):
        with pytest.raises(ValueError, match="0 values"):
            attempt(b"", 0, NVFLARE)


def test_secret_key_of_a_context_is_that_of_the_profile() -> None:
    """Ternary, and it goes through our own key form."""
    again = SecretKey.from_bytes(shared_secret().to_bytes())
    assert again.profile is NVFLARE
    assert set(np.unique(again.coefficients)) == {-1, 0, 1}
    bound = error_bound(NVFLARE, VALUES, np.array([1]), max_abs=1.0)
    assert np.abs(opened(serialised(), again) - vector_of()).max() <= bound


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.KEY_MALFORMED),
        (b"abc", Code.KEY_MALFORMED),
        (context().serialize(save_secret_key=False), Code.KEY_MALFORMED),
        (context((60, 60)).serialize(save_secret_key=True), Code.PROFILE_MISMATCH),
        (context((60, 40, 60)).serialize(save_secret_key=True), Code.PROFILE_MISMATCH),
    ],
    ids=["empty", "junk", "no secret", "60-60", "60-40-60"],
)
def test_context_without_the_profiles_secret_is_refused(data: bytes, code: Code) -> None:
    """With what is wrong, and no word about what is in it."""
    with pytest.raises(CiphertextError) as caught:
        secret_key_of(data, NVFLARE)
    assert caught.value.code is code
