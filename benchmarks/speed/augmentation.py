"""Two views of 256 images of 64 x 64: ours, MONAI's per-sample dictionaries, kornia's batched sequence.

python -m benchmarks.speed.augmentation [--rounds 5]

The same changes in the same amounts, in two sets. "affine": rotation by up to 10 degrees, scale by up to 10 %, shift by
up to 6 % of the side in one map. "crop": half to all of the area, brought to the full size, then rotation by up to 10
degrees; the others resample twice for that. In both: bilinear, borders go on, every second image mirrored, contrast by
up to 20 %, brightness by up to 0.1 deviations, normal noise of 0.1 deviations; "blur": every second image, by a
Gaussian of up to 1 pixel. How much the images change is compared. Not equal: see ``DIFFERENCES``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from math import radians
from statistics import median
from typing import Any

import torch

from benchmarks.speed.images import scaled_images
from benchmarks.speed.roofs import measure_roofs
from benchmarks.speed.timing import Work, alternate, check_equal, machine, ratio, shown, table
from medstrata.learning.augment import Augmentation, augment

BATCH, SIDE = 256, 64
DEGREES, SCALE, SHIFT, CROP, CONTRAST, BRIGHTNESS, NOISE, BLUR = 10.0, 0.1, 0.06, 0.5, 0.2, 0.1, 0.1, 1.0
TOLERANCE = 0.2  # of the root mean square of the change: the amounts are alike, the random numbers are not
TARGETS = {"MONAI": 60.0, "MONAI, no metadata": 60.0, "kornia": 3.0}
DIFFERENCES = (
    "Not equal: ours draws contrast and scale as e^u, the others as 1 + u; kornia's contrast multiplies about zero, "
    "ours and MONAI's about the image's mean; ours lets 8 pixels share one random number of the noise; ours and kornia "
    "cut the Gaussian at 2 pixels, MONAI at 4 of its own deviations."
)
View = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Changes:
    """Which of the changes above: ``crop`` or affine, with ``blur`` or without."""

    crop: bool
    blur: bool

    def __str__(self) -> str:
        return ("crop" if self.crop else "affine") + (", blur" if self.blur else "")


SETS = (Changes(crop=False, blur=False), Changes(crop=False, blur=True), Changes(crop=True, blur=True))


def our_view(changes: Changes) -> View:
    how = Augmentation(
        rotation=DEGREES,
        scale=0.0 if changes.crop else SCALE,
        shift=0.0 if changes.crop else SHIFT,
        crop=CROP if changes.crop else 1.0,
        flips=(-1,),
        blur=BLUR if changes.blur else 0.0,
        contrast=CONTRAST,
        brightness=BRIGHTNESS,
        noise=NOISE,
    )
    chance = torch.Generator().manual_seed(0)
    return lambda x: augment(x, how, chance)


def monai_view(changes: Changes, metadata: bool = True) -> View:
    """One dictionary per image, as in its tutorials; it tracks ``metadata`` by default and is faster without."""
    from monai import transforms  # type: ignore[import-not-found]
    from monai.data import set_track_meta  # type: ignore[import-not-found]

    key, turn = "image", radians(DEGREES)
    steps: list[Any] = [
        transforms.RandAffined(
            key,
            prob=1.0,
            rotate_range=turn,
            translate_range=SHIFT * SIDE,
            scale_range=SCALE,
            padding_mode="border",
            cache_grid=True,
            spatial_size=(SIDE, SIDE),
        )
    ]
    if changes.crop:
        least = round(CROP**0.5 * SIDE)
        steps = [
            transforms.RandSpatialCropd(key, roi_size=(least, least), max_roi_size=(SIDE, SIDE), random_size=True),
            transforms.Resized(key, spatial_size=(SIDE, SIDE), mode="bilinear"),
            transforms.RandRotated(key, range_x=turn, prob=1.0, padding_mode="border"),
        ]
    steps.append(transforms.RandFlipd(key, prob=0.5, spatial_axis=1))
    if changes.blur:
        width = (0.0, BLUR)
        steps.append(transforms.RandGaussianSmoothd(key, sigma_x=width, sigma_y=width, prob=0.5))
    steps += [
        transforms.RandScaleIntensityFixedMeand(key, factors=CONTRAST, prob=1.0),
        transforms.RandShiftIntensityd(key, offsets=BRIGHTNESS, prob=1.0),
        transforms.RandGaussianNoised(key, prob=1.0, std=NOISE, sample_std=False),
    ]
    compose = transforms.Compose(steps)
    compose.set_random_state(seed=0)

    def view(x: torch.Tensor) -> torch.Tensor:
        set_track_meta(metadata)
        return torch.stack([torch.as_tensor(compose({key: image})[key]) for image in x])

    return view


def kornia_view(changes: Changes) -> View:
    from kornia import augmentation as library  # type: ignore[import-not-found]

    steps: list[Any] = [
        library.RandomAffine(DEGREES, (SHIFT, SHIFT), (1 - SCALE, 1 + SCALE), padding_mode="border", p=1.0)
    ]
    if changes.crop:
        steps = [
            library.RandomResizedCrop((SIDE, SIDE), scale=(CROP, 1.0), ratio=(1.0, 1.0), p=1.0),
            library.RandomAffine(DEGREES, padding_mode="border", p=1.0),
        ]
    steps.append(library.RandomHorizontalFlip(p=0.5))
    if changes.blur:
        steps.append(library.RandomGaussianBlur((5, 5), (0.01, BLUR), border_type="replicate", p=0.5))
    steps += [
        library.RandomContrast((1 - CONTRAST, 1 + CONTRAST), clip_output=False, p=1.0),
        library.RandomBrightness((1 - BRIGHTNESS, 1 + BRIGHTNESS), clip_output=False, p=1.0),
        library.RandomGaussianNoise(std=NOISE, p=1.0),
    ]
    sequence = library.AugmentationSequential(*steps, data_keys=["input"], same_on_batch=False)
    return lambda x: torch.as_tensor(sequence(x))


VIEWS: dict[str, Callable[[Changes], View]] = {
    "ours": our_view,
    "MONAI": monai_view,
    "MONAI, no metadata": lambda changes: monai_view(changes, metadata=False),
    "kornia": kornia_view,
}


def compare(images: torch.Tensor, views: dict[str, View], rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    """Return the CPU seconds of two views by round, and how much each changes the images (root mean square).

    Raises
    ------
    ValueError : they change the images by different amounts
    """
    changed: dict[str, float] = {}

    def work(name: str) -> Work:
        def run() -> None:
            first, second = views[name](images), views[name](images)
            if name not in changed:  # in the warm-up
                changed[name] = float(torch.cat([first - images, second - images]).square().mean().sqrt())

        return run

    seconds = alternate({name: work(name) for name in views}, rounds)
    check_equal(changed, TOLERANCE)
    return seconds, [changed[name] for name in views]


def report(images: torch.Tensor, rounds: int, bandwidth: float) -> str:
    """Compare on all ``SETS``; ``bandwidth``: bytes/s of a copy of memory."""
    rows, verdicts = [], []
    for changes in SETS:
        seconds, changed = compare(images, {name: make(changes) for name, make in VIEWS.items()}, rounds)
        for (name, taken), change in zip(seconds.items(), changed, strict=True):
            rate = 2 * len(images) / median(taken)
            slower = ratio(taken, seconds["ours"])
            # A view reads and writes each image once at least.
            roof = rate * 2 * images[0].nbytes / bandwidth
            rows.append((changes, name, rate, slower, f"{roof:.2%}", change))
            if name in TARGETS:
                verdict = "reached" if slower.middle >= TARGETS[name] else "missed"
                target = f"target {TARGETS[name]:g}: {verdict}"
                verdicts.append(f"{changes}: {shown(slower.middle)} times {name} ({target}).")
    header = ("changes", "by", "views per CPU s", "its CPU time over ours", "of copy bandwidth", "change (RMS)")
    return "\n".join([table(header, rows), "", *verdicts, "", DIFFERENCES])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.augmentation")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(machine() + "\n")
    print(report(scaled_images(BATCH), given.rounds, measure_roofs().copy))


if __name__ == "__main__":
    main()
