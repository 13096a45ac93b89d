"""``python -m secagg.simulation.tether PARENT ARGUMENT…``: become a program that ends when PARENT ends.

The launcher ends its children itself; this is for the launcher that is killed before it can. Linux
delivers SIGTERM on the parent's death (prctl(2), PR_SET_PDEATHSIG, kept over execve); on other systems
the program simply runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then become ``python ARGUMENT…``."""
    parent, arguments = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the tie was made
            sys.exit(1)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 -- no shell is wanted


if __name__ == "__main__":
    main()
