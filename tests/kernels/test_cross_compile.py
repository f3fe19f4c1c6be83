"""The extension's sources compile for other systems and processors, by zig's C++ compiler.

For Windows that is Clang with MinGW's headers: nothing here tries Visual C++.

Of Python's and NumPy's headers only ``pyconfig.h`` and ``_numpyconfig.h`` differ between platforms.
Here they are this platform's with the differences written out: those between NumPy's wheels, and
for Windows, whose ``pyconfig.h`` Python does not generate, what its headers read.
"""

from __future__ import annotations

import ast
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from xpnet.kernels import host, host_source

INCLUDE = Path(sysconfig.get_path("include"))
KERNELS = ROOT / "kernels"

pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.needs("ziglang"),
    pytest.mark.skipif(
        not (INCLUDE / "Python.h").exists() or sys.maxsize < 2**32 or sys.platform != "linux",
        reason="Python's headers for a 64-bit Linux are needed",
    ),
]

TARGETS = [
    "aarch64-linux-gnu.2.28",
    "x86_64-linux-gnu.2.17",
    "aarch64-linux-musl",
    "x86_64-linux-musl",
    "aarch64-macos",
    "x86_64-macos",
    "aarch64-windows-gnu",
    "x86_64-windows-gnu",
]
Numbers = dict[str, int | None]
MACOS: Numbers = {"NPY_HAVE_ENDIAN_H": None}
SHORT: Numbers = {"NPY_SIZEOF_LONGDOUBLE": 8, "NPY_SIZEOF_COMPLEX_LONGDOUBLE": 16}
WINDOWS: Numbers = {"NPY_SIZEOF_LONG": 4, "NPY_SIZEOF_WCHAR_T": 2, "NPY_SIZEOF_OFF_T": 4}
NUMPY = {
    "aarch64-macos": MACOS | SHORT,
    "x86_64-macos": MACOS,
    "aarch64-windows-gnu": MACOS | SHORT | WINDOWS,
    "x86_64-windows-gnu": MACOS | SHORT | WINDOWS,
}
PYCONFIG_OF_WINDOWS = """\
#define MS_WINDOWS
#define MS_WIN32
#define MS_WIN64
#define NT_THREADS
#define HAVE_PY_SSIZE_T 1
typedef long long Py_ssize_t;
#define PY_SSIZE_T_MAX 9223372036854775807LL
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_TIME_T 8
#define SIZEOF_PID_T 4
#define ALIGNOF_SIZE_T 8
#define ALIGNOF_MAX_ALIGN_T 8
"""


def flags() -> tuple[list[str], dict[str, list[str]]]:
    """Read from setup.py, which cannot be imported, how loops are compiled."""
    found: dict[str, Any] = {}
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if getattr(target, "id", None) in ("GNU_FLAGS", "VARIANTS"):
            exec(compile(ast.Module([node], []), "setup.py", "exec"), found)
    return found["GNU_FLAGS"], found["VARIANTS"]


def zig(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def headers_for(target, folder):
    """Copy Python's and NumPy's headers, changed to what they are on the target."""
    python, numpy = folder / "python", folder / "numpy headers"
    shutil.copytree(INCLUDE, python)
    shutil.copytree(np.get_include(), numpy)
    if "windows" in target:
        (python / "pyconfig.h").write_text(PYCONFIG_OF_WINDOWS)
    config = numpy / "numpy" / "_numpyconfig.h"
    lines = config.read_text(encoding="utf-8").splitlines()
    for name, value in NUMPY.get(target, {}).items():
        (k,) = (k for k, line in enumerate(lines) if line.startswith(f"#define {name} "))
        lines[k] = "" if value is None else f"#define {name} {value}"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [f"-I{python}", f"-I{numpy}", f"-I{KERNELS}"]


@pytest.mark.parametrize("target", TARGETS)
def test_sources_compile(target, tmp_path):
    common, variants = flags()
    include = headers_for(target, tmp_path)
    loops = tmp_path / "host_loops.cpp"
    loops.write_text(host_source.loops(), encoding="utf-8")
    wanted = {"baseline": [], **(variants if target.startswith("x86_64") else {})}
    call = ["c++", "-target", target, *common, *include]
    # Less optimised than setup.py's, which takes half a minute each. Without -O zig adds checks.
    quick, out = ["-O0", "-fno-sanitize=undefined", "-c"], tmp_path / "out.o"
    for variant, more in wanted.items():
        zig(*call, *more, f"-DXPN_VARIANT={variant}", *quick, loops, "-o", out)
        assert f"xpn_loops_{variant}".encode() in out.read_bytes()
    macros = [f"-DXPN_HAVE_{variant}" for variant in wanted if variant != "baseline"]
    macros += ['-DXPN_DIGEST="0"', '-DXPN_COMPILER="zig"']
    zig(*call, *macros, "-O1", "-c", KERNELS / "host_module.cpp", "-o", out)
    assert b"PyInit__host" in out.read_bytes()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is run here")
def test_zigs_build_knows_the_processor(tmp_path):
    """Its __builtin_cpu_supports says no to everything."""
    compiled = host._module().compiled_variants()
    if list(compiled) == ["baseline"]:
        pytest.skip("the kernels were built with XPNET_MULTIVERSION=0")
    program = tmp_path / "ask.cpp"
    program.write_text(
        '#include <stdio.h>\n#include "host_cpu.h"\nint main() {\n'
        "    const Processor found = ask_processor();\n"
        '    printf("%d %d", found.has_avx512, found.has_avx2);\n}\n'
    )
    asks = tmp_path / "ask"
    zig("cc", "-target", "x86_64-linux-gnu.2.17", f"-I{KERNELS}", program, "-o", asks)
    answer = subprocess.run([asks], capture_output=True, text=True, check=True).stdout
    assert answer == f"{compiled['avx512']:d} {compiled['avx2']:d}"
