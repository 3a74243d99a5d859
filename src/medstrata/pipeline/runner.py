"""Carry out stages: all of them (``run_pipeline``), one (``run_stage``), or those that sort new images.

A stage is done again only when what goes into it has changed, or when it is asked for.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from medstrata.decisions import copy_decisions
from medstrata.errors import RunFolderError
from medstrata.images import planning
from medstrata.images.catalog import Catalog
from medstrata.images.plan import MADE, describe
from medstrata.images.selection import check_plan
from medstrata.pipeline import inputs
from medstrata.pipeline.job import Job
from medstrata.pipeline.source_validation import copy_verdict
from medstrata.pipeline.stages import NAMES, OPTIONS, STAGES, Stage, check_method, options_of_all_calls
from medstrata.pipeline.validation_settings import ValidationSettings
from medstrata.run import RunFolder, digest, flocked, read_json

COPIED = "copied"  # the token of a plan that belongs to a copied model
READ_PRIVATE = ("scan", "plan", "decode")  # the stages that read OUT/private/


def run_pipeline(input_path: Path | str, out: Path | str, *, redo: str | None = None, **settings: Any) -> Path:
    """Do everything: ``INPUT`` -> ``OUT/report.html``; return the report's path.

    What is up to date is skipped; ``redo`` names a stage to repeat, with all after it. ``settings`` are the fields of
    ``Job`` (``options``, ``device``, ``features``, ``workers``, ``executor``, ``address``, ``progress``, ``say``).

    Raises
    ------
    InputError, PlanError, RunFolderError, FitError : each with what to do next
    """
    job = Job(RunFolder(Path(out)), **settings)
    inputs.check_places(Path(input_path), job.path)
    with job.held():
        inputs.connect(job.folder, Path(input_path))
        if redo is not None:
            _forget_from(job, redo)
        inputs.check_unchanged(job.folder)
        if job.features is not None:
            inputs.take_features(job.folder, job.features)
        for stage in STAGES:
            _do(stage, job)
    return job.path / "report.html"


def run_stage(name: str, job: Job, *, input_path: Path | None = None, redo: bool = False) -> None:
    """Do one stage of a run folder (``scan`` makes the folder and needs ``input_path``).

    Raises
    ------
    RunFolderError : not a run folder, or an earlier stage has not been done
    """
    _check_places(job, input_path)
    with job.held():
        if input_path is not None:
            inputs.connect(job.folder, input_path)
        _check_earlier(name, job)
        if redo:
            _forget_from(job, name)
        if name == "scan":
            inputs.check_unchanged(job.folder)
        _do(STAGES[NAMES.index(name)], job)


def run_share(name: str, job: Job, *, input_path: Path | None = None) -> None:
    """Do the shards of one job of a job array (``job.share``); the whole stage afterwards finds them done.

    Raises
    ------
    RunFolderError : not a run folder, an earlier stage has not been done, or a run has the folder for itself
    """
    stage = STAGES[NAMES.index(name)]
    _check_places(job, input_path)
    with job.held():
        if input_path is not None:
            with flocked(job.folder.private / ".connect.lock"):
                inputs.connect(job.folder, input_path)
        _check_earlier(name, job)
        if job.folder.is_done(name, stage.token(job), stage.files):
            job.say(f"{name}: up to date")
            return
        assert stage.share is not None, "the command line offers shares of stages that have some"
        stage.share(job)
        job.say(
            f"{name}: share {job.share.number} of {job.share.of} is done; when all are, run the same without --shards"
        )


def assign_new(model_folder: Path, input_path: Path, job: Job, *, redo: bool = False) -> None:
    """Sort new images with the model of an existing run into a run folder of their own; that run is never touched.

    The plan is copied, so that new images come onto the model's grid with the model's intensity rules; pseudonyms are
    made with the same salt. What that run found of its clusters is copied, and what a person decided about them as long
    as nobody has decided anything in the new folder. ``redo``: take in what has changed in the new images.

    Raises
    ------
    RunFolderError : no finished run in ``model_folder``; NEW_OUT is the same folder
    """
    from medstrata.pipeline import copied_model

    trained = RunFolder(model_folder)
    if not trained.token("assign"):
        raise RunFolderError(f"{model_folder} holds no finished run. Run: medstrata run INPUT OUT")
    if read_json(model_folder / "model.json")["method"] == "features":
        raise RunFolderError(
            "This model clusters vectors, not pixels. From Python: medstrata.load(OUT).predict(new_vectors)."
        )
    if trained.path.resolve() == job.path.resolve():
        raise RunFolderError("NEW_OUT is the folder of the model. Choose another folder for the new images.")
    inputs.check_places(input_path, job.path)
    with job.held():
        inputs.connect(job.folder, input_path, salt_from=trained)
        if redo:
            job.forget_shards()
            job.folder.forget(NAMES)
        inputs.check_unchanged(job.folder)
        _do(STAGES[0], job)
        copied_model.copy_plan(model_folder, job.path)
        if job.folder.token("plan") != COPIED:
            job.folder.mark("plan", COPIED, 0.0)
        _do(STAGES[2], job)
        token = digest("copied", trained.token("fit"), trained.token("assign"))
        if job.folder.token("fit") != token:
            copied_model.copy_model(model_folder, job.path)
            job.folder.mark("fit", token, 0.0)
        copy_verdict(model_folder, job.path)
        if not copy_decisions(model_folder, job.path):
            job.say("decisions: NEW_OUT has some of its own, so those of the model's run are not copied")
        for stage in STAGES[4:]:
            if stage.name != "validate":  # the clusters are those of the model, and were validated with it
                _do(stage, job)


def validate_run(job: Job, settings: ValidationSettings) -> None:
    """Validate a finished run with refits (``pipeline.validation``), and write the report again.

    Raises
    ------
    RunFolderError : not a finished run, or the model was fitted in another folder
    """
    from medstrata.pipeline.validation import validate

    if not (job.path / "run.json").exists():
        raise RunFolderError(f"{job.path} is not a run folder. Begin with: medstrata run INPUT OUT")
    if job.folder.token("plan") == COPIED:
        raise RunFolderError(
            f"{job.path} holds new images, sorted by the model of another run. Validate that run instead."
        )
    with job.held():
        for earlier in STAGES[: NAMES.index("assign") + 1]:
            _check_current(earlier, job)
        started = time.monotonic()
        found = validate(job.path, job.device, settings, job.progress, job.say)
        stage = STAGES[NAMES.index("validate")]
        job.folder.mark(
            stage.name,
            stage.token(job),
            time.monotonic() - started,
            refits=found["stability"]["refits"]["seeds"],
            surrogates=len(found["null"]["replication"]["surrogates"]) if found["null"] else 0,
        )
        _do(STAGES[NAMES.index("report")], job)


def _do(stage: Stage, job: Job) -> None:
    """Do one stage, or say that it is up to date."""
    kept = stage.name == "plan" and _keep_plan(job)
    if stage.name == "plan" and not kept:
        job.options = options_of_all_calls(job)
    if kept:
        job.say("plan: kept as it stands")
    elif job.folder.is_done(stage.name, token := stage.token(job), stage.files):
        job.say(f"{stage.name}: up to date")
    else:
        # A stage that is killed midway is not done, nor what was made from its files. A plan alone touches no file of
        # another stage: those that none of its changed keys concern stay done.
        job.folder.forget(("plan",) if stage.name == "plan" else NAMES[NAMES.index(stage.name) :])
        started = time.monotonic()
        facts = stage.work(job)
        job.folder.mark(stage.name, token, time.monotonic() - started, **facts)
        job.forget_shards(stage.name)
    if stage.name == "plan":
        for decision, value, reason in describe(job.plan(), job.folder.state().get(MADE)):
            job.say(f"  {decision:<18} {value}" + (f"   {reason}" if reason else ""))


def _check_places(job: Job, input_path: Path | None) -> None:
    """Raise an error where OUT is no run folder, or INPUT and OUT cannot stand together."""
    if input_path is not None:
        inputs.check_places(input_path, job.path)
    elif not (job.path / "run.json").exists():
        raise RunFolderError(f"{job.path} is not a run folder. Begin with: medstrata scan INPUT OUT")


def _check_earlier(name: str, job: Job) -> None:
    """Raise an error where a stage before ``name`` has to be done first, or again.

    What was scanned stands in private/. Where that was removed it can no longer change, and from the fit on nothing
    reads it.
    """
    known = name in READ_PRIVATE or inputs.has_listing(job.folder)
    for earlier in STAGES[0 if known else 1 : NAMES.index(name)]:
        _check_current(earlier, job)


def _check_current(stage: Stage, job: Job) -> None:
    """Raise RunFolderError where an earlier stage is missing or was done with other inputs than the present ones."""
    token = job.folder.token(stage.name)
    copied = job.folder.token("plan") == COPIED
    if copied and stage.name in ("fit", "validate"):  # both were done in the folder of the model
        return
    if not token:
        raise RunFolderError(f"{stage.name} has not been done in {job.path}. Run: medstrata {stage.name} OUT")
    if stage.name == "plan":  # whatever the plan says now is what later stages are compared with
        return
    if token != stage.token(job):
        raise RunFolderError(
            f"{stage.name} was done with another plan or other inputs than OUT holds now. "
            f"Run: medstrata {stage.name} OUT"
        )


def _edited(job: Job) -> bool:
    """Whether plan.json differs from what this program wrote."""
    file = job.path / "plan.json"
    return file.exists() and read_json(file) != job.folder.state().get(MADE)


def _keep_plan(job: Job) -> bool:
    """An edited plan is honoured, and a plan made with options stands when a later call repeats none of them.

    Raises
    ------
    RunFolderError : the plan was edited and options that it may contradict are given
    """
    plain = job.options == planning.PlanOptions()
    if _edited(job):
        if not plain:
            raise RunFolderError(
                "plan.json was edited by hand, and options that belong to the plan are given too. "
                "Leave the options out to use the edited plan, or add --redo plan to make a new one."
            )
        check_plan(job.plan(), Catalog.read(job.path))
        check_method(job.plan())
        if not job.folder.token("plan"):
            job.folder.mark("plan", "edited", 0.0)
        return True
    record = job.folder.state()["stages"].get("plan", {})
    return bool(plain and record and record.get("scan") == job.folder.token("scan"))


def _forget_from(job: Job, name: str) -> None:
    """Forget a stage and all after it. A plan that was not edited goes with the scan, an edited one stays."""
    if name not in NAMES:
        raise RunFolderError(f"There is no stage {name!r}. The stages are: {', '.join(NAMES)}.")
    if name == "plan":
        job.folder.note(OPTIONS, {})
    if name == "plan" or (name == "scan" and not _edited(job)):
        (job.path / "plan.json").unlink(missing_ok=True)
    if NAMES.index(name) <= NAMES.index("fit"):
        inputs.forget_checkpoints(job.path)
    job.forget_shards()
    job.folder.forget(NAMES[NAMES.index(name) :])
