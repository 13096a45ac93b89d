"""What the fuzzer needs to know of one form of message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Valid messages of one form, and the whole path that reads one.

    Args:
        name: unique.
        messages: at least one; each must be read without complaint.
        parse: raises ``SecaggError`` or returns. Of an authenticated form it returns what was accepted, and
            that must be what an honest party wrote: what it returns for one of ``messages``.
        authenticated: False where anything well-formed may be accepted.
    """

    name: str
    messages: tuple[bytes, ...]
    parse: Callable[[bytes], object]
    authenticated: bool = False
