"""The shape of the code: imports go one way, the front door is small and quick, files and functions stay short."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import medstrata
from medstrata.methods import METHODS
from medstrata.methods.method import ClusteringMethod
from medstrata.methods.settings import make_method

PACKAGE = Path(medstrata.__file__).parent
# A room may import itself and every room before it.
ROOMS = [
    "_version",
    "errors",
    "run",
    "decisions",
    "images",
    "learning",
    "methods",
    "evidence",
    "report",
    "simulation",
    "pipeline",
    "commands",
    "cli",
    "__main__",
]
FREE_OF_TORCH = ["images", "report", "simulation"]
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> Iterator[str]:
    """Yield what a module imports from medstrata, anywhere in it, but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("medstrata"):
            yield from (
                f"{node.module}.{alias.name}" if node.module == "medstrata" else node.module for alias in node.names
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("medstrata"))


def name_of(path: Path) -> str:
    parts = ("medstrata", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    own = room(name_of(path))
    if not own:  # the front door names everything, lazily
        return
    for imported in imports(path):
        if room(imported):
            assert ROOMS.index(room(imported)) <= ROOMS.index(own), f"{name_of(path)} imports {imported}"


def test_no_module_imports_in_a_circle() -> None:
    known = {name_of(path) for path in MODULES}
    graph = {name_of(path): {name for name in imports(path) if name in known} for path in MODULES if name_of(path)}
    graph.pop("medstrata")
    seen: dict[str, int] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in seen:
            for other in graph.get(module, set()) - {module, "medstrata"}:
                visit(other, (*trail, module))
            seen[module] = 1

    for module in graph:
        visit(module, ())


def test_exported_names_are_there_and_documented() -> None:
    assert len(set(medstrata.__all__)) == len(medstrata.__all__) <= 20
    for name in medstrata.__all__:
        assert getattr(medstrata, name) is not None
        assert name == "__version__" or getattr(medstrata, name).__doc__
    with pytest.raises(AttributeError):
        medstrata.nothing  # noqa: B018


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_functions_and_parameters_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 320
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and room(name_of(path)) != "commands":
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is long"


def test_methods_are_one_level_below_a_short_base() -> None:
    assert len((PACKAGE / "methods" / "method.py").read_text(encoding="utf-8").splitlines()) < 200
    for name in METHODS:
        assert type(make_method(name, {})).__bases__ == (ClusteringMethod,)


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, medstrata; print([m for m in ('torch', 'numpy', 'pydicom', 'pyarrow') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_reading_images_and_reporting_do_without_torch() -> None:
    names = [name_of(path) for path in MODULES if room(name_of(path)) in FREE_OF_TORCH]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names}]; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_idle_threads_sleep_whatever_is_imported_first() -> None:
    code = "import medstrata, os; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "PASSIVE"
