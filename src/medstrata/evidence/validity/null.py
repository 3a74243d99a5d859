"""Is there anything at all? The whole pipeline, training included, on images without groups.

Self-training makes clusters out of noise, and scores on the embedding that it made believe in them. So the same short
fits are done on the images and on surrogates of them (``surrogate_images``), and the real ones have to be better than
all but one in twenty. Two things are measured:

- *replication*: two fits on the two halves of the patients; the adjusted Rand index of what they say of all images;
- *separation*: the mean silhouette of one half's images in the embedding of the fit on the other half.

Both have to be better. Where a continuum of Gaussian shape is cut in pieces, replication is as good on surrogates;
where random numbers decide, it is near 0 on both. A third, the *gap* between clusters (``evidence.validity.dip``),
tells groups from pieces of any continuum. It decides nothing, since true groups may overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, silhouette_score

from medstrata.evidence.validity.dip import gap
from medstrata.evidence.validity.stability import some_patients
from medstrata.evidence.validity.surrogate import surrogate_study
from medstrata.evidence.validity.verdict import LEVEL
from medstrata.learning.adjustment import InBatches

SPLITS = 3  # of the real images into halves; their mean is compared with single splits of surrogates

MOST_POINTS = 1000  # of which silhouettes are taken
STATISTICS = ("replication", "separation")  # that decide
GAP = "gap"

Fitted = Any  # a fitted method: predict, transform
Images = NDArray[Any] | InBatches
FitImages = Callable[[Images, int], Fitted]
Statistics = dict[str, float]
Seeds = list[int]


def half_and_half(images: Images, patients: NDArray[np.str_], fit: FitImages, seeds: Seeds) -> Statistics:
    """Fit on each half of the patients; return ``replication``, ``separation`` and ``gap``, see the module.

    ``images`` (N, C, ...), in batches or not, ``patients`` (N,), ``fit(images, seed)`` returns a fitted method;
    ``seeds``: whole numbers that all random numbers are made of.
    """
    division, one_seed, two_seed = np.random.SeedSequence(seeds).generate_state(3).tolist()
    first = some_patients(patients, 0.5, division)
    one, two = fit(images[first], one_seed), fit(images[~first], two_seed)
    labels, z = one.predict(images), one.transform(images)
    new = _directions(z[~first])[:MOST_POINTS]
    return {
        "replication": float(adjusted_rand_score(labels, two.predict(images))),
        "separation": _silhouette(new, labels[~first][:MOST_POINTS]),
        GAP: gap(z[~first], labels[~first], _middles(z[first], labels[first])),
    }


def _middles(z: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[int, NDArray[np.float32]]:
    return {number: z[labels == number].mean(0) for number in np.unique(labels).tolist()}


def _directions(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return directions from the mean, which readers compare too."""
    centred = z - z.mean(0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    directions: NDArray[np.float32] = centred / np.where(lengths > 0, lengths, 1)
    return directions


def _silhouette(directions: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    if not 1 < len(np.unique(labels)) < len(labels):  # one cluster only is no separation
        return 0.0
    return float(silhouette_score(directions, labels))


def surrogate_split(images: Images, patients: NDArray[np.str_], fit: FitImages, seeds: Seeds) -> Statistics:
    """As ``half_and_half``, of images without groups: as many, of as many patients, as the real ones."""
    drawing = int(np.random.SeedSequence([*seeds, 1]).generate_state(1)[0])
    return half_and_half(surrogate_study(images, patients, drawing), patients, fit, [*seeds, 2])


def null_test(real: list[Statistics], surrogates: list[Statistics]) -> dict[str, Any]:
    """Compare the real splits with those of surrogates.

    Returns per statistic, ``gap`` too, ``real`` (mean over the splits), ``surrogates`` (list), ``as_good``, how many of
    them are at least as good (a tie in replication or separation is decided by the other), and ``p`` = (1 + as_good) /
    (1 + surrogates). And ``p``, the larger of those of replication and separation; ``passed``: p at most .05, which
    needs at least 19 surrogates; ``separate``: the gap is larger than between pieces of a continuum, and than in the
    surrogates.
    """
    found: dict[str, Any] = {}
    mean = {name: float(np.mean([one[name] for one in real])) for name in (*STATISTICS, GAP)}
    for name, tied in {"replication": "separation", "separation": "replication", GAP: GAP}.items():
        # Few images may replicate perfectly by chance: a tie at the highest value is decided by the other statistic.
        as_good = sum((one[name], one[tied]) >= (mean[name], mean[tied]) for one in surrogates)
        values, p = [one[name] for one in surrogates], (1 + as_good) / (1 + len(surrogates))
        found[name] = {"real": mean[name], "surrogates": values, "as_good": as_good, "p": p}
    p = max(found[name]["p"] for name in STATISTICS)
    separate = found[GAP]["real"] > 1 and found[GAP]["p"] <= LEVEL
    return found | {"p": p, "passed": p <= LEVEL, "separate": separate}
