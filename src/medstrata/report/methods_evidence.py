"""Sentences of the methods paragraph on evidence: probabilities, refits, the null, associations, activation maps."""

from __future__ import annotations

from typing import Any

from medstrata.evidence.association.clinical_table import IMAGE, PATIENT
from medstrata.evidence.association.effects import RANK_UNITS, RANKS, WELCH, WELCH_SKEWNESS, WELCH_UNITS
from medstrata.evidence.confounders.prediction import FOLDS
from medstrata.evidence.validity.verdict import AGREES, DOUBTFUL, LEVEL, STABLE
from medstrata.report.folder import Maps
from medstrata.report.wording import count, listing, percent, things


def calibration_text(calibration: dict[str, Any], new: bool) -> str:
    """Say how probabilities were calibrated and novel images flagged. ``new``: images the model was not fitted on."""
    sentences = []
    if calibration.get("calibrated"):
        learned = calibration["new" if new else "fit"]
        sentences.append(
            "Probabilities were calibrated by one temperature (Guo, Pleiss et al. 2017), learned from whether readings "
            "of the clusters, on the finished embedding, that did not see a patient put the patient's images into the "
            f"same cluster ({count(learned['comparisons'])} comparisons in {things(learned['patients'], 'patients')})."
        )
    novelty = calibration.get("novelty", {})
    if novelty.get("can_flag"):
        sentences.append(
            "Images were flagged as novel by a conformal p-value of their distance to images of other patients "
            f"(Vovk et al. 2005), at a nominal rate of false alarms of {percent(novelty['false_alarm_rate'])}"
            f"{measured_false_alarms(novelty)}."
        )
    return " ".join(sentences)


def measured_false_alarms(novelty: dict[str, Any]) -> str:
    """Return ", measured ...": how often refits flagged patients whom they had not seen; "" where none could."""
    found = novelty.get("measured")
    if not found:
        return ""
    share, low, high = (f"{100 * found[name]:.1f}" for name in ("mean", "low", "high"))
    return (
        f"; refits flagged {share} % of the images of patients whom they had not seen (95 % interval {low} to {high})"
    )


def validity_text(found: dict[str, Any]) -> str:
    """Say how the clusters were validated; "" where nothing was."""
    if not found:
        return ""
    refits, settings = found["stability"]["refits"], found.get("settings", {})
    share = percent(settings["share_of_patients"]) if "share_of_patients" in settings else "some"
    if found["provisional"]:
        if not refits["patients"]:
            return ""
        return (
            "Stability was looked at provisionally, on the fixed embedding: clusters were read again "
            f"{refits['patients']} times from the images of {share} of the patients and compared by the adjusted Rand "
            "index (Hubert and Arabie 1985). The model was not fitted again, and no cluster was called supported."
        )
    sentences = [_refits(found, share)] if refits["seeds"] + refits["patients"] else []
    if found["null"]:
        sentences.append(_null(found["null"], settings))
    if refits["seeds"] and refits["patients"] and found["null"]:
        sentences.append(
            f"A cluster was called supported where refits agreed (mean adjusted Rand index of at least {AGREES:g} in "
            "both kinds, and with the model on patients that a refit had not seen), the images exceeded those without "
            f"groups in both measures, a tie in one being decided by the other (p ≤ {LEVEL:g}), and both kinds of "
            f"refit found the cluster again with a mean Jaccard index of at least {STABLE:g}; below {DOUBTFUL:g} it "
            "was called not stable (Hennig 2007)."
        )
    if (number := found.get("n_clusters") or {}).get("curves"):
        sentences.append(
            f"Of the number of clusters, {len(number['curves'])} criteria were computed on the embedding (among "
            "them prediction strength, the gap statistic, the silhouette and the Bayesian information criterion of "
            f"mixtures); together they gave {number['recommended']}; {number['used']} were used."
        )
    return " ".join(sentences)


def _refits(found: dict[str, Any], share: str) -> str:
    refits = found["stability"]["refits"]
    kinds = [
        (refits["seeds"], f"{refits['seeds']} times with other random numbers"),
        (refits["patients"], f"{refits['patients']} times on the images of {share} of the patients, drawn at random"),
    ]
    images = things(found["images"], "images")
    if found["patients"] < found["images"]:
        images += f" of {things(found['patients'], 'patients')}"
    return (
        f"The whole fit was repeated {listing([words for number, words in kinds if number])}, on {images}; no "
        "patient was split. Agreement was measured by the adjusted Rand index (Hubert and Arabie 1985), the recovery "
        "of each cluster by the Jaccard index (Hennig 2007)."
    )


