"""PyTorch's own files, read where PyTorch is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("RESZOO_PEER", "")


@pytest.mark.peers
@pytest.mark.skipif(not PYTHON, reason="RESZOO_PEER names no Python with torch")
def test_pytorchs_files_are_read_and_nothing_in_them_runs(tmp_path: Path) -> None:
    script = Path(__file__).parent / "read_torch.py"
    done = subprocess.run(
        [PYTHON, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5 and all(line.startswith("DIR/") for line in lines), lines
