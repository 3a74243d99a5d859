"""What the axes of an array mean follows from its shape alone, tried in this order:

========================  =============================================================
shape                     read as
========================  =============================================================
``(N, H, W)``             N grey images
``(N, H, W, 1 or 3)``     N grey or colour images
``(N, 1 or 3, H, W)``     N grey or colour images
``(N, D, H, W)``          N grey volumes
``(N, 1 or 3, D, H, W)``  N grey or colour volumes
``(N, D, H, W, 1 or 3)``  N grey or colour volumes
========================  =============================================================

Rows and columns must be at least ``MIN_SIDE`` long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medstrata.errors import FileProblem

MIN_SIDE = 8  # pixels; shorter axes are channels or features, not rows and columns of an image

_CHANNELS = (1, 3)
_EXPECTED = "(N, H, W), (N, H, W, 3), (N, 3, H, W), (N, D, H, W) or (N, C, D, H, W)"


@dataclass(frozen=True, slots=True)
class Layout:
    """Axes of a stored array: ``channel_axis`` is None for grey images without an axis of channels."""

    images: int
    channels: int
    spatial: tuple[int, ...]  # (H, W) or (D, H, W)
    channel_axis: int | None


def layout_of(shape: Sequence[int]) -> Layout:
    """Return what the axes of ``shape`` mean, by the rule at the top of this file.

    Raises
    ------
    FileProblem : ``array_shape``
    """
    count, *rest = shape if len(shape) else (0,)
    layout = None
    if len(rest) == 2:
        layout = Layout(count, 1, tuple(rest), None)
    elif len(rest) in (3, 4):
        last_first = len(rest) == 3
        axes = [axis for axis in ((len(rest), 1) if last_first else (1, len(rest))) if shape[axis] in _CHANNELS]
        if axes:
            spatial = tuple(length for axis, length in enumerate(shape) if axis not in (0, axes[0]))
            layout = Layout(count, shape[axes[0]], spatial, axes[0])
        elif len(rest) == 3:
            layout = Layout(count, 1, tuple(rest), None)
    if layout is None or count < 1 or min(layout.spatial) < 1 or min(layout.spatial[-2:]) < MIN_SIDE:
        sentence = f"An array of shape {tuple(shape)} is no set of images; expected {_EXPECTED}, sides from {MIN_SIDE}."
        raise FileProblem("array_shape", sentence)
    return layout
