"""How properties are tested everywhere: no example has a time limit, and CI repeats the same examples."""

import os

from hypothesis import settings

# A timed assertion would fail on a busy machine and say nothing about the code.
settings.register_profile("explore", deadline=None)
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.load_profile("repeat" if os.environ.get("CI") else "explore")
