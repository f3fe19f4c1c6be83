"""The operations that every device offers, written once.

This package imports nothing from the rest of xpnet and is reached as ``xpnet.kernels``:
``reference`` states each operation as plain array expressions with its equation; ``catalogue``
lists those that are fused, whose formulas ``functions.h`` holds; from the two of them
``host_source`` and ``cuda_source`` write kernels, which ``host`` and ``cuda`` call. ``philox`` is
the counter-based random number generator that gives the same bits on every device.
"""
