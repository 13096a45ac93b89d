"""Text from elsewhere as a terminal may be given it."""

from __future__ import annotations


def printable(text: str) -> str:
    """The same with escapes for what moves a cursor, changes colours or turns the writing round.

    >>> printable("a\\x1b[2Jb c")
    'a\\\\x1b[2Jb c'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )
