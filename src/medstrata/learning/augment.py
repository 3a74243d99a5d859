"""Random changes of images that leave alone what they show: geometry, blur, intensity, noise.

A batch is changed as a whole, each image by its own random numbers, 2-D and 3-D by one code path. Images are those
that a network sees: over the set their values have the mean 0 and the deviation 1 ("deviations of the set" below; for
preprocessings "unit" and "published" read: ranges). There is no gamma: a power needs values above zero.

Geometry is one map from each pixel of the result to a place in the image, made at 5 points per axis and interpolated
linearly in between, which is exact for its affine part. Outside of an image its border goes on: where pictures fill
their frame (X-ray, skin, ultrasound), this comes much closer to what lies there than zeros, the cohort's mean, which
also leave a seam; on a plain dark ground both are near the truth.

Shapes: n images, C channels, d = 2 or 3 spatial axes. Vectors and matrices of axes begin with the last spatial axis
(x, y, z), as ``grid_sample`` wants them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medstrata.errors import FitError
from medstrata.learning.chance import batch_size, integers, normal, uniform

CONTROL_POINTS = 5  # of the displacement field, per axis
NOISE_SHARE = 8  # as many pixels share one random number of the noise, each at another place of another image


@dataclass(frozen=True)
class Augmentation:
    """How strongly images are changed. As made by default it changes nothing; numbers are largest amounts.

    Parameters
    ----------
    rotation : degrees, uniform in +-rotation; in 3-D about a random axis
    scale : the image grows by e^u, u uniform in +-scale
    shear : tangent of the angle, uniform in +-shear, for each pair of axes
    shift : share of the side, uniform in +-shift along each axis
    elastic : share of the side, uniform in +-elastic along each axis at each of 5 x 5 (x 5) points
    crop : smallest share of the area (3-D: volume) that fills the result, uniform in crop..1, at a random place, the
        proportions kept; 1 = all
    flips : spatial axes, counted from the end (-1: columns), along which every second image is mirrored
    quarter_turns : turn by 0, 90, 180 or 270 degrees in the plane of rows and columns (by 0 or 180 where it is not
        square)
    blur : pixels, standard deviation of a Gaussian, uniform in 0..blur for every second image
    contrast : values are spread by e^u about the image's mean, u uniform in +-contrast
    brightness : deviations of the set, uniform in +-brightness, added to all values
    colour : deviations of the set, uniform in +-colour, added to each channel of images of several channels. It is a
        colour cast: a gain of one channel moves mostly its mean, which has been subtracted
    noise : deviations of the set, standard deviation of normal noise added to each value
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    crop: float = 1.0
    flips: tuple[int, ...] = ()
    quarter_turns: bool = False
    blur: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    colour: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise FitError(f"crop is {self.crop}, but must be a share above 0 and at most 1.")
        moves = (self.rotation, self.scale, self.shear, self.shift, self.elastic)
        values = (self.blur, self.contrast, self.brightness, self.colour, self.noise)
        if not all(0 <= amount < math.inf for amount in (*moves, *values)):
            raise FitError("The amounts of an augmentation must be 0 or positive numbers.")
        if not set(self.flips) <= {-1, -2, -3}:
            raise FitError(f"flips is {self.flips}, but may hold the spatial axes -1, -2 and -3 only.")

    @property
    def moves(self) -> bool:
        """Whether pixels change their places."""
        amounts = (self.rotation, self.scale, self.shear, self.shift, self.elastic, 1 - self.crop)
        return any(amounts) or bool(self.flips) or self.quarter_turns


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(),
    # Archives of several kinds, and files that do not say their kind: what suits all of them.
    "mixed": Augmentation(rotation=10, scale=0.1, shift=0.06, contrast=0.1, noise=0.1),
    # Written signs: slant and stroke vary from hand to hand, but a mirrored or upturned digit is another one.
    "digits": Augmentation(rotation=15, scale=0.2, shear=0.2, shift=0.12, elastic=0.03, contrast=0.2, noise=0.1),
    # Photographs of things: seen from either side, near and far, in any light.
    "objects": Augmentation(
        rotation=10, scale=0.1, crop=0.5, flips=(-1,), contrast=0.3, brightness=0.2, colour=0.1, noise=0.05
    ),
    # Positioning and exposure vary; a mirrored chest has its heart on the wrong side.
    "radiograph": Augmentation(rotation=10, scale=0.1, shift=0.06, contrast=0.2, brightness=0.1, noise=0.1),
    # Hounsfield units mean a density: only dose (noise) and a little calibration vary.
    "ct": Augmentation(rotation=10, scale=0.1, shift=0.06, contrast=0.05, noise=0.1),
    # Values have no unit that holds from one scan to the next, in PET and scintigraphy too.
    "mr": Augmentation(rotation=10, scale=0.1, shift=0.06, contrast=0.2, brightness=0.1, noise=0.1),
    # The gain is set by hand and the focus varies; the beam comes from above, so depth keeps its place.
    "ultrasound": Augmentation(rotation=10, scale=0.1, shift=0.06, blur=1.0, contrast=0.2, brightness=0.2, noise=0.1),
    # A slide has no upper side; stain and focus vary.
    "microscopy": Augmentation(
        rotation=15,
        scale=0.1,
        shift=0.06,
        flips=(-1, -2),
        quarter_turns=True,
        blur=1.0,
        contrast=0.2,
        colour=0.2,
        noise=0.05,
    ),
    # A lesion has no upper side; the lamp varies, but the colour of the lesion counts.
    "skin": Augmentation(
        rotation=15,
        scale=0.2,
        shift=0.06,
        flips=(-1, -2),
        quarter_turns=True,
        contrast=0.2,
        brightness=0.1,
        colour=0.1,
        noise=0.05,
    ),
}


