"""Is a map right about the model? What is taken out where it is strongest must matter more than as much elsewhere.

Petsiuk, Das, Saenko: RISE. BMVC 2018. arXiv:1806.07421 (deletion); here at one share, beside random places.
"""

from __future__ import annotations

import torch

from medstrata.evidence.maps.rule import Explainable, Facts, Question
from medstrata.learning.comm import generator

SHARE = 0.1  # of the voxels
DRAWS = 3  # random places
STREAM = 41  # names the stream of random numbers


@torch.inference_mode()
def deletion(model: Explainable, x: torch.Tensor, maps: torch.Tensor, question: Question, seed: int = 0) -> Facts:
    """Take the strongest tenth of each map (n, \\*grid) out of its image (n, C, \\*grid) and assign what is left.

    What is taken out becomes the mean image of the other clusters (``Question.reference``). ``probability`` (n,): q_c
    of the image; ``without``: of what is left; ``without_random``: mean over 3 random places, where the same pattern
    was moved to, wrapped around the border, so that its shape is the same.
    """
    reference, grid = question.reference(), tuple(range(1, maps.ndim))
    count = max(1, round(SHARE * maps[0].numel()))
    strongest = torch.zeros_like(maps, dtype=torch.bool).flatten(1)
    strongest = strongest.scatter(1, maps.flatten(1).topk(count, dim=1).indices, True).reshape(maps.shape)

    def q(mask: torch.Tensor) -> torch.Tensor:
        left = torch.where(mask[:, None], reference, x)
        return model.soft_assignment(left).gather(1, question.cluster[:, None])[:, 0]

    chance = generator(seed, STREAM)
    moves = [[int(torch.randint(size, (1,), generator=chance)) for size in maps.shape[1:]] for _ in range(DRAWS)]
    elsewhere = torch.stack([q(strongest.roll(move, grid)) for move in moves]).mean(0)
    return {"probability": q(torch.zeros_like(strongest)), "without": q(strongest), "without_random": elsewhere}
