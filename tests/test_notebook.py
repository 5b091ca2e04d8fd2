"""docs/why_residual.ipynb and training in the kernel of a notebook."""

from __future__ import annotations

import ast
import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import reszoo

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "why_residual.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def check_outputs(cells: list[dict[str, Any]]) -> None:
    """Check that the outputs are results: neither errors nor what libraries print."""
    outputs = [output for cell in cells for output in cell["outputs"]]
    kinds = {output["output_type"] for output in outputs}
    assert kinds == {"stream", "display_data", "execute_result"}
    assert {output["name"] for output in outputs if "name" in output} == {"stdout"}
    text = json.dumps(outputs)
    assert "equal outputs: True" in text and '<progress value=\\"60\\" max=\\"60\\">' in text
    assert text.count("image/png") >= 2  # a figure and the curves of a result


def test_the_stored_notebook_is_executed_and_small() -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    check_outputs(CODE)


def test_the_code_of_the_notebook_uses_public_names() -> None:
    names = {
        node.attr
        for cell in CODE
        for node in ast.walk(ast.parse("".join(cell["source"])))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "reszoo"
    }
    assert names <= set(reszoo.__all__)
    assert names >= {"build", "count", "train", "grow"}


def environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Set what the kernel inherits: this checkout, and no level of TensorFlow's log."""
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    for name in [name for name in os.environ if name.startswith("TF_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    environment(monkeypatch, tmp_path)
    monkeypatch.syspath_prepend(str(DOCS))
    check_outputs(
        [
            cell
            for cell in importlib.import_module("execute_notebook").execute().cells
            if cell.cell_type == "code"
        ]
    )


@pytest.mark.slow
def test_an_interrupted_cell_stops_with_a_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manager = pytest.importorskip("jupyter_client.manager")
    environment(monkeypatch, tmp_path)
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        client.execute('import reszoo\nreszoo.train("quickstart", run_dir="run")')
        text, errors, interrupted, deadline = "", [], False, time.monotonic() + 300
        while time.monotonic() < deadline:
            message = client.get_iopub_msg(timeout=120)
            content = message["content"]
            if message["msg_type"] == "stream":
                text += content["text"]
                errors += [content["text"]] * (content["name"] == "stderr")
            elif message["msg_type"] == "error":
                errors.append(content["evalue"])
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
            if "epoch    1" in text and not interrupted:
                kernel.interrupt_kernel()
                interrupted = True
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert not errors
    assert "stopped at step " in text
    assert "resume with: reszoo.train('run/recipe.toml', run_dir='run', resume=True)" in text
    assert reszoo.Run.open("run").meta["status"] == "stopped"
