"""All errors that medstrata raises on purpose.

    MedstrataError
    |-- InputError        INPUT as a whole cannot be used: empty, no readable image, broken archive, gone
    |-- FileProblem       one file cannot be used: becomes a row with its reason and never stops a run
    |-- PlanError         plan.json has an unknown key or a value that the catalog contradicts
    |-- RunFolderError    OUT cannot be used: other version, other INPUT, in use, disk full, missing stage
    `-- FitError          these images cannot be clustered as asked: K > N, all equal, not finite

Every message says what is wrong, where, and what to do next. The command line prints the message alone and
ends with exit code 1.
"""


class MedstrataError(Exception):
    """Base of all errors below: catch this to catch everything that medstrata raises on purpose."""


class InputError(MedstrataError):
    """INPUT as a whole cannot be used."""


class FileProblem(MedstrataError):
    """One file cannot be used.

    Attributes
    ----------
    code : short snake_case reason, stable across versions (``"no_pixels"``, ``"truncated"``, ...)
    sentence : one plain sentence for people; never holds a path, a name, an id, a date or a UID
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"


class PlanError(MedstrataError):
    """The plan cannot be carried out."""


class RunFolderError(MedstrataError):
    """The run folder OUT cannot be used."""


class FitError(MedstrataError):
    """The images cannot be clustered as asked."""
