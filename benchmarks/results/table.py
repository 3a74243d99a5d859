"""write table"""

from pathlib import Path


def write_table(cells: Path, document: Path) -> None:
    """Write."""
