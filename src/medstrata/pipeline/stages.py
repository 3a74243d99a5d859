"""What each stage reads and writes, and what makes it out of date. The work itself stands in the stage's own room."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from medstrata.decisions import FILE as DECISIONS
from medstrata.decisions import read_decided
from medstrata.errors import PlanError
from medstrata.images import planning, store
from medstrata.images.catalog import Catalog, scan, scan_share
from medstrata.images.manifest import Sharding
from medstrata.images.plan import MADE, Plan
from medstrata.methods import METHODS
from medstrata.pipeline import inputs
from medstrata.pipeline.job import Job
from medstrata.pipeline.source_validation import FILE as SOURCE_VALIDATION
from medstrata.run import digest, write_json

OPTIONS = "plan_options"  # in run.json: what the plan was asked for


@dataclass(frozen=True)
class Stage:
    """A stage: the files it writes, the inputs that decide whether it is up to date, and its work.

    ``work`` returns facts for ``run.json`` (numbers and names of software, no paths). ``share`` does the shards of one
    job of a job array and nothing else; None: the stage is not cut into shards that way.
    """

    name: str
    files: tuple[str, ...]
    inputs: Callable[[Job], list[Any]]
    work: Callable[[Job], dict[str, Any]]
    share: Callable[[Job], None] | None = None

    def token(self, job: Job) -> str:
        """Return the token of the stage's inputs as they are now."""
        return digest(self.name, self.inputs(job))


def _scan(job: Job) -> dict[str, Any]:
    source = inputs.source_of(job.folder)
    files = len(inputs.write_listing(job.folder, source))
    sharding = job.sharding("scan", inputs.token(job.folder))
    catalog = scan(source, inputs.salt_of(job.folder), job.readers, job.progress, sharding)
    catalog.write(job.path)
    images = catalog.images().num_rows
    left_out = catalog.table.num_rows - images
    job.say(f"scan: {images} images and {left_out} left out, in {files} files")
    return {"images": images, "left_out": left_out}


def _asked(options: planning.PlanOptions) -> dict[str, Any]:
    usual = vars(planning.PlanOptions())
    return {key: value for key, value in vars(options).items() if value != usual[key]}


def options_of_all_calls(job: Job) -> planning.PlanOptions:
    """Return what this call asks of the plan, over what earlier calls did: a new seed does not change the method."""
    before = job.folder.state().get(OPTIONS, {})
    lists = {key: tuple(value) for key, value in before.items() if isinstance(value, list)}
    return planning.PlanOptions(**(before | lists | _asked(job.options)))


def _plan(job: Job) -> dict[str, Any]:
    plan = planning.make_plan(Catalog.read(job.path), job.options)
    check_method(plan)
    file = job.path / "plan.json"
    file.unlink(missing_ok=True)
    job.folder.note(OPTIONS, _asked(job.options))
    job.folder.note(MADE, vars(plan))  # first: a plan that is there is then known to be ours
    write_json(file, vars(plan))
    return {"scan": job.folder.token("scan")}


def check_method(plan: Plan) -> None:
    """Raise PlanError where the plan names a method that is not there, FitError where its settings are impossible."""
    if plan.method not in METHODS:
        raise PlanError(f"There is no method '{plan.method}'. Choose one of: {', '.join(METHODS)}.")
    own = {"n_clusters", "random_state", "device"} & plan.settings.keys()
    if own:
        raise PlanError(
            f"plan.json: 'settings' holds {sorted(own)[0]}, which is set by the plan's own keys or --device."
        )
    if plan.settings or plan.adjust_for:
        from medstrata.methods.settings import OWN, OWN_IS_TRAINED
        from medstrata.pipeline import fitting

        if fitting.method_of(plan, "cpu").assignment == OWN and plan.adjust_for:
            raise PlanError(f"plan.json: adjust_for is set. {OWN_IS_TRAINED}")


# Keys of the plan that change nothing in the pixels: editing them does not decode again.
_FITTING_KEYS = (
    "method",
    "n_clusters",
    "batch_size",
    "seed",
    "maps_per_cluster",
    "fit_images",
    "augmentation",
    "settings",
    "adjust_for",
    "reasons",
)


def _decode_inputs(job: Job) -> list[Any]:
    decoding = {key: value for key, value in vars(job.plan()).items() if key not in _FITTING_KEYS}
    return [job.folder.token("scan"), decoding]


def _decode(job: Job) -> dict[str, Any]:
    source, catalog = inputs.source_of(job.folder), Catalog.read(job.path)
    sharding = job.sharding("decode", digest(_decode_inputs(job)))
    summary = store.decode(source, catalog, job.plan(), job.path, job.readers, job.progress, sharding)
    job.say(f"decode: {summary.decoded} images decoded, {summary.left_out} left out (left_out.parquet says why)")
    return {"images": summary.decoded, "left_out": summary.left_out}


