"""Does a map depend on what it should depend on, and on nothing else? Three tests that need no truth.

1. Cluster: the maps of an image for its own cluster and for the runner-up must differ (``cluster_sensitivity``).
2. Weights: with the network's weights shuffled, a map must become another one (``after_shuffling``).
       Adebayo et al.: Sanity checks for saliency maps. NeurIPS 2018. arXiv:1810.03292.
   How alike two maps are that have nothing to do with each other is measured on pairs of different images
   (``of_other_images``), after Arun et al., Radiology: AI 3(6), 2021.
3. Image: moved by a few voxels or with a little noise, an image must keep its map (``when_changed``).

Deviation from Adebayo et al.: weights are shuffled within each tensor instead of drawn anew, so that they keep their
size; prototypes that are weights are shuffled with them and not estimated again.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from medstrata.evidence.maps.correlation import pearson, spearman
from medstrata.evidence.maps.rule import Explainable, Facts, Question, Rule
from medstrata.learning.augment import AUGMENTATIONS
from medstrata.learning.comm import generator

SHUFFLED = (0.25, 0.5, 1.0)  # of the tensors of weights, from the assignment towards the image
NOISE = 0.05  # standard deviations of the images
FARTHEST = 3  # voxels that an image is moved by, or an eighth of its side where that is less
PAIRS = 50  # of different images
STREAM = 47  # names the stream of random numbers


def cluster_sensitivity(
    model: Explainable, x: torch.Tensor, question: Question, rule: Rule, maps: torch.Tensor
) -> torch.Tensor:
    """Pearson's r (n,) of what speaks for an image's cluster in its map, and for the runner-up in that one's map.

    ``maps`` (n, \\*grid): of the images x (n, C, \\*grid). NaN: one of the two is the same everywhere.
    """
    q = model.soft_assignment(x).scatter(1, question.cluster[:, None], -1.0)
    rival = Question(q.argmax(1), torch.full_like(question.cluster, -1), question.cohort)
    return pearson(maps.relu(), rule.explain(model, x, rival)[0].relu())


def after_shuffling(
    model: Explainable, x: torch.Tensor, question: Question, rule: Rule, maps: torch.Tensor, seed: int = 0
) -> Facts:
    """Spearman's rank correlation (n,) of |map| with that of a network of which some weights were shuffled.

    ``shuffled_25`` ...: the share in per cent of the tensors that the assignment depends on, those next to it first.
    """
    found = {}
    for share in SHUFFLED:
        changed = shuffled(model, share, x, question, seed)
        found[f"shuffled_{share * 100:.0f}"] = spearman(maps.abs(), rule.explain(changed, x, question)[0].abs())
    return found


def shuffled(model: Any, share: float, x: torch.Tensor, question: Question, seed: int = 0) -> Any:
    """Return a copy of ``model`` with the values shuffled within the last ``share`` of the tensors that matter."""
    changed = copy.deepcopy(model)
    weights = _weights(changed)
    for weight in weights:
        weight.requires_grad_(True)
    with torch.enable_grad():
        odds = question.log_odds(changed.differentiable_assignment(x)).sum()
    slopes = torch.autograd.grad(odds, weights, allow_unused=True) if weights else ()
    # What has no slope belongs to a decoder or to a head that only training needs.
    used = [weight for weight, slope in zip(weights, slopes, strict=True) if slope is not None and slope.any()]
    for weight in weights:
        weight.requires_grad_(False)
    for number, weight in enumerate(used[len(used) - round(share * len(used)) :]):
        order = torch.randperm(weight.numel(), generator=generator(seed, STREAM, number)).to(weight.device)
        weight.data = weight.data.flatten()[order].reshape(weight.shape)
    return changed


def _weights(model: Any) -> list[nn.Parameter]:
    """The weights of a model, each once, from the image to the assignment.

    Within a network these are its parts in the order in which they were made, then its own tensors, the prototypes; the
    reader, which assigns, comes last.
    """
    parts = [part for name, part in vars(model).items() if isinstance(part, nn.Module) and name != "reader_"]
    found: list[nn.Parameter] = []
    for part in parts:
        found += [weight for child in part.children() for weight in child.parameters()]
        found += part.parameters(recurse=False)
    reader = getattr(model, "reader_", None)
    found += list(reader.parameters()) if isinstance(reader, nn.Module) else []
    return list({id(weight): weight for weight in found}.values())


def of_other_images(maps: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Spearman's rank correlation (pairs,) of |map| of up to 50 pairs of different images of ``maps`` (n, \\*grid)."""
    if len(maps) < 2:
        return maps.new_empty(0)
    chance = generator(seed, STREAM, 1)
    first = torch.randint(len(maps), (PAIRS,), generator=chance).tolist()
    apart = torch.randint(1, len(maps), (PAIRS,), generator=chance).tolist()
    pairs = [
        (one, (one + by) % len(maps)) for one, by in zip(first, apart, strict=True)
    ]  # one by one: volumes are large
    # One pair at a time: volumes are large.
    return torch.cat([spearman(maps[one][None].abs(), maps[other][None].abs()) for one, other in pairs])


def when_changed(
    model: Explainable, x: torch.Tensor, question: Question, rule: Rule, maps: torch.Tensor, seed: int = 0
) -> Facts:
    """Pearson's r (n,) of the map of a changed image with the changed map of the image.

    ``noise``: normal noise of 0.05 standard deviations of the images; ``moved``: by up to 3 voxels along each axis, the
    reference stays; a border as wide is left out. ``mirrored``: along each axis that the model was trained to be
    mirrored along; absent where there is none.
    """
    grid = tuple(range(1, maps.ndim))
    chance = generator(seed, STREAM, 2)
    noise = torch.randn(x.shape, generator=chance).to(x) * NOISE * x.std()
    most = [min(FARTHEST, size // 8) for size in maps.shape[1:]]
    by = [int(torch.randint(-far, far + 1, (1,), generator=chance)) for far in most]
    inside = (slice(None), *(slice(far, size - far) for far, size in zip(most, maps.shape[1:], strict=True)))
    moved = rule.explain(model, x.roll(by, [axis + 1 for axis in grid]), question)[0]
    found = {
        "noise": pearson(maps, rule.explain(model, x + noise, question)[0]),
        "moved": pearson(maps.roll(by, grid)[inside], moved[inside]),
    }
    flips = _flips(model)
    if flips:
        turned = [pearson(maps.flip(axis), rule.explain(model, x.flip(axis), question)[0]) for axis in flips]
        found["mirrored"] = torch.stack(turned).mean(0)
    return found


def _flips(model: Any) -> tuple[int, ...]:
    """Axes along which the model was trained to be mirrored."""
    training = getattr(model, "training", None)
    flips: tuple[int, ...] = AUGMENTATIONS[training.augmentation].flips if training is not None else ()
    return flips
