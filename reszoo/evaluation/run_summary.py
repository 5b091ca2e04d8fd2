"""What `train` returns, and the lines that a run ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reszoo.commands import format_resume
from reszoo.config.model import Published
from reszoo.data.summary import (
    is_imbalanced,
)
from reszoo.evaluation.scores import Scores, one_class_line
from reszoo.reporting.notebook import html_image, html_table, in_notebook
from reszoo.training.run import Run


@dataclass(frozen=True)
class Result:
    """What `train` returns.

    Attributes:
        run: The run folder.
        test: The test scores; None when the run was stopped before its end.
    """

    run: Run
    test: Scores | None

    @property
    def finished(self) -> bool:
        """Whether the run has finished."""
        return self.test is not None

    def _repr_html_(self) -> str:
        """Return the scores and the curves for notebooks."""
        if self.test is None:
            return html_table(("run folder", "status"), [(self.run.path, "stopped")])
        headers, *rows = result_rows(self.run, self.test)
        rows.append(("run folder", str(self.run.path), ""))
        title = " ".join(_warn_of_one_class(self.run, self.test))
        tables = [html_table(headers, rows, title=title), html_table(*self.test.class_table())]
        curves = self.run.path / "curves.png"
        images = [html_image(curves, "Curves of the run")] if curves.is_file() else []
        return "\n".join([*tables, *images])


def describe_result(run: Run, test: Scores) -> list[str]:
    """Return the lines that a run ends with: measured and published values.

    Args:
        run: The finished run.
        test: The scores on the test split.
    """
    rows = result_rows(run, test)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    exported = ", export/" if (run.path / "export").exists() else ""
    confusion = ", confusion.png" if test.confusion else ""
    files = f"curves.png{confusion}, model.keras{exported}"
    return [
        "",
        *lines,
        "",
        *_warn_of_one_class(run, test),
        f"run folder: {run.path}  ({files})",
    ]


def _warn_of_one_class(run: Run, test: Scores) -> list[str]:
    one_class = test.single_class
    return [] if one_class is None else [one_class_line(run.class_names[one_class])]


def error_rows(published: Published | None, test: Scores) -> list[tuple[str, str, str]]:
    """Return (name, measured, published value) of the test error.

    A published error of another test has a row of its own, because it cannot be compared.
    """
    same = published is not None and str(published.views) == test.test
    rows = [("test error", f"{test.error:.2f} %", str(published) if same else "")]
    if published and not same:
        rows.append((f"test error, {published.views}", "not measured", str(published)))
    return rows


def result_rows(run: Run, test: Scores) -> list[tuple[str, str, str]]:
    """Return the headers, then a name, a measured and a published value per row.

    Args:
        run: The finished run.
        test: The scores on the test split.
    """
    published, last = run.recipe.published, run.history[-1]
    rows = [("", "measured", "published" if published else "")]

    def add(name: str, value: str, reference: str = "") -> None:
        rows.append((name, value, reference))

    rows += error_rows(published, test)
    sizes = [sum(row) for row in test.confusion] or [0]
    if min(sizes) and is_imbalanced(sizes):
        largest = sizes.index(max(sizes))
        error = f"{100 * (1 - sizes[largest] / sum(sizes)):.2f} %"
        add(f"test error, always {run.class_names[largest]!r}", error)
    for name, value in test.rows()[2:]:  # the first ones are the images and the error
        add(f"test {name}", value)
    for name, score in test.metrics.items():
        add(f"test {name}", f"{score:.4f}")
    if "val_accuracy" in last:
        add("validation error, last", f"{100 * (1 - last['val_accuracy']):.2f} %")
    add("training error, last", f"{100 * (1 - last['accuracy']):.2f} %")
    add("parameters", f"{run.meta['parameters']:,}")
    add("training time", f"{run.meta['seconds']:.0f} s")
    return rows


def advice_to_resume(run: Run, callbacks: Sequence[str]) -> str:
    """Return how to resume a stopped run with the callbacks of these names, and all objects."""
    meta = run.meta if run.writes else {}
    given = [*(["model"] if "given_model" in meta else []), *meta.get("given", {})]
    path = run.path
    if not callbacks and not given and not in_notebook():
        return f"resume with: {format_resume('train', path)}"
    same = " the same objects" if given else " the same callbacks" if callbacks else ""
    more = f", callbacks=[{', '.join(f'{name}(...)' for name in callbacks)}]" if callbacks else ""
    more += "".join(f", {name}=..." for name in given)
    call = f"reszoo.train({str(path / 'recipe.toml')!r}, run_dir={str(path)!r}, resume=True{more})"
    return f"resume with{same}: {call}"
