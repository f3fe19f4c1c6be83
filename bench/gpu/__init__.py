"""The GPU gate: one command that checks and measures xpnet on a machine with CUDA.

``python -m bench.gpu``, or ``make gpu``, needs CUDA, numpy, cupy, pytest and pytest-benchmark. It
downloads and installs nothing. It runs the parts of :mod:`bench.gpu.parts` in order, each in its
own process so that a crash does not stop the others. It ends with a summary, and writes a JSON file
and a page of tables into ``bench/results/``. The exit status is 0 if every part passed, 1 if one
failed, 2 without a GPU.

``--rehearse`` runs the same parts at small sizes on the tests' stand-in for CuPy, to check the gate
itself without a GPU. Its output is marked "emulated", and its times mean nothing.
"""
