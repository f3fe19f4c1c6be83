"""Builds of the host kernels that fail: xpnet is installed without them, and says why."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from tests.packages import copy_of_the_checkout, kernels_in
from xpnet.kernels import host_source

pytestmark = [
    pytest.mark.host,
    pytest.mark.needs("setuptools"),
    pytest.mark.skipif(os.name == "nt", reason="the compilers of these tests are shell scripts"),
]

AGAIN = (
    "with a working C++ compiler, type in a checkout: pip install --force-reinstall --no-deps -e ."
)
FAILS = """\
echo "In file included from x.h:1:" >&2
echo "/a folder/kernels/host_module.cpp:3:10: fatal  error: Python.h: not here" >&2
echo "another error" >&2
exit 1
"""
PASSES = """\
for argument; do
    if [ "$last" = -o ]; then : > "$argument"; fi
    last=$argument
done
"""


@pytest.fixture
def checkout(tmp_path):
    return copy_of_the_checkout(tmp_path)


def build(checkout, compiler, **environment):
    """Build the extension as an editable install does, with a compiler that is a shell script."""
    path = checkout.parent / "compiler"
    path.write_text(f"#!/bin/sh\n{compiler}")
    path.chmod(0o755)
    quoted = shlex.quote(str(path))
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=checkout,
        env={**os.environ, **dict.fromkeys(("CC", "CXX", "LDSHARED"), quoted), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def kernels_of(checkout):
    """Give what show_config says of the host kernels."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import xpnet; xpnet.show_config()"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "XPNET_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return kernels_in(done.stdout).partition("the host kernels are ")[2]


def test_the_compilers_first_error_is_told(checkout):
    assert kernels_of(checkout) == f"not built: {AGAIN}"
    build(checkout, FAILS)
    assert kernels_of(checkout) == (
        "not built, because the compiler failed (host_module.cpp:3:10: fatal error: Python.h: not "
        "here): " + AGAIN
    )


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("exit 3", "compiler exited with status 3"),
        ("echo so long >&2; exit 3", "so long"),
        (
            "echo /usr/bin/ld: cannot find -lstdc++ >&2; "
            "echo collect2: error: ld returned 1 exit status >&2; exit 1",
            "/usr/bin/ld: cannot find -lstdc++",
        ),
        (
            "echo /a/host.cpp:3:10: error: x differs from /usr/include/foo.h:12 >&2; exit 1",
            "host.cpp:3:10: error: x differs from /usr/include/foo.h:12",
        ),
        (
            'if [ "$LC_ALL" = C ]; then echo a.cpp:1: error >&2; else echo Fehler >&2; fi; exit 1',
            "a.cpp:1: error",
        ),
    ],
)
def test_what_compilers_say(checkout, compiler, said):
    build(checkout, compiler)
    assert kernels_of(checkout) == f"not built, because the compiler failed ({said}): {AGAIN}"


def test_a_compiler_that_fails_once(checkout):
    """The system may kill it if several together need too much memory."""
    build(checkout, 'if [ -z "$VSLANG" ]; then kill -9 $$; fi')
    assert kernels_of(checkout) == (
        "not built, because compiler failed, but not when it ran alone: perhaps there was not "
        f"enough memory: {AGAIN}"
    )


def test_no_compiler(checkout):
    build(checkout, "", CC="c++-not-here", CXX="c++-not-here", PATH=str(checkout))
    assert kernels_of(checkout) == f"not built, because no C++ compiler was found: {AGAIN}"


def test_a_build_forgets_the_failure_of_the_last_one(checkout):
    build(checkout, FAILS)
    assert (checkout / "kernels" / host_source.FAILURE).exists()
    build(checkout, PASSES)
    assert not (checkout / "kernels" / host_source.FAILURE).exists()
    assert kernels_of(checkout).startswith("cannot be loaded (")  # an empty file


def test_a_failure_after_a_build(checkout):
    """What an older build left in the checkout is no longer what its sources say."""
    build(checkout, PASSES)
    assert list(checkout.glob("build/lib*/xpnet/kernels/_host.*"))
    build(checkout, FAILS)
    assert not list(checkout.glob("build/lib*/xpnet/kernels/_host.*"))
