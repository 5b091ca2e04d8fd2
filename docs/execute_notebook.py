"""Execute docs/why_residual.ipynb in a new kernel and store its outputs, in a few minutes.

python docs/execute_notebook.py
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "why_residual.ipynb"


def execute(path: Path = NOTEBOOK) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a new kernel."""
    notebook = nbformat.read(path, as_version=4)
    options = {"timeout": 600, "record_timing": False, "coalesce_streams": True}
    NotebookClient(notebook, kernel_name="python3", **options).execute()
    shorten(notebook)
    return notebook


def shorten(notebook: nbformat.NotebookNode) -> None:
    """Keep each output in its richest form only, without the temporary folder of this execution."""
    notebook.metadata.language_info = {"name": "python"}  # without the version
    folder = re.compile(re.escape(tempfile.gettempdir()) + r"/\w+/")
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "text" in output:
                output.text = folder.sub("", output.text)
            elif {"text/html", "image/png"} & output.data.keys():
                output.data.pop("text/plain", None)


if __name__ == "__main__":
    nbformat.write(execute(), NOTEBOOK)
