"""What a client update is: named float32 tensors, their manifest, and one flat vector."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, UpdateError

MANIFEST_VERSION = 1
MAX_TENSORS = 65_535
MAX_NAME_BYTES = 512
MAX_DIMENSIONS = 8
MAX_VALUES = 2**33

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name and shape of one float32 tensor."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many values the tensor holds."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Names and shapes of an update's tensors, in the order in which they are flattened.

    Raises:
        UpdateError: MANIFEST_MALFORMED for no tensor, a repeated or overlong name, an empty or
            oversized shape.
    """

    tensors: tuple[TensorSpec, ...]
    _offsets: dict[str, slice] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        offsets: dict[str, slice] = {}
        start = 0
        if not 1 <= len(self.tensors) <= MAX_TENSORS:
            raise _malformed(f"a manifest has 1 to {MAX_TENSORS} tensors, not {len(self.tensors)}")
        for spec in self.tensors:
            if not 1 <= len(spec.name.encode()) <= MAX_NAME_BYTES:
                raise _malformed(f"tensor name {spec.name[:40]!r} must have 1 to {MAX_NAME_BYTES} bytes")
            if spec.name in offsets:
                raise _malformed(f"tensor name {spec.name!r} appears twice")
            if len(spec.shape) > MAX_DIMENSIONS or any(not 1 <= n < 2**32 for n in spec.shape):
                raise _malformed(
                    f"tensor {spec.name!r} has shape {spec.shape}; each of ≤ 8 sizes must be ≥ 1"
                )
            offsets[spec.name] = slice(start, start + spec.size)
            start += spec.size
        if start > MAX_VALUES:
            raise _malformed(f"{start} values are more than the {MAX_VALUES} an update may hold")
        object.__setattr__(self, "_offsets", offsets)

    @classmethod
    def of(cls, tensors: Tensors) -> Manifest:
        """The manifest of these tensors, in their order; dtype is not looked at."""
        return cls(tensors=tuple(TensorSpec(name=name, shape=tuple(t.shape)) for name, t in tensors.items()))

    @cached_property
    def size(self) -> int:
        """How many values the flat vector holds."""
        return sum(spec.size for spec in self.tensors)

    def slice_of(self, name: str) -> slice:
        """Where a tensor lies in the flat vector.

        Raises:
            UpdateError: MANIFEST_MISMATCH if there is no such tensor.
        """
        try:
            return self._offsets[name]
        except KeyError:
            raise UpdateError(
                Code.MANIFEST_MISMATCH,
                f"no tensor {name!r} in the manifest; it has {', '.join(self._offsets)}",
            ) from None

    def to_bytes(self) -> bytes:
        """Canonical form, little-endian: version byte, u16 count, then per tensor name and shape.

        A name is a u16 length and UTF-8 bytes; a shape is a u8 number of dimensions and a u32 each.
        """
        parts = [struct.pack("<BH", MANIFEST_VERSION, len(self.tensors))]
        for spec in self.tensors:
            name = spec.name.encode()
            parts.append(struct.pack(f"<H{len(name)}sB", len(name), name, len(spec.shape)))
            parts.append(struct.pack(f"<{len(spec.shape)}I", *spec.shape))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Inverse of ``to_bytes``; only the canonical form is accepted.

        Raises:
            UpdateError: MANIFEST_MALFORMED.
        """
        try:
            version, count = struct.unpack_from("<BH", data)
            if version != MANIFEST_VERSION:
                raise _malformed(
                    f"manifest version {version} is unknown; this build reads {MANIFEST_VERSION}"
                )
            at = 3
            specs = []
            for _ in range(count):
                (length,) = struct.unpack_from("<H", data, at)
                name, dimensions = struct.unpack_from(f"<{length}sB", data, at + 2)
                at += 3 + length
                shape = struct.unpack_from(f"<{dimensions}I", data, at)
                at += 4 * dimensions
                specs.append(TensorSpec(name=name.decode(), shape=shape))
        except (struct.error, UnicodeDecodeError) as error:
            raise _malformed(f"manifest bytes end early or are not text: {error}") from None
        if at != len(data):
            raise _malformed(f"{len(data) - at} bytes follow the manifest's end")
        return cls(tensors=tuple(specs))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical form, 32 bytes."""
        return hashlib.sha256(self.to_bytes()).digest()

    def flatten(self, tensors: Tensors) -> NDArray[np.float32]:
        """One float32 vector [size] from the tensors, after checking them against this manifest.

        Raises:
            UpdateError: MANIFEST_MISMATCH (missing or extra tensor), UPDATE_SHAPE, UPDATE_DTYPE,
                UPDATE_NOT_FINITE; each names the tensor and what was expected.
        """
        missing = [spec.name for spec in self.tensors if spec.name not in tensors]
        extra = [name for name in tensors if name not in self._offsets]
        if missing or extra:
            raise UpdateError(
                Code.MANIFEST_MISMATCH,
                f"tensors differ from the plan's: missing {missing}, unexpected {extra}",
            )
        flat = np.empty(self.size, dtype=np.float32)
        for spec in self.tensors:
            tensor = tensors[spec.name]
            if tensor.dtype != np.float32:
                raise UpdateError(
                    Code.UPDATE_DTYPE, f"tensor {spec.name!r} is {tensor.dtype}; the plan asks for float32"
                )
            if tuple(tensor.shape) != spec.shape:
                raise UpdateError(
                    Code.UPDATE_SHAPE,
                    f"tensor {spec.name!r} has shape {tuple(tensor.shape)}; the plan asks for {spec.shape}",
                )
            if not np.isfinite(tensor).all():
                bad = int(tensor.size - np.count_nonzero(np.isfinite(tensor)))
                raise UpdateError(
                    Code.UPDATE_NOT_FINITE, f"tensor {spec.name!r} holds {bad} NaN or infinite values"
                )
            flat[self._offsets[spec.name]] = tensor.reshape(-1)
        return flat

    def unflatten(self, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Named tensors (copies) from a float32 vector [size].

        Raises:
            UpdateError: UPDATE_SHAPE if the vector's length differs from the manifest's.
        """
        if flat.shape != (self.size,):
            raise UpdateError(
                Code.UPDATE_SHAPE,
                f"the flat vector has shape {flat.shape}; the manifest asks for ({self.size},)",
            )
        return {
            spec.name: flat[self._offsets[spec.name]].reshape(spec.shape).astype(np.float32)
            for spec in self.tensors
        }


def _malformed(message: str) -> UpdateError:
    return UpdateError(Code.MANIFEST_MALFORMED, message)