def _null(null: dict[str, Any], settings: dict[str, Any]) -> str:
    tried = len(null["replication"]["surrogates"])
    how = ""
    if "splits" in settings:
        shorter = f", {percent(settings['share_of_epochs'])} of the epochs" if "share_of_epochs" in settings else ""
        how = f" ({count(settings['images_in_null'])} images{shorter}, {settings['splits']} divisions into halves)"
    return (
        f"To see whether there were groups at all, the fit was repeated on halves of the patients{how}, and the "
        f"same on {things(tried, 'sets')} of images without groups, drawn from one Gaussian distribution with the mean "
        "and the covariance of the images. Compared were the agreement of both halves (adjusted Rand index) and the "
        "silhouette of images that a fit had not seen (Rousseeuw 1987); p is the share of sets, the images themselves "
        "included, that did at least as well. Groups were told from pieces of a continuum by the dip of unseen images "
        "on the line between neighbouring clusters (Hartigan and Hartigan 1985)."
    )


def technical_text(found: dict[str, Any]) -> str:
    """Say which technical data were compared with the clusters; "" where none were."""
    kinds = (found.get("confounders") or {}).get("kinds", [])
    entries = [entry for kind in kinds for entry in kind["associations"]]
    if not entries:
        return ""
    names = [
        f"{number} {words}"
        for origin, words in (("header", "from the headers"), ("pixels", "measured on the pixels"))
        if (number := len({entry["column"] for entry in entries if entry["origin"] == origin}))
    ]
    text = (
        f"The clusters were compared with technical data ({listing(names)}) by {_tests(entries)}, with one image of "
        "each patient, and corrected for multiple testing (Benjamini and Hochberg 1995)."
    )
    if any(kind[key] for kind in kinds for key in ("headers", "pixels")):
        text += (
            " How well these data tell the cluster was measured by ridge regression, as balanced accuracy in "
            f"{FOLDS}-fold cross-validation by patient."
        )
    return text


def rule_text(found: dict[str, Any]) -> str:
    """Say by which rule numbers were tested one way or the other; "" where none were tested."""
    kinds = (found.get("confounders") or {}).get("kinds", [])
    clinical = (found.get("associations") or {}).get("associations", [])
    tests = [str(entry["test"]) for part in (*(kind["associations"] for kind in kinds), clinical) for entry in part]
    if not any(test.startswith((WELCH, RANKS)) for test in tests):
        return ""
    return (
        f"Numbers were tested by {WELCH} where every cluster had at least {WELCH_UNITS} values and the values about "
        f"their cluster's mean, in units of its standard deviation, a skewness of at most {WELCH_SKEWNESS:g} either "
        f"way, else by the {RANKS} test, its p-value by permutation where a cluster had fewer than {RANK_UNITS} values."
    )


def clinical_text(found: dict[str, Any]) -> str:
    """Say how clinical data were compared with the clusters; "" where none were given."""
    clinical = found.get("associations")
    entries = [entry for entry in clinical["associations"] if entry["test"]] if clinical else []
    if not clinical or not entries:
        return ""
    unit = clinical.get("unit", PATIENT)  # older files name none
    sentences = [
        f"Clinical data of {things(clinical['patients'], f'{unit}s')} were compared with the clusters by "
        f"{_tests(entries)}.",
        _counted(clinical, unit),
        f"All {clinical['tests']} tests were corrected together (Benjamini and Hochberg 1995) at a false discovery "
        f"rate of {percent(clinical['level'])}; nothing was adjusted for.",
    ]
    if unused := sum(clinical["rows_not_used"].values()):
        sentences.append(f"Of the table, {things(unused, 'rows')} could not be used.")
    return " ".join(sentences)


def _counted(clinical: dict[str, Any], unit: str) -> str:
    """Say what the unit of the tests was."""
    text = "The unit was the patient, counted in the cluster where most of the patient's images were."
    if unit == IMAGE:
        text = "The unit was the image."
    if clinical["mixed"]:
        text += f" {things(clinical['mixed'], 'patients')} had images in several clusters."
    return " ".join(filter(None, (text, clinical.get("caution", ""))))


def _tests(entries: list[dict[str, Any]]) -> str:
    """Name the tests and the effect sizes that were used."""
    tests = listing(sorted({str(entry["test"]).replace(", by", " by") for entry in entries}))
    effects = listing(sorted({str(entry["effect_name"]) for entry in entries if entry["effect_name"]}))
    text = f"{tests} (effect sizes: {effects}, with 95 % bootstrap intervals)" if effects else tests
    return text.replace("Cramér's V", "bias-corrected Cramér's V, Bergsma 2013")


def maps_text(maps: Maps | None) -> str:
    """Say how activation maps were made and tested; "" where none were."""
    rule = str(maps.summary.get("rule", "")) if maps else ""
    if maps is None or not rule:
        return ""
    source = " (Sundararajan et al. 2017)" if rule.startswith("Integrated gradients") else ""
    text = f"Activation maps were made of {things(maps.index.num_rows, 'images')}: {_uncapitalised(rule)}{source}."
    if maps.check:
        controls = len(maps.check.get("controls", {}))
        text += (
            f" They were tested on {things(maps.check['images'], 'images')} beside {things(controls, 'kinds')} of map "
            "that know nothing of the clusters."
        )
    return text


def _uncapitalised(words: str) -> str:
    return words[:1].lower() + words[1:]
