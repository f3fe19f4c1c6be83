"""Builds the host kernels, one optional extension module; everything else is in pyproject.toml.

The loops are generated from the catalogue (kernels/host_source.py) and compiled once for each
instruction set that the compiler knows. The module chooses the best one when it is loaded. Without
a compiler, or if it fails, xpnet is installed without these kernels and uses the reference
operations. The reason is kept in a file, since pip does not show it, for xpnet.show_config().

XPNET_MULTIVERSION=0 compiles the loops only once, for the compiler's default target.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError, ExecError

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # a build front end may not have done it

from xpnet.kernels import host_source  # noqa: E402

# The loops have no branches, but a comparison might trap and a square root might set errno, which
# keeps a compiler from vectorising. Results still follow IEEE 754: never use -ffast-math.
GNU_FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]
GNU_FLAGS += ["-ffp-contract=fast", "-fvisibility=hidden", "-g0"]
VARIANTS = {
    "avx512": [
        *("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"),
        "-mprefer-vector-width=512",
    ],
    "avx2": ["-mavx2", "-mfma"],
}
PROBES = {"avx512": "__AVX512VL__", "avx2": "__AVX2__"}  # what a compiler then defines
NO_COMPILER = "no C++ compiler was found"
ERROR = re.compile(r"\b(error|cannot|undefined)\b", re.IGNORECASE)  # in what a compiler says


class BuildHostKernels(build_ext):
    """Generates the loops and compiles them in several variants."""

    def build_extension(self, ext: Extension) -> None:
        """Compile the loops for each instruction set, then the module that contains them."""
        self.reason = ""
        built = Path(self.get_ext_fullpath(ext.name))
        failure = built.with_name(host_source.FAILURE)
        self._watch_compiler()
        try:
            for old in (built, failure):  # of an earlier build
                old.unlink(missing_ok=True)
            self._build(ext)
        except (BaseError, CCompilerError, OSError) as error:
            with contextlib.suppress(OSError):  # it may be the reason for the error
                failure.parent.mkdir(parents=True, exist_ok=True)
                failure.write_text(f"{self.reason or _one_line(str(error))}\n", encoding="utf-8")
            if isinstance(error, OSError):  # setuptools does not expect it of an optional module
                raise CompileError(str(error)) from error
            raise

    def copy_extensions_to_source(self) -> None:
        """Copy the module into an editable checkout, or the reason for the failure."""
        super().copy_extensions_to_source()
        for ext in self.extensions:
            names = self._get_inplace_equivalent(self.get_finalized_command("build_py"), ext)
            there, here = (Path(name).with_name(host_source.FAILURE) for name in names)
            if here.exists():
                shutil.copyfile(here, there)
            else:
                there.unlink(missing_ok=True)

    def _watch_compiler(self) -> None:
        """Keep the first error of a command that fails."""
        name = "call" if hasattr(self.compiler, "call") else "spawn"  # before setuptools 84
        run = getattr(self.compiler, name)

        def watched(command: list[str], **options: Any) -> None:
            try:
                run(command, **options)
            except (ExecError, OSError, subprocess.CalledProcessError):
                self.reason = self.reason or _explain(list(command))
                raise

        setattr(self.compiler, name, watched)

    def _build(self, ext: Extension) -> None:
        import numpy as np

        folder = Path(self.build_temp) / "xpnet_host"
        folder.mkdir(parents=True, exist_ok=True)
        loops = folder / "host_loops.cpp"
        loops.write_text(host_source.loops(), encoding="utf-8")
        is_gnu = self.compiler.compiler_type != "msvc"
        flags = GNU_FLAGS if is_gnu else ["/O2", "/std:c++17"]
        include = [str(ROOT / "kernels")]
        macros: list[tuple[str, str | None]] = []
        variants = {"baseline": flags}
        if is_gnu and os.environ.get("XPNET_MULTIVERSION", "1") != "0":
            for variant, more in VARIANTS.items():
                if self._accepts([*flags, *more], variant):
                    variants[variant] = [*flags, *more]
                    macros.append((f"XPN_HAVE_{variant}", None))

        def compile_loops(variant: str) -> list[str]:
            objects: list[str] = self.compiler.compile(
                [str(loops)],
                output_dir=str(folder / variant),
                macros=[("XPN_VARIANT", variant)],
                include_dirs=include,
                extra_postargs=variants[variant],
            )
            return objects

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ext.extra_objects = [
                file for files in pool.map(compile_loops, variants) for file in files
            ]
        ext.extra_compile_args = flags
        ext.include_dirs = [*include, np.get_include()]
        ext.define_macros = [
            *macros,
            ("XPN_DIGEST", f'"{host_source.digest()}"'),
            ("XPN_COMPILER", f'"{self._compiler_name()}"'),
        ]
        self.force = True  # link again, because the loops have just been compiled
        super().build_extension(ext)

    def _accepts(self, flags: list[str], variant: str) -> bool:
        """Return whether the compiler can target an instruction set."""
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder) / "probe.cpp"
            # A compiler for several processors at once may accept flags that only one of them has.
            probe.write_text(
                f"#if !defined({PROBES[variant]})\n#error\n#endif\nint main() {{ return 0; }}\n",
                encoding="utf-8",
            )
            command = [*self._command(), *flags, "-c", str(probe), "-o", f"{probe}.o"]
            try:
                done = subprocess.run(command, capture_output=True, check=False)
            except OSError:  # no compiler: compiling the loops will report it
                return False
        return done.returncode == 0

    def _command(self) -> list[str]:
        compiler: Any = self.compiler
        return list(getattr(compiler, "compiler_so_cxx", None) or compiler.compiler_so)

    def _compiler_name(self) -> str:
        if self.compiler.compiler_type == "msvc":
            return "msvc"
        command = [*self._command(), "--version"]  # all of it: CXX may be "ccache g++"
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        first = done.stdout.splitlines()[0] if done.stdout else self._command()[0]
        return first.replace('"', "").replace("\\", "")


def _explain(command: list[str]) -> str:
    """Run a command that failed once more, and return its error in one line."""
    if shutil.which(command[0]) is None:
        return NO_COMPILER
    english = {**os.environ, "LC_ALL": "C", "VSLANG": "1033"}
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env=english
    )
    if done.returncode == 0:
        name = Path(command[0]).name
        return f"{name} failed, but not when it ran alone: perhaps there was not enough memory"
    lines = [line for line in f"{done.stderr}\n{done.stdout}".splitlines() if line.strip()]
    # The linker's own message comes before that of gcc, which calls it.
    said = [line for line in lines if "collect2" not in line and re.search(ERROR, line)]
    first = (said or lines or [f"{Path(command[0]).name} exited with status {done.returncode}"])[0]
    first = re.sub(
        r"^(?:[A-Za-z]:)?[^:(]*[/\\](?=[^/\\:(]+[:(]\s*\d)", "", first
    )  # a temporary folder
    return f"the compiler failed ({_one_line(first)})"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


# The link xpnet/kernels is followed, where git makes links. Windows often gets a text file instead.
packages, package_dir = find_packages(str(ROOT), include=["xpnet*"]), {}
if not (ROOT / "xpnet" / "kernels").is_dir():
    packages.append("xpnet.kernels")
    package_dir["xpnet.kernels"] = "kernels"

setup(
    packages=packages,
    package_dir=package_dir,
    ext_modules=[
        Extension(
            "xpnet.kernels._host",
            sources=[f"kernels/{name}" for name in host_source.SOURCES if name.endswith(".cpp")],
            depends=[f"kernels/{name}" for name in host_source.SOURCES],
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildHostKernels},
)
