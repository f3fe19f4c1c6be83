"""The GPU gate: one command that checks and measures xpnet on a machine with CUDA.

``python -m bench.gpu``, or ``make gpu``, takes the interpreter it is started with: it needs CUDA,
numpy, cupy, pytest and pytest-benchmark, downloads nothing and installs nothing. It goes through
the parts of :mod:`bench.gpu.parts` in order, each in a process of its own so that one which crashes
does not take the others along, and ends with one summary, a JSON file and a page of tables under
``bench/results/``. The exit status is 0 if every part passed, 1 if one failed, 2 without a GPU.

``--rehearse`` goes through the same parts on the stand-in for CuPy of the tests, at small sizes, to
find out without a GPU whether the gate itself works. Whatever it writes is marked "emulated", and
its times are times of nothing.
"""
