"""The operations of every device, written once.

This package is imported as ``xpnet.kernels`` and imports nothing from the rest of xpnet.
``reference`` states each operation and its equation as plain array expressions. ``catalogue`` lists
the fused operations, and ``functions.h`` has their formulas. From these two, ``host_source`` and
``cuda_source`` write kernels, which ``host`` and ``cuda`` call. ``philox`` is the counter-based
random number generator, which gives the same bits on every device.
"""
