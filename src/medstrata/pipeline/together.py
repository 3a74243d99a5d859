"""The stage fit in several processes that torchrun started: the first leads, the others take part in the training."""

from __future__ import annotations

import os

from medstrata.learning.comm import joined
from medstrata.pipeline.job import Job
from medstrata.pipeline.runner import run_stage
from medstrata.pipeline.stages import NAMES, STAGES


def fit_together(job: Job, redo: bool = False) -> None:
    """Do the stage fit of a run folder that all processes see.

    The first process holds the folder, says what happens and writes all files. It tells the others when there is
    something to train, and at last that there is nothing more.

    Raises
    ------
    RunFolderError, FitError : as ``run_stage``; and where another process ended
    """
    with joined() as comm:
        if comm.rank == 0:
            job.comm = comm
            # A start after a rank was lost goes on from the checkpoint, which doing the stage anew would delete.
            run_stage("fit", job, redo=redo and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0)
        follower = Job(job.folder, device=job.device, comm=comm)
        while comm.world > 1 and comm.first(lambda: False):
            STAGES[NAMES.index("fit")].work(follower)
