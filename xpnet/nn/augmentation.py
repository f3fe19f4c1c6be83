"""Augmentation: samples of a minibatch are changed at random, in training only.

What a sample is changed by is drawn from Philox, keyed by the seed of the training, the
augmentation's place in the list and the number of the step: sample i of the batch has the words 4 i
to 4 i + 3, the same on every device. Whole numbers that are made of them, and hence flips and
shifts, are the same everywhere; angles and other numbers are equal but for rounding.

Images lie in the network's input as rows of features, in C order, ``(height, width)`` or ``(height,
width, channels)``, after whatever normalisation there is. Nothing is clipped, for no range is
known.
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

_MOST_PIXELS = 65_535


class Augmentation(Configurable):
    """Changes the samples of a minibatch at random, before the network sees them, in training only.

    A subclass gives :meth:`apply`. What it draws should depend on nothing but the batch's seed and
    step and the place in the list of augmentations, so that a run can be repeated on any device.

    Attributes
    ----------
    works_in_place : bool
        Whether :meth:`apply` may be given ``out = X``.
    """

    works_in_place: ClassVar[bool] = False

    def check(self, image_shape: tuple[int, ...] | None, n_features: int) -> None:
        """Raise a ValueError that names what is needed, where samples are not as they must be.

        The default takes any.

        Parameters
        ----------
        image_shape : tuple of int or None
            ``(height, width)`` or ``(height, width, channels)`` where samples are images.
        n_features : int
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
        """Write changed samples.

        Parameters
        ----------
        ops : ReferenceOps
        X : array (n_samples, n_features)
            Not to be changed, unless it is ``out``.
        batch : Batch
        number : int
            The augmentation's place in the list, from 0: what it draws for.
        image_shape : tuple of int or None
            As :meth:`check` has let pass.
        out : array like X
            Overwritten. Another array than ``X`` but where :attr:`works_in_place` is true.

        Returns
        -------
        array like X
            ``out``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply(...)")


class _OpAugmentation(Augmentation, abstract=True):
    """An augmentation that is an operation of the device.

    A subclass names the operation, and which of its own arguments are the operation's constants.
    """

    op: ClassVar[str]
    constants: ClassVar[tuple[str, ...]]
    takes_size: ClassVar[bool] = False  # height and width, before the constants

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
                raise TypeError("an augmentation of images needs their shape, got None")
            size = image_shape[:2]
        constants = (getattr(self, name) for name in self.constants)
        draw = (batch.seed, number, batch.step, int(Purpose.AUGMENTATION))
        changed: Array = getattr(ops, self.op)(X, *size, *constants, *draw, out=out)
        return changed


class ImageAugmentation(Augmentation, abstract=True):
    """An augmentation that needs to know the samples as images."""

    def check(self, image_shape: tuple[int, ...] | None, n_features: int) -> None:
        """Raise a ValueError where samples are no images, or not of that shape."""
        if image_shape is None:
            raise ValueError(
                f"augmentation {self.name!r} is for images: image_shape must be (height, width) or "
                "(height, width, channels), got None"
            )
        check_image_shape(image_shape, n_features)


def check_image_shape(image_shape: Any, n_features: int) -> tuple[int, ...]:
    """Return the shape as a tuple, or raise a ValueError that says what it must be."""
    shape = tuple(image_shape) if isinstance(image_shape, (tuple, list)) else ()
    are_lengths = all(is_integer(n) and n > 0 for n in shape)
    if len(shape) not in (2, 3) or not are_lengths or math.prod(shape) != n_features:
        raise ValueError(
            "image_shape must be (height, width) or (height, width, channels) with "
            f"{n_features} features in all, got {image_shape!r}"
        )
    return shape


class Flip(_OpAugmentation, ImageAugmentation):
    """Each image is turned left to right with a probability.

    ``out[y, x] = X[y, width - 1 - x]``.

    Parameters
    ----------
    probability : float
        That an image is turned, in [0, 1].

    Raises
    ------
    ValueError
        If it is out of range.
    """

    name = op = "flip"
    constants = ("probability",)
    takes_size = True

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = check_fraction("probability", probability, "[0, 1]")


class Shift(_OpAugmentation, ImageAugmentation):
    """Each image is moved by whole pixels along both axes.

    ``out[y, x] = X[y - down, x - right]`` with ``down`` and ``right`` independent and uniform in
    [-pixels, pixels]; what comes in from outside is ``fill``.

    Parameters
    ----------
    pixels : int
        How far at most, in [0, 65535].
    fill : float
        What comes in from outside, in the units of the network's input.

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
    """Each image gets a margin on all sides, and a window of its own size is cut out anywhere.

    With a margin of ``padding`` pixels there are ``2 padding + 1`` places of the window along each
    axis, all as likely. That is a :class:`Shift` by up to ``padding`` pixels, and the same
    operation: at the same place in a list both draw the same.

    Parameters
    ----------
    padding : int
        Width of the margin, in [0, 65535].
    fill : float
        Value of the margin, in the units of the network's input.

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
    """Each image is turned about its centre, by an angle uniform in [-degrees, degrees].

    Between pixels it is interpolated linearly along both axes; every pixel outside of the image is
    ``fill``, so that its edge fades into that over the width of a pixel.

    Parameters
    ----------
    degrees : float
        Largest angle, in [0, 180].
    fill : float
        What comes in from outside, in the units of the network's input.

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
    """Each image becomes brighter or darker, and of more or less contrast.

    ``out = X + b + c (X - m)`` with m the mean of the image's own features, b uniform in
    [-brightness, brightness] and c in [-contrast, contrast], independent. Nothing is clipped.

    Parameters
    ----------
    brightness : float
        Largest change of the mean, at least 0, in the units of the network's input.
    contrast : float
        Largest change of distances from the mean, as a part of them, at least 0: 0.2 brings them to
        between 0.8 and 1.2 of what they were.

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
    """Every feature gets normal noise of its own, ``out = X + std N``; also for tables.

    Element i of the batch, in C order, is drawn from word i.

    Parameters
    ----------
    std : float
        Standard deviation of the noise, at least 0, in the units of the network's input.

    Raises
    ------
    ValueError
        If it is negative or not finite.

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
    if not is_integer(value) or not 0 <= value <= _MOST_PIXELS:
        raise ValueError(f"{name} must be an integer in [0, {_MOST_PIXELS}], got {value!r}")
    return int(value)
