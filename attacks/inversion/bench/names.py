"""Names that people gave, as short as a heading or a table takes them."""

from __future__ import annotations

HEADING, COLUMN = 60, 36
"""Characters of a name there, at most."""


def shortened(name: str, most: int) -> str:
    """The name, or both of its ends with an ellipsis between them.

    >>> shortened("hospital.models.radiology:build", 15)
    'hospita…y:build'
    """
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[-end:]}"
