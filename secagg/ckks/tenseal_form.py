"""Vectors and keys in TenSEAL's form, as NVIDIA FLARE's homomorphic encryption keeps them.

A serialised ``CKKSVector`` is a protobuf message: field 1, packed varints, how many values each ciphertext
holds; field 2, repeated, a SEAL stream (``seal_stream``) of each ciphertext; field 3, a double, the scale.
Bytes from elsewhere are read here by hand and reach no parser of TenSEAL or SEAL: a stream must have
exactly the metadata that this process's SEAL gives a two-part ciphertext of the profile's ring, under any
4.x version, and expand to exactly its length.
"""

from __future__ import annotations

import struct
import zlib
from typing import NoReturn

import numpy as np
import tenseal
import zstandard
from numpy.typing import NDArray

from secagg.ckks.context import SlotRing, coefficient_ring, ring_of
from secagg.ckks.keys import SecretKey
from secagg.ckks.parameters import Profile, Slots
from secagg.ckks.seal_stream import (
    COMPRESSION_NONE,
    COMPRESSION_ZLIB,
    COMPRESSION_ZSTD,
    PARMS_ID_BYTES,
    STREAM_HEADER,
    STREAM_MAGIC,
)
from secagg.ckks.wire import (
    AGGREGATE_HEADER_BYTES,
    aggregate_header,
    check_length,
    malformed,
    pack_aggregate,
    parse_aggregate,
    parse_aggregate_header,
)
from secagg.errors import CiphertextError, Code

SEAL_MAJOR = 4
_SIZES_TAG, _CIPHERTEXT_TAG, _SCALE_TAG = 0x0A, 0x12, 0x19
_MAX_VARINT_BYTES = 4
_COUNT_BYTES = 8
_VERSION_AT = 3
"""Of the major version in a stream's header; the minor one follows."""


def read_tenseal_vector(data: bytes | memoryview, values: int, profile: Profile) -> bytes:
    """The aggregate vector, weight total 1, with the same two polynomials per ciphertext.

    Args:
        data: a serialised ``CKKSVector``, from anywhere: encrypted under either kind of key, or a sum.
        values: how many it must hold, ≥ 1.
        profile: of slots; TenSEAL's context must have its ring and scale.

    Raises:
        CiphertextError: PROFILE_MISMATCH for a profile without slots; CIPHERTEXT_MALFORMED for anything but
            the message that TenSEAL writes for so many values: other fields, lengths, parameters, scale or
            numbers of polynomials, another SEAL than 4.x, a residue that is not below its prime, or a
            polynomial that is zero.
    """
    ring = _ring(profile)
    if values < 1:
        raise ValueError(f"a vector of {values} values")
    pieces = [aggregate_header(profile, 1)]
    for stream in _ciphertexts(memoryview(data), values, profile):
        pieces.append(pack_aggregate(_residues(stream, ring), profile))
    return b"".join(pieces)


def write_tenseal_vector(aggregate: bytes | memoryview, values: int, profile: Profile) -> bytes:
    """A serialised ``CKKSVector`` that this process's TenSEAL loads and decrypts.

    It holds the weighted sum, so what is decrypted is to be divided by the aggregate's weight total. Streams
    are not compressed.

    Args:
        aggregate: an aggregate vector.
        values: how many it holds, ≥ 1.
        profile: of slots.

    Raises:
        CiphertextError: PROFILE_MISMATCH for another profile; CIPHERTEXT_MALFORMED as ``parse_aggregate``.
    """
    ring = _ring(profile)
    check_length(aggregate, profile.aggregate_bytes(values), f"an aggregate vector of {values} values")
    if values < 1:
        raise ValueError(f"a vector of {values} values")
    parse_aggregate_header(aggregate, profile)
    magic, size, major, minor, _, reserved, _ = STREAM_HEADER.unpack(ring.ciphertext_form.header)
    length = STREAM_HEADER.size + _body_bytes(ring)
    header = STREAM_HEADER.pack(magic, size, major, minor, COMPRESSION_NONE, reserved, length)
    sizes = b"".join(_varint(size) for size in _sizes(values, profile))
    pieces = [bytes((_SIZES_TAG,)), _varint(len(sizes)), sizes]
    body, step = memoryview(aggregate)[AGGREGATE_HEADER_BYTES:], profile.aggregate_ciphertext_bytes
    for start in range(0, len(body), step):
        residues = parse_aggregate(body[start : start + step], profile).astype("<u8", copy=False)
        pieces += [bytes((_CIPHERTEXT_TAG,)), _varint(length), header]
        pieces += [ring.ciphertext_form.prefix, residues.tobytes()]
    return b"".join((*pieces, _scale_field(profile)))


