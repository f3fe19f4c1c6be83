"""Test equipment: what ``import cupy`` finds in a process of a test on the emulated device."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[4])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from tests.emulation import kernels, module  # noqa: E402

kernels.prepare()  # processes that this one starts share what is compiled
module.install()
