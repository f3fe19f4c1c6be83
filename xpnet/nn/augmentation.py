"""Data augmentation: random changes of the samples in a minibatch, during training only.

The random numbers come from Philox, keyed by the training seed, the augmentation's position in the
list and the step number: sample i of the batch uses the words 4 i to 4 i + 3 on every device.
Integers derived from these words, and so flips and shifts, are identical on all devices; angles and
other floats agree up to rounding.

Each image is a row of features in C order, ``(height, width)`` or ``(height, width, channels)``,
after normalisation. Values are not clipped, since their range is unknown.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.nn.batch import Batch
from xpnet.nn.checks import check_fraction, check_number, check_positive, is_integer
from xpnet.nn.registry import Configurable
from xpnet.random import Purpose

__all__ = [
    "Augmentation",
    "BrightnessContrast",
    "Flip",
    "GaussianNoise",
    "ImageAugmentation",
    "RandomCrop",
    "Rotate",
    "Shift",
    "check_image_shape",
]

_MAX_PIXELS = 65_535


class Augmentation(Configurable):
    """Base class of augmentations, which change the samples of a minibatch during training.

    A subclass implements :meth:`apply`. Its random numbers should depend only on the batch's seed
    and step and on the position in the list of augmentations, so that a run can be repeated on any
    device.

    Attributes
    ----------
    works_in_place : bool
        Whether :meth:`apply` accepts ``out = X``.
    """

    works_in_place: ClassVar[bool] = False

    def check(self, image_shape: tuple[int, ...] | None, n_features: int) -> None:
        """Raise a ValueError if the augmentation cannot handle such samples.

        The default accepts all samples.

        Parameters
        ----------
        image_shape : tuple of int or None
            Shape of the images, ``(height, width)`` or ``(height, width, channels)``; None if the
            samples are not images.
        n_features : int
            Number of features of a sample.
        """
        del image_shape, n_features

    def apply(
        self,
        ops: ReferenceOps,
        X: Array,
        batch: Batch,
        number: int,
        image_shape: tuple[int, ...] | None,
        out: Array,
    ) -> Array:
        """Write the changed samples into ``out``.

        Parameters
        ----------
        ops : ReferenceOps
            Operations of the device.
        X : array (n_samples, n_features)
            Samples. They must not be changed, unless ``X`` is ``out``.
        batch : Batch
            Seed and step of the minibatch.
        number : int
            Position in the list of augmentations, from 0; part of the key for random numbers.
        image_shape : tuple of int or None
            Shape of the images, already accepted by :meth:`check`.
        out : array like X
            Overwritten with the result. It is ``X`` only if :attr:`works_in_place` is true.

        Returns
        -------
        array like X
            ``out``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply(...)")


class _OpAugmentation(Augmentation, abstract=True):
    """Base class of augmentations that call an operation of the device.

    A subclass names the operation and those of its arguments that are passed as constants.
    """

    op: ClassVar[str]
    constants: ClassVar[tuple[str, ...]]
    takes_size: ClassVar[bool] = False  # whether height and width come before the constants

    def apply(
        self,
        ops: ReferenceOps,
        X: Array,
        batch: Batch,
        number: int,
        image_shape: tuple[int, ...] | None,
        out: Array,
    ) -> Array:
        """Run the operation; see :class:`xpnet.kernels.reference.ReferenceOps`."""
        size: tuple[int, ...] = ()
        if self.takes_size:
            if image_shape is None:
                raise TypeError("image_shape must be given for an augmentation of images, got None")
            size = image_shape[:2]
        constants = (getattr(self, name) for name in self.constants)
        draw = (batch.seed, number, batch.step, int(Purpose.AUGMENTATION))
        changed: Array = getattr(ops, self.op)(X, *size, *constants, *draw, out=out)
        return changed


class ImageAugmentation(Augmentation, abstract=True):
    """Base class of augmentations that work only on images."""

    def check(self, image_shape: tuple[int, ...] | None, n_features: int) -> None:
        """Raise a ValueError unless the samples are images of this shape."""
        if image_shape is None:
            raise ValueError(
                f"augmentation {self.name!r} is for images: image_shape must be (height, width) or "
                "(height, width, channels), got None"
            )
        check_image_shape(image_shape, n_features)


def check_image_shape(image_shape: Any, n_features: int) -> tuple[int, ...]:
    """Return the shape as a tuple, or raise a ValueError if it does not fit the features."""
    shape = tuple(image_shape) if isinstance(image_shape, (tuple, list)) else ()
    are_lengths = all(is_integer(n) and n > 0 for n in shape)
    if len(shape) not in (2, 3) or not are_lengths or math.prod(shape) != n_features:
        raise ValueError(
            "image_shape must be (height, width) or (height, width, channels) with "
            f"{n_features} features in all, got {image_shape!r}"
        )
    return shape


