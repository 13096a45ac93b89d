"""What must hold of the error tree."""

import pickle

import grpc

from secagg.errors import GRPC_STATUS, Code, SecaggError, UpdateError


def test_every_code_has_exactly_one_grpc_status() -> None:
    """The table is total, and every name in it is a status that gRPC knows."""
    assert set(GRPC_STATUS) == set(Code)
    assert all(hasattr(grpc.StatusCode, status) for status in GRPC_STATUS.values())
    assert all(code.value == code.name for code in Code)


def test_errors_cross_process_borders_whole() -> None:
    """A worker's error arrives in the server with its class, code, message and ids."""
    error = UpdateError(Code.UPDATE_SHAPE, "tensor 'a' has shape (2,)", round=3, client="alice")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is UpdateError
    assert (again.code, again.message, again.ids) == (error.code, error.message, error.ids)
    assert again.ids == {"round": "3", "client": "alice"}


def test_error_reads_as_code_and_message() -> None:
    """What a person sees starts with the stable code."""
    assert str(SecaggError(Code.INTERNAL, "out of luck")) == "INTERNAL: out of luck"
