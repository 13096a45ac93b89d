"""Messages that are nearly valid; a pure function of a text seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

FRONT_BYTES = 160
"""Where most forms keep their lengths, counts and versions; half of all places are chosen from it."""

EDGES = sorted(
    {0, 1, 2, 3, 255, 1152921504606830593, 1152921504606830592}
    | {2**bits + off for bits in (7, 8, 15, 16, 24, 31, 32, 53, 63) for off in (-1, 0, 1)}
    | {2**64 - 1, 2**60 - 1, 0x7FF0000000000000, 0x7FF8000000000000, 0xFFF0000000000000, 0x8000000000000000}
)
"""Numbers at the ends of ranges: of integer types, of a prime field, of doubles (∞, NaN, -∞, -0)."""


def mutated(message: bytes, others: Sequence[bytes], seed: str) -> bytes:
    """The message after one to four changes: bits, fields, cuts, insertions, pieces of other messages.

    Args:
        message: valid.
        others: messages that pieces are taken from.
        seed: fixes the result, on every machine.
    """
    random = Random(seed)
    data = bytearray(message)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        random.choices(_CHANGES, _SHARES)[0](data, others, random)
    return bytes(data)


def _place(data: bytearray, random: Random) -> int:
    """An index into the data, or 0 if there is none."""
    if not data:
        return 0
    front = random.random() < 0.5
    return random.randrange(min(FRONT_BYTES, len(data)) if front else len(data))


def _flip_bits(data: bytearray, others: Sequence[bytes], random: Random) -> None:
    del others
    for _ in range(random.choice((1, 1, 2, 8))):
        if data:
            data[_place(data, random)] ^= 1 << random.randrange(8)


def _overwrite_field(data: bytearray, others: Sequence[bytes], random: Random) -> None:
    del others
    at, size = _place(data, random), random.choice((1, 2, 4, 8))
    number = random.choice(EDGES) % 2 ** (8 * size)
    new = number.to_bytes(size, random.choice(("little", "little", "big")))
    data[at : at + size] = new[: len(data) - at]


def _fill(data: bytearray, others: Sequence[bytes], random: Random) -> None:
    del others
    at = _place(data, random)
    size = min(len(data) - at, random.choice((8, 64, 1024, len(data))))
    data[at : at + size] = bytes((random.choice((0x00, 0xFF)),)) * size


def _truncate(data: bytearray, others: Sequence[bytes], random: Random) -> None:
    del others
    del data[random.choice((_place(data, random), max(len(data) - random.randint(1, 9), 0))) :]


def _extend(data: bytearray, others: Sequence[bytes], random: Random) -> None:
    kind, size = random.randrange(3), random.choice((1, 1, 2, 8, 100, 5000))
    source = random.choice(others)
    data += (bytes(size), random.randbytes(size), source[:size])[kind]


def _delete(data: bytearray, others: Sequence[bytes], random: Random) -> None:
    del others
    at = _place(data, random)
    del data[at : at + random.choice((1, 2, 4, 8, 64))]


def _insert(data: bytearray, others: Sequence[bytes], random: Random) -> None:
    del others
    at, size = _place(data, random), random.choice((1, 2, 4, 8, 64))
    data[at:at] = random.choice((random.randbytes(size), data[at : at + size]))


def _splice(data: bytearray, others: Sequence[bytes], random: Random) -> None:
    """The front of this message and the end of another, cut at one place or at two."""
    other = random.choice(others)
    at = _place(data, random)
    start = at if random.random() < 0.7 else random.randrange(len(other) + 1)
    data[at:] = other[start:]


def _transplant(data: bytearray, others: Sequence[bytes], random: Random) -> None:
    """A piece of another message over the same place of this one."""
    other, at = random.choice(others), _place(data, random)
    size = random.choice((1, 16, 32, 64, 4096))
    data[at : at + size] = other[at : at + size]


_Change = Callable[[bytearray, Sequence[bytes], Random], None]
_SHARES_OF: dict[_Change, int] = {
    _flip_bits: 30,
    _overwrite_field: 25,
    _fill: 6,
    _truncate: 6,
    _extend: 6,
    _delete: 5,
    _insert: 5,
    _splice: 9,
    _transplant: 8,
}
_CHANGES, _SHARES = list(_SHARES_OF), list(_SHARES_OF.values())
