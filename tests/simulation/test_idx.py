"""The IDX parser: it reads what the format allows, and believes no header."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from idx_files import CODES, idx_bytes, write_idx

from secagg.errors import Code, ConfigError
from secagg.simulation.datasets.idx import MAX_BYTES, read_idx, read_idx_header

arrays = st.sampled_from(sorted(CODES)).flatmap(
    lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5))
)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_one_folder
@given(arrays, st.booleans())
def test_what_was_written_is_read(tmp_path, array, compressed):
    """Every element type and shape, compressed or not, in the machine's own byte order."""
    path = write_idx(tmp_path / ("a.gz" if compressed else "a"), array)
    read = read_idx(path)
    assert read.dtype == array.dtype and read.dtype.isnative
    np.testing.assert_array_equal(read, array)
    assert read_idx_header(path).shape == array.shape


@in_one_folder
@given(arrays, st.data())
def test_every_truncation_and_extension_is_refused(tmp_path, array, data):
    whole = idx_bytes(array)
    cut = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path / "a"
    for content in (whole[:cut], whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            read_idx(path)
        assert caught.value.code is Code.DATA_MALFORMED


@in_one_folder
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_the_typed_error(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    try:
        read_idx(path)
    except ConfigError as error:
        assert error.code is Code.DATA_MALFORMED


def header(*, zeros: int = 0, kind: int = 8, dimensions: int = 1, sizes: tuple[int, ...] = (1,)) -> bytes:
    return struct.pack(f">HBB{len(sizes)}I", zeros, kind, dimensions, *sizes)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "begins with nothing"),
        (header(zeros=1) + b"\0", "magic"),
        (header(kind=7) + b"\0", "magic"),
        (header(dimensions=0, sizes=()), "0 dimensions"),
        (header(dimensions=5, sizes=(1,) * 5) + b"\0", "5 dimensions"),
        (header(dimensions=2), "within its header"),
        (header(sizes=(0,)), "empty"),
        (header(sizes=(MAX_BYTES + 1,)), "exceeds"),
        (header(dimensions=4, sizes=(2**32 - 1,) * 4), "exceeds"),
        (header(sizes=(3,)) + b"\0\0", "2 of the 3 bytes"),
        (header(sizes=(1,)) + b"\0\0", "bytes follow"),
        (gzip.compress(header() + b"\0", mtime=0)[:-3], "gzip"),
        (gzip.compress(header(), mtime=0)[:10] + b"\xff" * 30, "gzip"),
        (b"\x1f\x8b" + b"\0" * 20, "gzip"),
    ],
)
def test_each_fault_is_named(tmp_path, content, says):
    path = tmp_path / "faulty-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        read_idx(path)
    assert caught.value.code is Code.DATA_MALFORMED
    assert "faulty-idx1-ubyte" in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_that_promises_gigabytes_costs_no_memory(tmp_path, pack):
    path = tmp_path / "a"
    path.write_bytes(pack(header(sizes=(MAX_BYTES,)) + b"\0" * 100))
    tracemalloc.start()
    with pytest.raises(ConfigError):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_missing_file_is_reported_as_missing(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_idx(tmp_path / "nothing")
    assert caught.value.code is Code.DATA_MISSING
