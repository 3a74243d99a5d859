"""Images as one array, read block by block: shapes, checks, preprocessing. Works on memory maps larger than RAM."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medstrata.errors import FitError
from medstrata.run import Progress

Images = NDArray[Any]  # (N, C, H, W) or (N, C, D, H, W), integer or float
KINDS = ("centred", "scaled", "published", "unit")  # of preprocessing
MOST_CHANNELS = 4  # of pictures; more of them are rather the slices of a volume
BLOCK_BYTES = 64 << 20  # float32 bytes of one block of images in a pass over the whole set


def as_images(X: Any) -> Images:
    """View ``X`` as ``(N, C, H, W)`` or ``(N, C, D, H, W)`` without copying.

    ``X`` is an array or memory map of shape ``(N, H, W)``, ``(N, C, H, W)`` or ``(N, C, D, H, W)``, of any integer,
    boolean or float type.

    Raises
    ------
    FitError : another shape or type, a mask, or no image at all
    """
    if np.ma.is_masked(X):
        raise FitError("Images in a masked array would lose their mask. Fill it first, such as by X.filled(0).")
    try:
        array = X if isinstance(X, np.ndarray) else np.asarray(X)
    except ValueError as error:  # a list of arrays that differ in size
        raise FitError("Images of several sizes cannot be clustered. Bring them to one size first.") from error
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim not in (4, 5) or 0 in array.shape:
        raise FitError(
            f"Images of shape {np.shape(X)} cannot be clustered. "
            "Give (N, H, W), (N, C, H, W) or (N, C, D, H, W) with at least one image."
        )
    if array.ndim == 4 and array.shape[1] > MOST_CHANNELS < min(array.shape[2:]):
        warnings.warn(
            f"Images of shape {array.shape} are taken as 2-D images of {array.shape[1]} channels. Volumes are "
            "(N, 1, D, H, W): X[:, None].",
            stacklevel=3,
        )
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.dtype.kind not in "uif":
        raise FitError(f"Images of type {array.dtype} cannot be clustered. Convert them to integers or floats first.")
    return array


def blocks(images: Images, size: int | None = None) -> Iterator[slice]:
    """Yield slices over the first axis, by default of about ``BLOCK_BYTES`` in float32."""
    step = size or max(1, BLOCK_BYTES // (4 * int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        yield slice(start, min(start + step, len(images)))


def in_blocks(images: Images, size: int, embed: Callable[[Images], torch.Tensor], progress: Progress) -> torch.Tensor:
    """Return what ``embed``, (n, C, ...) -> (n, Z), makes of all images: (N, Z), ``size`` images at once."""
    whole = torch.empty(0)
    for part in blocks(images, size):
        some = embed(images[part])
        if not part.start:
            # One allocation for all: small tensors kept in between would pin the large ones freed around them.
            whole = some.new_empty(len(images), *some.shape[1:])
        whole[part] = some
        progress("embedding", part.stop, len(images))
    return whole


def check_finite(block: NDArray[Any], first: int = 0) -> None:
    """Raise FitError where an image of ``block`` (n, C, ...) is not finite; ``first``: the number of its first."""
    if not np.isfinite(block).all():
        bad = first + int(np.flatnonzero(~np.isfinite(block).all(axis=tuple(range(1, block.ndim))))[0])
        raise FitError(f"Image {bad} holds NaN or infinite values. Leave it out or repair it, then try again.")


NARROW = 0.02  # share of the training images' range below which new images look as if on another scale


def other_scale(images: Images, known: Preprocessing) -> str:
    """Say in words that the values of ``images`` do not lie where those of the training images lay, or "".

    Raises
    ------
    FitError : values that are not finite
    """
    low, high = np.inf, -np.inf
    for part in blocks(images):
        check_finite(images[part], part.start)
        low, high = min(low, float(images[part].min())), max(high, float(images[part].max()))
    if low <= known.high and high >= known.low and high - low >= NARROW * (known.high - known.low):
        return ""
    return (
        f"These images have values from {low:g} to {high:g}, the training images had {known.low:g} to {known.high:g}. "
        "Bring them to the same scale: the model cannot tell one from the other."
    )


@dataclass(frozen=True)
class Preprocessing:
    """How stored values become what the network sees: ``(x - offset) / scale``, background replaced before.

    ``offset`` (C, ...) is an image or a single value; ``background`` (stored units, or None) is what voxels equal to
    zero are set to first; ``low`` and ``high`` are the least and the largest value of the training images.
    """

    offset: torch.Tensor
    scale: float
    background: float | None = None
    low: float = 0.0
    high: float = 0.0

    def __call__(self, block: Images, device: torch.device) -> torch.Tensor:
        """Return ``(n, C, ...)`` of torch's default type, float32, on ``device``."""
        x = torch.from_numpy(np.array(block, dtype=np.float32)).to(device, torch.get_default_dtype())
        if self.background is not None:
            x = torch.where(x == 0, self.background, x)
        return x.sub(self.offset.to(device)).div_(self.scale)

    def inverse(self, x: torch.Tensor) -> torch.Tensor:
        """Return images (n, C, ...) as the network sees them in stored units. A replaced background stays replaced."""
        return x * self.scale + self.offset.to(x.device)


def measure(images: Images, kind: str) -> Preprocessing:
    """Measure the preprocessing on the whole set, in one pass.

    ``kind`` is ``"centred"`` (minus the set's mean image, over the standard deviation of what is left), ``"scaled"``
    (minus the set's mean value, over its standard deviation), ``"published"``
    (Ryan et al. 2020: over the set's maximum, voxels equal to zero set to the mean of the others) or ``"unit"`` (minus
    the set's minimum, over its range: values from 0 to 1).

    Raises
    ------
    FitError : values that are not finite, or all images equal
    """
    total = np.zeros(images.shape[1:])
    squares = above = 0.0
    low, high, nonzero, distinct = np.inf, -np.inf, 0, len(images) == 1
    for part in blocks(images):
        block = np.asarray(images[part], dtype=np.float64)
        check_finite(block, part.start)
        total += block.sum(0)
        squares += np.square(block).sum()
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        above += block[block != 0].sum()
        nonzero += int(np.count_nonzero(block))
        distinct = distinct or bool((images[part] != images[:1]).any())
    if not distinct:
        raise FitError(f"All {len(images)} images are equal: there is nothing to cluster. Check the input.")
    if kind == "unit":
        return Preprocessing(torch.full((1,), low), (high - low) or 1.0, None, low, high)
    if kind == "published":
        return Preprocessing(torch.zeros(1), high or 1.0, above / max(nonzero, 1), low, high)
    mean = total / len(images)
    if kind == "scaled":
        mean = np.full((1,), mean.mean())
    deviation = float(np.sqrt(max(squares / images.size - np.square(mean).mean(), 0.0)))
    return Preprocessing(torch.from_numpy(mean.astype(np.float32)), deviation or 1.0, None, low, high)
