"""Offers the writer of synthetic run folders to the tests of the report."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

# Tests are imported by path (importmode=importlib), so a helper beside them is no module that they could import.
_NAME = "run_folder"
_spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).with_name(f"{_NAME}.py"))
assert _spec is not None and _spec.loader is not None
sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[_NAME])