def _fit_inputs(job: Job) -> list[Any]:
    plan = job.plan()
    chosen = [plan.method, plan.n_clusters, plan.batch_size, plan.seed, plan.augmentation, plan.settings]
    chosen += [plan.fit_images] if plan.fit_images != Plan.fit_images else []  # runs from before there was the key
    vectors = [inputs.features_token(job.folder)] if plan.method == "features" else []
    adjusted = [plan.adjust_for] if plan.adjust_for else []  # so that runs from before there was the key stay done
    return [job.folder.token("decode"), *chosen, *vectors, *adjusted]


def _fit(job: Job) -> dict[str, Any]:
    from medstrata.learning.comm import ALONE  # torch loads here, so that scan and plan do without
    from medstrata.pipeline import fitting

    comm = job.comm or ALONE
    if comm.rank == 0:
        comm.first(lambda: True)  # the other processes wait for this in ``pipeline.together``
    token = digest(_fit_inputs(job))
    return fitting.fit(job.path, job.plan(), job.device, token, job.progress, job.say, comm)


def _assign(job: Job) -> dict[str, Any]:
    from medstrata.pipeline import assigning

    return assigning.assign(job.path, job.device, _sharded_assign(job), job.progress, job.say)


def _sharded_assign(job: Job) -> Sharding:
    return job.sharding("assign", digest(_assign_inputs(job)))


def _assign_inputs(job: Job) -> list[Any]:
    return [job.folder.token("decode"), job.folder.token("fit")]


def _explain(job: Job) -> dict[str, Any]:
    from medstrata.evidence.explain import explain
    from medstrata.evidence.maps.folder import clear
    from medstrata.methods.adjusting import no_maps
    from medstrata.methods.files import load

    model = load(job.path, job.device)
    if reason := no_maps(model):
        job.say(f"explain: {reason}")
        clear(job.path / "maps")
        write_json(job.path / "maps" / "summary.json", {})
    else:
        token = digest(job.folder.token("assign"), job.plan().maps_per_cluster)
        sharding = job.sharding("explain", token)
        explain(job.path, model, job.plan().maps_per_cluster, job.progress, token, sharding)
        drawn = pq.read_metadata(job.path / "maps" / "index.parquet").num_rows
        job.say(f"explain: maps of {drawn} images and of {model.n_clusters_} clusters in maps/")
    return {}


def _validate(job: Job) -> dict[str, Any]:
    from medstrata.pipeline.validation import provisional

    provisional(job.path)
    return {}


def _report(job: Job) -> dict[str, Any]:
    from medstrata.report.page import write_report
    from medstrata.report.wording import things

    write_report(job.path)
    aside = read_decided(job.path).set_aside
    if aside:
        job.say(f"report: not applied, since they are about another fit: {things(aside, 'decisions')} in {DECISIONS}")
    return {}


def _report_inputs(job: Job) -> list[Any]:
    # commands of their own write these
    files = [job.path / name for name in (DECISIONS, "validation.json", SOURCE_VALIDATION)]
    written = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()]
    return [job.folder.token("explain"), vars(job.plan()), *written]


def _scan_share(job: Job) -> None:
    source = inputs.source_of(job.folder)
    inputs.take_listing(job.folder, source)
    scan_share(source, job.sharding("scan", inputs.token(job.folder)), job.progress)


def _decode_share(job: Job) -> None:
    sharding = job.sharding("decode", digest(_decode_inputs(job)))
    store.decode_share(inputs.source_of(job.folder), Catalog.read(job.path), job.plan(), sharding, job.progress)


def _assign_share(job: Job) -> None:
    from medstrata.pipeline import assigning

    assigning.assign_share(job.path, job.device, _sharded_assign(job), job.progress)


STAGES = (
    Stage("scan", ("catalog.parquet",), lambda job: [inputs.token(job.folder)], _scan, _scan_share),
    Stage("plan", ("plan.json",), lambda job: [job.folder.token("scan"), vars(job.options)], _plan),
    Stage("decode", ("pixels.npy", "images.parquet", "left_out.parquet"), _decode_inputs, _decode, _decode_share),
    Stage("fit", ("model.safetensors", "model.json", "history.jsonl", "baselines.parquet"), _fit_inputs, _fit),
    Stage(
        "assign",
        ("embeddings.npy", "soft_assignments.npy", "assignments.parquet", "contradictions.parquet", "calibration.json"),
        _assign_inputs,
        _assign,
        _assign_share,
    ),
    Stage("validate", ("validation.json",), lambda job: [job.folder.token("assign")], _validate),
    Stage(
        "explain",
        ("maps/summary.json",),
        lambda job: [job.folder.token("assign"), job.plan().maps_per_cluster],
        _explain,
    ),
    Stage("report", ("report.html", "model_card.md"), _report_inputs, _report),
)
NAMES = tuple(stage.name for stage in STAGES)
