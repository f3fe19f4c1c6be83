"""Test equipment: what ``import cupyx`` finds in a process of a test on the emulated device."""

import cupy  # noqa: F401  (puts the stand-in for both in place)