class Flip(_OpAugmentation, ImageAugmentation):
    """Flip each image horizontally with a given probability.

    ``out[y, x] = X[y, width - 1 - x]``.

    Parameters
    ----------
    probability : float
        Probability of flipping an image, in [0, 1].

    Raises
    ------
    ValueError
        If ``probability`` is out of range.
    """

    name = op = "flip"
    constants = ("probability",)
    takes_size = True

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = check_fraction("probability", probability, "[0, 1]")


class Shift(_OpAugmentation, ImageAugmentation):
    """Shift each image by a random whole number of pixels along both axes.

    ``out[y, x] = X[y - down, x - right]`` with ``down`` and ``right`` independent and uniform in
    [-pixels, pixels]; pixels from outside the image are ``fill``.

    Parameters
    ----------
    pixels : int
        Largest shift along each axis, in [0, 65535].
    fill : float
        Value of pixels from outside the image, in the units of the network's input.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name = op = "shift"
    constants = ("pixels", "fill")
    takes_size = True

    def __init__(self, pixels: int = 2, fill: float = 0.0) -> None:
        self.pixels = _check_pixels("pixels", pixels)
        self.fill = check_number("fill", fill)


class RandomCrop(_OpAugmentation, ImageAugmentation):
    """Pad each image on all sides and crop it back to its size at a random position.

    With ``padding`` pixels on each side the window has ``2 padding + 1`` equally likely positions
    along each axis. This is a :class:`Shift` by up to ``padding`` pixels and uses the same
    operation: at the same position in the list both draw the same numbers.

    Parameters
    ----------
    padding : int
        Width of the padding on each side, in [0, 65535].
    fill : float
        Value of the padding, in the units of the network's input.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2.
    """

    name, op = "random_crop", "shift"
    constants = ("padding", "fill")
    takes_size = True

    def __init__(self, padding: int = 4, fill: float = 0.0) -> None:
        self.padding = _check_pixels("padding", padding)
        self.fill = check_number("fill", fill)


class Rotate(_OpAugmentation, ImageAugmentation):
    """Rotate each image about its centre by an angle uniform in [-degrees, degrees].

    Values are interpolated bilinearly. Pixels outside the image are ``fill``, so its edge fades
    into ``fill`` over the width of one pixel.

    Parameters
    ----------
    degrees : float
        Largest angle, in [0, 180].
    fill : float
        Value of pixels from outside the image, in the units of the network's input.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name = op = "rotate"
    constants = ("degrees", "fill")
    takes_size = True

    def __init__(self, degrees: float = 10.0, fill: float = 0.0) -> None:
        self.degrees = check_positive("degrees", degrees, zero=True)
        if self.degrees > 180:
            raise ValueError(f"degrees must lie in [0, 180], got {degrees!r}")
        self.fill = check_number("fill", fill)


class BrightnessContrast(_OpAugmentation, ImageAugmentation):
    """Change the brightness and contrast of each image at random.

    ``out = X + b + c (X - m)`` with m the mean of the image's features and with independent b
    uniform in [-brightness, brightness] and c uniform in [-contrast, contrast]. Values are not
    clipped.

    Parameters
    ----------
    brightness : float
        Largest change of the mean, at least 0, in the units of the network's input.
    contrast : float
        Largest relative change of the distances from the mean, at least 0: 0.2 scales them by a
        factor between 0.8 and 1.2.

    Raises
    ------
    ValueError
        If an argument is negative or not finite.
    """

    name = op = "brightness_contrast"
    constants = ("brightness", "contrast")
    works_in_place = True

    def __init__(self, brightness: float = 0.1, contrast: float = 0.1) -> None:
        self.brightness = check_positive("brightness", brightness, zero=True)
        self.contrast = check_positive("contrast", contrast, zero=True)


class GaussianNoise(_OpAugmentation):
    """Add independent normal noise to every feature, ``out = X + std N``; not only for images.

    Element i of the batch, in C order, uses word i.

    Parameters
    ----------
    std : float
        Standard deviation of the noise, at least 0, in the units of the network's input.

    Raises
    ------
    ValueError
        If ``std`` is negative or not finite.

    References
    ----------
    Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural Computation 7,
    1995.
    """

    name = op = "gaussian_noise"
    constants = ("std",)
    works_in_place = True

    def __init__(self, std: float = 0.1) -> None:
        self.std = check_positive("std", std, zero=True)


def _check_pixels(name: str, value: Any) -> int:
    if not is_integer(value) or not 0 <= value <= _MAX_PIXELS:
        raise ValueError(f"{name} must be an integer in [0, {_MAX_PIXELS}], got {value!r}")
    return int(value)
