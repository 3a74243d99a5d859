"""How much ``medstrata validate`` does. Apart from the work, so that the command line loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ValidationSettings:
    """How much is fitted again: ``refits`` of each kind (``evidence.validity.stability``), ``surrogates`` for the null.

    At least three and nineteen are needed to support anything.
    """

    refits: int = 3
    surrogates: int = 19