def secret_key_of(context_bytes: bytes, profile: Profile) -> SecretKey:
    """The secret key in a serialised TenSEAL context, such as NVFlare's ``server_context`` with its secret.

    Args:
        context_bytes: a file of the user's own. TenSEAL parses it: nothing from a network belongs here.
        profile: of slots; the context must have its parameters.

    Raises:
        CiphertextError: PROFILE_MISMATCH for a profile without slots or a context of other parameters;
            KEY_MALFORMED for bytes that this TenSEAL does not read, or a context without a secret key. The
            message never quotes the key.
    """
    ring = _ring(profile)
    try:
        context = tenseal.context_from(context_bytes)
    except (RuntimeError, ValueError):
        raise CiphertextError(
            Code.KEY_MALFORMED,
            f"no context that TenSEAL {tenseal.__version__} reads; versions do not read each other's",
        ) from None
    parameters = context.seal_context().data
    if parameters.key_parms_id() != ring.seal.key_parms_id():
        raise CiphertextError(
            Code.PROFILE_MISMATCH, f"the TenSEAL context has other parameters than profile {profile.name}"
        )
    if not context.has_secret_key():
        raise CiphertextError(Code.KEY_MALFORMED, "the TenSEAL context has no secret key")
    residues, _ = ring.secret_form.read(context.secret_key().data)
    first = coefficient_ring(profile.poly_degree, profile.key_primes[0])
    coefficients = first.centred(first.transform(residues[:1], to_ntt=False)[0])
    if np.abs(coefficients).max() != 1:
        raise CiphertextError(Code.KEY_MALFORMED, "the TenSEAL context's secret key is not ternary")
    return SecretKey(profile, coefficients.astype(np.int8))


def _ring(profile: Profile) -> SlotRing:
    ring = ring_of(profile)
    if not isinstance(ring, SlotRing):
        raise CiphertextError(
            Code.PROFILE_MISMATCH, f"profile {profile.name} has no TenSEAL form; profile nvflare has"
        )
    return ring


def _scale_field(profile: Profile) -> bytes:
    """What ends a message."""
    assert isinstance(profile.encoding, Slots)
    return struct.pack("<Bd", _SCALE_TAG, profile.encoding.scale)


def _sizes(values: int, profile: Profile) -> list[int]:
    """How many values each ciphertext holds: all but the last are full."""
    held = profile.values_per_ciphertext
    return [min(held, values - start) for start in range(0, values, held)]


def _ciphertexts(data: memoryview, values: int, profile: Profile) -> list[memoryview]:
    """The SEAL streams of a message that has exactly the fields TenSEAL writes, in its order."""
    sizes, at = _field(data, 0, _SIZES_TAG)
    found, place = [], 0
    for _ in range(profile.ciphertext_count(values)):
        size, place = _read_varint(sizes, place)
        found.append(size)
    if place != len(sizes) or found != _sizes(values, profile):
        raise malformed(f"a TenSEAL vector whose ciphertexts do not hold {values} values")
    streams = []
    for _ in found:
        stream, at = _field(data, at, _CIPHERTEXT_TAG)
        streams.append(stream)
    if data[at:] != _scale_field(profile):
        raise malformed(f"a TenSEAL vector that does not end with the scale of profile {profile.name}")
    return streams


