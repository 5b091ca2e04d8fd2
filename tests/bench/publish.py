"""Keep an experiment under docs/results: `python tests/bench/publish.py LAB_FOLDER docs/results/lab/NAME`.

Copies the record, the folders of this machine taken out of its paths, and draws its figures (PNG) again from the copy.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from reszoo.files import write_text
from reszoo.lab.record import read_record
from reszoo.lab.report import report


def tidy(value: Any) -> Any:
    """Return `value` with the folders before the last name of every absolute path in its texts left out."""
    if isinstance(value, dict):
        return {key: tidy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tidy(item) for item in value]
    return re.sub(r"(^|(?<=[ :='\"]))/[^ ]*/(?=[^/ ])", "", value) if isinstance(value, str) else value


def main(source: str, target: str) -> None:
    folder = Path(target)
    write_text(folder / "record.json", json.dumps(tidy(read_record(source)), ensure_ascii=False) + "\n")
    report(folder)
    for path in (*folder.glob("*.svg"), folder / "report.html"):
        path.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