def augment(x: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Return a new tensor with each image of ``x`` changed at random as ``how`` says, first moved, noise last.

    Parameters
    ----------
    x : float32 ``(n, C, H, W)`` or ``(n, C, D, H, W)``, on any device, mean about 0 and deviation about 1
    generator : a CPU generator, the only source of random numbers: from the same state the same result. Where x is a
        part of a batch, a ``BatchGenerator``

    Raises
    ------
    FitError : ``how.flips`` names an axis that the images do not have
    """
    if any(-axis > x.ndim - 2 for axis in how.flips):
        raise FitError(f"flips is {how.flips}, but the images have only {x.ndim - 2} spatial axes.")
    out = x
    if how.moves:
        sides = tuple(x.shape[2:])
        places = sampling_places(how, len(x), sides, generator).to(x.device)
        out = functional.grid_sample(out, _interpolated(places, sides), padding_mode="border", align_corners=False)
    if how.blur:
        out = _blurred(out, how.blur, generator)
    if how.contrast or how.brightness or (how.colour and x.shape[1] > 1):
        out = _recoloured(out, how, generator)
    if how.noise:
        out = _noise(out, generator).mul_(how.noise).add_(out)
    return x.clone() if out is x else out


def sampling_places(how: Augmentation, n: int, sides: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return where in its image each control point of the result lies, ``(n, 5, 5, 2)`` or ``(n, 5, 5, 5, 3)``.

    Places run from -1 to 1 between the image's edges (``align_corners=False``). The place of point p is
    ``crop * M p + centre + shift + elastic`` with ``M = rotation * shear * turn * flip / scale`` in pixels.
    """
    d = len(sides)
    side = torch.tensor(sides[::-1], dtype=torch.get_default_dtype())
    ends = 1 - 1 / side  # centres of the outermost pixels
    axes = [torch.linspace(-float(end), float(end), CONTROL_POINTS) for end in ends]
    points = torch.stack(torch.meshgrid(*axes[::-1], indexing="ij")[::-1], -1)  # (5, 5, 2): x, y for each y, x
    kept = (1 - (1 - how.crop) * uniform((n,), generator)) ** (1 / d)
    centre = _uniform((n, d), 1.0, generator) * (1 - kept[:, None])
    centre += _uniform((n, d), 2 * how.shift, generator)
    matrix = _linear_map(how, n, sides, generator) * kept[:, None, None] * (side / side[:, None])
    places = points.flatten(0, -2) @ matrix.transpose(1, 2) + centre[:, None]
    places += _uniform(places.shape, 2 * how.elastic, generator)
    return torch.unflatten(places, 1, (CONTROL_POINTS,) * d)


def _linear_map(how: Augmentation, n: int, sides: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return M of ``sampling_places``, ``(n, d, d)``."""
    d = len(sides)
    upper = torch.triu_indices(d, d, offset=1).unbind()
    plane = functional.normalize(normal((n, len(upper[0])), generator))
    angle = _uniform((n, 1), math.radians(how.rotation), generator)
    turning = torch.zeros(n, d, d)
    turning[:, upper[0], upper[1]] = angle * plane
    matrix = torch.matrix_exp((turning - turning.transpose(1, 2)).double()).to(turning)  # float32 errs by 1e-4
    if how.shear:
        slant = torch.eye(d).repeat(n, 1, 1)
        slant[:, upper[0], upper[1]] = _uniform((n, len(upper[0])), how.shear, generator)
        matrix = matrix @ slant
    if how.quarter_turns:
        step = 1 if sides[-1] == sides[-2] else 2
        quarter = torch.eye(d)
        quarter[:2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        turns = torch.stack([torch.matrix_power(quarter, number) for number in range(0, 4, step)])
        matrix = matrix @ turns[integers(len(turns), (n,), generator)]
    for axis in how.flips:
        matrix[:, :, -axis - 1] *= 1 - 2 * integers(2, (n, 1), generator)
    return matrix * torch.exp(_uniform((n, 1, 1), how.scale, generator))


def _interpolated(places: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Interpolate control points linearly, axis by axis: ``(n, 5, 5, 2)`` -> ``(n, H, W, 2)``, likewise in 3-D."""
    for axis in range(len(sides), 0, -1):
        at = torch.linspace(0, CONTROL_POINTS - 1, sides[axis - 1], device=places.device)
        number = torch.arange(CONTROL_POINTS, device=places.device)
        weights = (1 - (at[:, None] - number).abs()).clamp_min(0)
        # A product of matrices takes a quarter of the time of functional.interpolate.
        places = (weights @ places.flatten(axis + 1)).unflatten(-1, places.shape[axis + 1 :])
    return places


def _blurred(x: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Blur about half of the images with a Gaussian, cut off at twice the largest deviation; borders go on outside."""
    deviation = largest * uniform((len(x),), generator)
    chosen = uniform((len(x),), generator).lt(0.5).nonzero()[:, 0]
    if not len(chosen):
        return x
    radius = math.ceil(2 * largest)
    distance = torch.arange(radius + 1) / deviation[chosen, None].clamp_min(1e-3)
    weights = torch.exp(-0.5 * distance.square())
    weights /= 2 * weights.sum(1, keepdim=True) - 1
    weights = weights.to(x.device).view(-1, radius + 1, *[1] * (x.ndim - 1))
    chosen = chosen.to(x.device)
    soft = functional.pad(x.index_select(0, chosen), (radius,) * 2 * (x.ndim - 2), mode="replicate")
    for axis in range(2, x.ndim):
        side = x.shape[axis]
        padded, soft = soft, soft.narrow(axis, radius, side) * weights[:, 0]
        for step in range(1, radius + 1):
            both = padded.narrow(axis, radius - step, side) + padded.narrow(axis, radius + step, side)
            soft.addcmul_(both, weights[:, step])
    return x.index_copy(0, chosen, soft)


def _recoloured(x: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Change contrast, brightness and colour: x -> m + g (x - m) + b, m the image's mean, b its channel's offset."""
    n, channels = x.shape[:2]
    ones = [1] * (x.ndim - 2)
    factor = torch.exp(_uniform((n, 1), how.contrast, generator))
    offset = _uniform((n, 1), how.brightness, generator)
    if channels > 1:
        offset = offset + _uniform((n, channels), how.colour, generator)
    factor, offset = factor.to(x.device), offset.to(x.device)
    offset = offset + x.flatten(1).mean(1, keepdim=True) * (1 - factor)
    return torch.addcmul(offset.view(n, -1, *ones), x, factor.view(n, 1, *ones))


def _noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal noise of the shape of ``x``.

    Each image takes a stretch at a random place of one long row of numbers, since making numbers costs most.
    """
    size = x[0].numel()
    spare = batch_size(len(x), generator) * size // NOISE_SHARE + 1
    row = torch.randn(size + spare, generator=generator).to(x.device)
    starts = integers(spare, (len(x),), generator).to(x.device)
    return row.unfold(0, size, 1).index_select(0, starts).view(x.shape)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (uniform(shape, generator) * 2 - 1) * bound
