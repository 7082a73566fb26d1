"""How results are kept: one CSV a measurement, in results/."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows as CSV: columns in the order in which rows name them, floats to seven digits, empty what a row lacks."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        table.writeheader()
        table.writerows(
            {key: f"{value:.7g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV as text; none if there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
