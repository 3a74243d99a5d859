"""Settings of methods: constructor arguments to and from JSON, checked before anything runs."""

from __future__ import annotations

import dataclasses
import warnings
from importlib import import_module
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from medstrata.errors import FitError
from medstrata.learning.augment import AUGMENTATIONS
from medstrata.learning.batches import KINDS, Images
from medstrata.learning.ranges import check_number, check_whole, check_wholes
from medstrata.learning.train import Training
from medstrata.methods import METHODS

if TYPE_CHECKING:
    from medstrata.methods.method import ClusteringMethod

AUTO, OWN = "auto", "own"
DIVISORS = ("temperature", "sharpness")
FRACTIONS = (*DIVISORS, "clustering_weight", "beta", "reconstruction", "contrastive", "rate", "decoding")
OWN_IS_TRAINED = (
    'Batches can only be adjusted for where clusters are read off the finished embedding, as with assignment="graph". '
    'The prototypes of assignment="own" were trained together with the embedding as it was before.'
)


def settings_of(method: ClusteringMethod) -> dict[str, Any]:
    """Return the constructor arguments as JSON values. A module given from Python is no setting."""
    return {
        name: _to_json(value)
        for name, value in method.get_params(deep=False).items()
        if not isinstance(value, nn.Module)
    }


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {name: _to_json(item) for name, item in vars(value).items()}
    if isinstance(value, np.generic):  # such as np.int64, which JSON does not know
        return value.item()
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value


def make_method(name: str, settings: dict[str, Any]) -> ClusteringMethod:
    """Construct a method by its name in ``METHODS`` from JSON values.

    An object such as ``training`` may be given in part: its other values are the method's defaults.

    Raises
    ------
    FitError : unknown name, unknown setting, or a value of a wrong type
    """
    if name not in METHODS:
        raise FitError(f"There is no method {name!r}. Choose one of: {', '.join(METHODS)}.")
    module, cls = METHODS[name].split(":")
    constructor = getattr(import_module(module), cls)
    defaults = constructor().get_params(deep=False)
    try:
        values = {key: _over(defaults.get(key), value) for key, value in settings.items()}
        method: ClusteringMethod = constructor(**values)
    except TypeError as error:
        raise FitError(f"Method {name!r} does not take these settings: {error}. Correct them in plan.json.") from error
    for key, value in values.items():
        if dataclasses.is_dataclass(defaults[key]) and dataclasses.is_dataclass(value):
            _check_types(name, vars(defaults[key]), vars(value))
    _check_types(name, defaults, values)
    check_values(method)
    return method


def _over(default: Any, value: Any) -> Any:
    """Bring a JSON value to the type of ``default``."""
    if dataclasses.is_dataclass(default) and isinstance(value, dict):
        return dataclasses.replace(default, **{key: _over(None, item) for key, item in value.items()})  # type: ignore[type-var]
    return tuple(value) if isinstance(value, list) else value


def _check_types(name: str, defaults: dict[str, Any], values: dict[str, Any]) -> None:
    """Raise FitError for a value of another type than its default (a whole number may stand for a fraction)."""
    for key, value in values.items():
        kind = type(defaults[key])
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int)) or defaults[key] is None
        if key == "n_clusters" and value == AUTO:
            continue
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise FitError(
                f"Method {name!r}: setting {key!r} is {value!r}, but must be of type {kind.__name__} "
                f"(default {defaults[key]!r})."
            )


def check_settings(method: ClusteringMethod, count: int, batches: bool = False) -> None:
    """Raise FitError for settings that are impossible for ``count`` images; ``batches``: that are adjusted for."""
    if batches and method.assignment == OWN:
        raise FitError(OWN_IS_TRAINED)
    asked = method.n_clusters
    if asked != AUTO and not (isinstance(asked, Integral) and 1 <= asked <= count):
        raise FitError(
            f"{asked!r} clusters were asked for and there are {count} images. "
            f'Choose between 1 and {count} clusters, or "auto".'
        )
    check_values(method)


def check_values(method: ClusteringMethod) -> None:
    """Raise FitError for names that do not exist, numbers out of their range, and settings without effect."""
    training = method.training
    for key, value, known in (
        ("assignment", method.assignment, method.ASSIGNMENTS),
        ("preprocessing", training.preprocessing, KINDS),
        ("augmentation", training.augmentation, AUGMENTATIONS),
    ):
        if value not in known:
            raise FitError(f"{key} is {value!r}, but must be one of: {', '.join(known)}.")
    _check_numbers(method.get_params(deep=False))
    usual = type(method)().training
    for name in method.WITHOUT_EFFECT:
        value = getattr(training, name)
        if value not in (getattr(usual, name), getattr(Training, name)):
            raise FitError(
                f"{type(method).__name__} does not use {name} of training, so that {value!r} would have no effect. "
                "Leave it out."
            )


def unlikely_settings(method: ClusteringMethod) -> list[str]:
    """Return sentences, given as warnings too, about settings that are possible and hardly meant."""
    name, known = type(method).__name__, ", ".join(key for key in AUGMENTATIONS if key != "none")
    if method.training.augmentation != "none" or type(method)().training.augmentation == "none":
        return []
    sentence = (
        f'{name} compares changed views of each image, and augmentation "none" leaves them equal, so that it hardly '
        f"learns which images are alike. Name one of: {known}. From Python, replace({name}().training, ...) of "
        "dataclasses changes some settings of training and keeps the others of the method."
    )
    warnings.warn(sentence, stacklevel=3)
    return [sentence]


def _check_numbers(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if name == "random_state":
            check_whole(name, value)
        elif name in ("components", "runs"):
            check_whole(name, value, 1)
        elif name == "prototypes":
            check_wholes(name, value)
        elif name in FRACTIONS:
            check_number(name, value, above_zero=name in DIVISORS)
        elif name == "objective":
            _check_numbers(vars(value))


def check_fitted(method: ClusteringMethod, images: Images | None = None) -> None:
    """Raise FitError where ``method`` is not fitted, or was fitted on images of another shape than ``images``."""
    if not hasattr(method, "n_clusters_"):
        raise FitError(
            f"This {type(method).__name__} is not fitted, or its last fit did not come to its end. "
            "Call fit first, or load a model."
        )
    if images is not None and images.shape[1:] != method.image_shape_:
        raise FitError(
            f"Images of shape {images.shape[1:]} do not fit a model of images of shape {method.image_shape_}. "
            "Bring them onto the same grid first (medstrata assign does it)."
        )
