"""Is a map right about the model? What is taken out where it is strongest must matter more than as much elsewhere.

    Petsiuk, Das, Saenko: RISE: randomized input sampling for explanation of black-box models. BMVC 2018.
    arXiv:1806.07421.

Voxels are taken from the strongest to the weakest; what is taken out becomes the mean image of the other clusters
(``Question.reference``), not zero, which may be brighter or darker than anything that the network has seen.

Deletion:   of the image, the strongest share s is replaced by the reference; q_c(s) should fall early               (1)
Insertion:  of the reference, the strongest share s is replaced by the image; q_c(s) should rise early               (2)
The area under either curve over s = 0, 1/20 ... 1 lies in 0..1.

Deviation: the paper fills with zeros (deletion) and a blurred image (insertion).
"""

from __future__ import annotations

import torch

from medstrata.evidence.maps.rule import Explainable, Facts, Question
from medstrata.learning.comm import generator

SHARE = 0.1  # of the voxels, in every run
DRAWS = 6  # random places
TRIES = 8  # of which the one that overlaps least with the strongest is taken
STEPS = 20  # of a curve
STREAM = 41  # names the stream of random numbers


@torch.inference_mode()
def deletion(model: Explainable, x: torch.Tensor, maps: torch.Tensor, question: Question, seed: int = 0) -> Facts:
    """Take the strongest tenth of each map (n, \\*grid) out of its image (n, C, \\*grid) and assign what is left.

    ``probability`` (n,): q_c of the image; ``without``: of what is left; ``without_random``: mean over 6 random places,
    other ones for each image, where the same pattern was moved to, wrapped around the border, so that its shape is the
    same; of 8 places each time the one that shares the fewest voxels with the pattern itself.
    """
    reference = question.reference()
    strongest = _ranks(maps) < max(1, round(SHARE * maps[0].numel()))

    def q(taken: torch.Tensor) -> torch.Tensor:
        return _own(model, torch.where(taken[:, None], reference, x), question)

    chance = generator(seed, STREAM)
    places = (torch.stack([_elsewhere(one, chance) for one in strongest]) for _ in range(DRAWS))
    elsewhere = torch.stack([q(place) for place in places]).mean(0)
    return {"probability": q(torch.zeros_like(strongest)), "without": q(strongest), "without_random": elsewhere}


def _elsewhere(pattern: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Move a pattern (\\*grid) to a random place of its grid that it hardly covers itself."""
    moves = [[int(torch.randint(size, (1,), generator=chance)) for size in pattern.shape] for _ in range(TRIES)]
    moved = [pattern.roll(move, tuple(range(pattern.ndim))) for move in moves]
    return min(moved, key=lambda place: int((place & pattern).sum()))


@torch.inference_mode()
def areas(model: Explainable, x: torch.Tensor, maps: torch.Tensor, question: Question) -> Facts:
    """Return the areas under (1) and (2) of maps (n, \\*grid): ``deletion`` and ``insertion`` (n,), 0..1."""
    reference, ranks = question.reference(), _ranks(maps)
    curves: dict[str, list[torch.Tensor]] = {"deletion": [], "insertion": []}
    for step in range(STEPS + 1):
        taken = (ranks < round(step / STEPS * maps[0].numel()))[:, None]
        curves["deletion"].append(_own(model, torch.where(taken, reference, x), question))
        curves["insertion"].append(_own(model, torch.where(taken, x, reference), question))
    return {name: torch.trapezoid(torch.stack(curve), dx=1 / STEPS, dim=0) for name, curve in curves.items()}


def _ranks(maps: torch.Tensor) -> torch.Tensor:
    """Rank of each voxel of (n, \\*grid) in its map, 0 for the strongest; equal voxels in the order of the grid."""
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1], device=maps.device).expand_as(order))
    return ranks.reshape(maps.shape)


def _own(model: Explainable, x: torch.Tensor, question: Question) -> torch.Tensor:
    return model.soft_assignment(x).gather(1, question.cluster[:, None])[:, 0]
