"""Taking canonical binary forms apart, front to back."""

from __future__ import annotations

import struct


class Reader:
    """Takes fields off the front of some bytes.

    Raises:
        EOFError: from every method, when the bytes end before the field does.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes were not taken yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > self.left:
            raise EOFError(f"its bytes end early: {count} expected, {self.left} left")
        self._at += count
        return self._data[self._at - count : self._at]

    def unpack(self, form: struct.Struct) -> tuple:  # type: ignore[type-arg]
        """The next fields of a struct format."""
        return form.unpack(self.take(form.size))

    def counted(self) -> bytes:
        """The next u8 length and that many bytes."""
        return self.take(self.take(1)[0])


def counted(data: bytes) -> bytes:
    """A u8 length and the bytes, at most 255 of them."""
    return struct.pack("<B", len(data)) + data