def _field(data: memoryview, at: int, tag: int) -> tuple[memoryview, int]:
    """A length-delimited field that must be here, and where it ends."""
    if at >= len(data) or data[at] != tag:
        raise malformed(f"a TenSEAL vector without field {tag >> 3} at byte {at}")
    length, start = _read_varint(data, at + 1)
    if length > len(data) - start:
        raise malformed(f"a TenSEAL vector that ends within field {tag >> 3}")
    return data[start : start + length], start + length


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number below 2^28 in its shortest form, and where it ends."""
    value = 0
    for place, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if place and not byte:
                break
            return value, at + place + 1
    raise malformed(f"a TenSEAL vector without a number at byte {at}")


def _varint(value: int) -> bytes:
    digits = []
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*digits, value))


def _body_bytes(ring: SlotRing) -> int:
    """Of an uncompressed two-part ciphertext: metadata, then the residues."""
    return len(ring.ciphertext_form.prefix) + 8 * int(np.prod(ring.ciphertext_form.shape))


def _residues(stream: memoryview, ring: SlotRing) -> NDArray[np.uint64]:
    """Residues uint64 [2, primes, N] of a SEAL stream."""
    if len(stream) < STREAM_HEADER.size:
        raise malformed(f"a SEAL stream of {len(stream)} bytes is shorter than its header")
    magic, size, major, _, compression, reserved, total = STREAM_HEADER.unpack_from(stream)
    if (magic, size, reserved, total) != (STREAM_MAGIC, STREAM_HEADER.size, 0, len(stream)):
        raise malformed("a SEAL stream whose header does not describe it")
    if major != SEAL_MAJOR:
        raise malformed(f"a stream of SEAL {major}; this build reads {SEAL_MAJOR}.x")
    form = ring.ciphertext_form
    body = memoryview(_inflated(stream[STREAM_HEADER.size :], compression, _body_bytes(ring)))
    _check_metadata(bytes(body[: len(form.prefix)]), form.prefix)
    residues = np.frombuffer(body, dtype="<u8", offset=len(form.prefix)).reshape(form.shape)
    for row, prime in enumerate(ring.primes):
        if int(residues[:, row].max()) >= prime:
            raise malformed(f"a TenSEAL vector with a residue that is not below its prime {prime}")
    if not all(part.any() for part in residues):
        raise malformed("a TenSEAL vector with a polynomial that is zero")
    return residues.astype(np.uint64, copy=False)


def _check_metadata(found: bytes, expected: bytes) -> None:
    """Compare what precedes the residues, but for the minor version in the nested header."""
    if found[:PARMS_ID_BYTES] != expected[:PARMS_ID_BYTES]:
        raise malformed("a TenSEAL vector under other CKKS parameters")
    minor = len(expected) - _COUNT_BYTES - STREAM_HEADER.size + _VERSION_AT + 1
    if found[:minor] != expected[:minor] or found[minor + 1 :] != expected[minor + 1 :]:
        raise malformed(
            "a TenSEAL vector whose ciphertexts have another scale, level or number of polynomials"
        )


def _inflated(data: memoryview, compression: int, expected: int) -> bytes | memoryview:
    """What a stream's body expands to: exactly so many bytes, and never more in memory."""
    if compression == COMPRESSION_NONE:
        return data if len(data) == expected else _wrong_length()
    if compression == COMPRESSION_ZLIB:
        return _zlib_inflated(data, expected)
    if compression != COMPRESSION_ZSTD:
        raise malformed(f"a SEAL stream under the unknown compression {compression}")
    try:
        parameters = zstandard.get_frame_parameters(data)
        # The decompressor would reserve whatever the frame says.
        if parameters.content_size not in (expected, zstandard.CONTENTSIZE_UNKNOWN):
            _wrong_length()
        inflater = zstandard.ZstdDecompressor(max_window_size=1 << expected.bit_length())
        body: bytes = inflater.decompress(data, max_output_size=expected, allow_extra_data=False)
    except zstandard.ZstdError:
        raise malformed("a SEAL stream that is no zstd frame of its length") from None
    return body if len(body) == expected else _wrong_length()


def _zlib_inflated(data: memoryview, expected: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(data, expected + 1)
    except zlib.error:
        raise malformed("a SEAL stream that is no zlib stream") from None
    if len(body) != expected or not inflater.eof or inflater.unused_data:
        _wrong_length()
    return body


def _wrong_length() -> NoReturn:
    raise malformed("a SEAL stream that does not hold a two-part ciphertext")
