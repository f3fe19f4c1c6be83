"""Test equipment: a stand-in for CuPy on machines without a GPU.

``pytest --device emulated`` runs the tests with it in place of CuPy. It is not a simulator of a
GPU, and what passes on it is never a result of one. It holds xpnet to what CuPy and CUDA ask:

- Arrays keep their numbers to themselves. What CuPy refuses is refused: implicit conversion
  to NumPy, NumPy arrays and lists as operands, arrays of another device, an ``out`` of the wrong
  shape or type.
- What makes the host wait for the device (``float``, ``bool``, ``item``, boolean masks, printing,
  copies to the host), and a copy from the host, raises inside ``cupyx.allow_synchronize(False)``,
  which the tests put around every training step.
- Memory comes from an allocator that counts and can be told to refuse.
- Streams, events and captures keep order: an access that no event orders behind an earlier one of
  another stream raises, as does what a capture forbids.
- Kernels run the text that CuPy would compile, built for the host, in warps of 32 lanes.

It is stricter than CuPy where CuPy lets pass what xpnet never means: functions of NumPy's on CUDA
arrays, lists and NumPy arrays as indices, operands that overlap a result in part, indices that are
out of range and wrap around, memory asked for during a capture. Comments name the place in the
source of CuPy 14.2 for each rule. It has only what xpnet and its tests use; what it lacks raises
``AttributeError``, ``TypeError`` or ``NotImplementedError``, and so fails a test.
"""
