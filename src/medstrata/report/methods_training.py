"""Sentences of the methods paragraph on how clusters were found: method, network, training, reading of clusters."""

from __future__ import annotations

from typing import Any

from medstrata.report.wording import count, things

METHODS = {
    "auto": "DeepMCAT (Kart et al. 2021), in the reading of medstrata, which follows DeepCluster-v2 (Caron et al. "
    "2020): {runs} of a residual network, which differ in their random numbers alone, were read as one embedding",
    "deepmcat": "DeepMCAT (Kart et al. 2021), in the reading of medstrata, which follows DeepCluster-v2 (Caron et al. "
    "2020)",
    "dcec": "deep convolutional embedded clustering (Guo, Liu et al. 2017; Ryan et al. 2022), a convolutional "
    "autoencoder with prototypes",
    "dvc": "deep variational clustering (Soleymani et al. 2022), a variational autoencoder with prototypes",
    "contrastive": "a contrastive autoencoder with prototypes (Ferrante et al. 2023)",
    "pca": "the first {components} principal components of the images",
    "features": "vectors of the images that were computed beforehand",
}
RESIDUAL, NOT_TRAINED = ("auto", "deepmcat"), ("pca", "features")
READERS = {
    "own": "by the method's own soft assignment to prototypes",
    "graph": "off the graph of shared nearest neighbours of the embeddings, whose communities were found by the Leiden "
    "algorithm (Traag et al. 2019) and learned by a small network with one hidden layer, which gave the assignment",
    "kmeans": "by k-means on the directions of the embeddings from their mean",
    "mixture": "by a Gaussian mixture on the first principal axes of the embeddings",
    "self-supervised": "by a small network on the embeddings, trained without labels",
}
PREPROCESSING = {
    "centred": "the mean image of the set was subtracted, and values were divided by the standard deviation left",
    "scaled": "the mean value of the set was subtracted, and values were divided by their standard deviation",
    "unit": "values were scaled to the range of the set",
    "published": "values were divided by the maximum of the set, and zeros were set to the mean of the others",
}


def method_text(plan: dict[str, Any], model: dict[str, Any], copied: bool) -> str:
    """Say with which method clusters were found, how many, and how they were read. ``copied``: fitted on others."""
    name = str(model.get("method") or plan.get("method", ""))
    settings = model.get("settings", {})
    if name not in METHODS:
        return ""
    runs, components = things(int(settings.get("runs", 1)), "runs"), settings.get("components", "")
    what = METHODS[name].format(runs=runs, components=components).replace("  ", " ")
    by = "from" if name in NOT_TRAINED else "by"
    if copied:
        first = f"The images were assigned by a model whose clusters had been found in other images, {by} {what}."
    else:
        first = f"Clusters were found without labels {by} {what}."
    sentences = [first]
    number = model.get("n_clusters") or plan.get("n_clusters")
    if isinstance(number, int):
        found = settings.get("n_clusters", number) == "auto"
        sentences.append(
            f"The number of clusters was {number}, {'as the images showed' if found else 'set in advance'}."
        )
    if (reader := settings.get("assignment")) in READERS:
        sentences.append(f"Clusters were read {READERS[reader]}.")
    return " ".join(sentences)


def training_text(model: dict[str, Any], history: list[dict[str, Any]]) -> str:
    """Say how the network was built and trained; "" where none was."""
    settings = model.get("settings", {})
    training = settings.get("training")
    if not training or not history:
        return ""
    return " ".join(
        sentence
        for sentence in (
            _architecture(settings.get("architecture"), model),
            _optimiser(training),
            _epochs(history, training),
            _own_settings(settings),
            _augmentation(training),
        )
        if sentence
    )


def _architecture(architecture: dict[str, Any] | None, model: dict[str, Any]) -> str:
    if not architecture:
        return ""
    widths = ", ".join(map(str, architecture["widths"]))
    size = model.get("embedding_size")
    embedding = f"; embeddings had {count(size)} values" if size else ""
    layers = "residual blocks" if model.get("method") in RESIDUAL else "convolutional layers"
    return f"The network had {layers} of {widths} channels{embedding}."


def _optimiser(training: dict[str, Any]) -> str:
    schedule = {"cosine": "rising over a twentieth of each phase and falling to zero along half a cosine"}
    rate = f"{training['learning_rate']:g} ({schedule.get(training['schedule'], 'constant')})"
    return (
        f"It was trained with AdamW at a learning rate of {rate}, a weight decay of {training['weight_decay']:g} and "
        f"batches of {training['batch_size']} images."
    )


def _epochs(history: list[dict[str, Any]], training: dict[str, Any]) -> str:
    """Count the epochs that were made, of one run where several were made."""
    runs = {row.get("run", 0) for row in history}
    made: dict[str, int] = {}
    for row in history:
        if row.get("run", 0) == min(runs):
            made[str(row.get("phase", "training"))] = made.get(str(row.get("phase", "training")), 0) + 1
    parts = [f"{number} of {phase}" for phase, number in made.items()]
    of_each = " in the first run" if len(runs) > 1 else ""
    sentence = f"Epochs made{of_each}: {', '.join(parts)}"
    if training["tolerance"] > 0 and any("label_change" in row for row in history):  # DeepMCAT has no such rule
        few = f"fewer than {100 * training['tolerance']:g} % of the images changed their cluster"
        stopped = any("stopped" in row for row in history)
        sentence += "; training was stopped when " if stopped else "; the rule was not reached to stop when "
        sentence += few
    return f"{sentence}."


def _own_settings(settings: dict[str, Any]) -> str:
    """List the numbers that only this method has."""
    common = ("training", "architecture", "assignment", "n_clusters", "random_state", "device", "runs")
    own: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in common:
            own |= value if isinstance(value, dict) else {name: value}
    if not own:
        return ""
    listed = [f"{name.replace('_', ' ')} {_value(value)}" for name, value in own.items()]
    return f"Further settings: {', '.join(listed)}."


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " / ".join(map(str, value)) if isinstance(value, list) else str(value)


def _augmentation(training: dict[str, Any]) -> str:
    sentences = []
    if words := PREPROCESSING.get(training.get("preprocessing", "")):
        sentences.append(f"Before training, {words}.")
    name = training.get("augmentation", "none")
    if name == "none":
        sentences.append("Images were not changed at random.")
    else:
        sentences.append(f"Images were changed at random by the augmentation “{name}” of the software.")
    return " ".join(sentences)
