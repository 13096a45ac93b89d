"""Forms whose parsers do what none may, so that the fuzzer can be seen to notice."""

import os
import signal
from pathlib import Path

from benchmarks.fuzzing.form import Form
from secagg.errors import Code, UpdateError

MESSAGE = bytes(range(64))


def forms(folder: Path) -> list[Form]:
    """One per fault; all read their valid message without complaint."""
    del folder

    def unless_valid(data: bytes, fault: object) -> bytes:
        if data != MESSAGE:
            fault()  # type: ignore[operator]
        return data

    def refuse() -> None:
        raise UpdateError(Code.UPDATE_SHAPE, "no")

    def die_of_long_ones(data: bytes) -> bytes:
        if len(data) > len(MESSAGE):
            os.abort()
        return data

    def form(name: str, fault: object, *, authenticated: bool = False) -> Form:
        return Form(
            name=name,
            messages=(MESSAGE,),
            parse=lambda data: unless_valid(data, fault),
            authenticated=authenticated,
        )

    return [
        form("refuses", refuse, authenticated=True),
        form("accepts", lambda: None),
        form("forged", lambda: None, authenticated=True),
        form("raises", lambda: {}["secret"]),
        form("allocates", lambda: bytearray(2**30)),
        Form(name="dies", messages=(MESSAGE,), parse=die_of_long_ones),
        form("leaves", lambda: os._exit(0)),
        form("hangs", signal.pause),
    ]
