"""Sizes and costs of the papers' models, by arithmetic."""

from __future__ import annotations

import os

from reszoo.lab.record import claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.reporting.page import Page, Section, Table
from reszoo.types import JsonObject
from reszoo.zoo.catalog import spec
from reszoo.zoo.count import count

MILLIONS = (
    *("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"),
    *("resnet164_v2", "resnet1001_v2", "wrn28_10", "wrn40_4", "wrn16_8"),
    *("resnet50", "resnext50_32x4d", "se_resnet50", "resnet50_d"),
)
GIGAMACS = (
    *("resnet18", "resnet34", "resnet50_v1", "resnet101_v1", "resnet152_v1"),
    *("resnet50_v1_5", "resnet50_d", "se_resnet50", "resnext50_32x4d"),
)


def sizes(out: str | os.PathLike[str], *, quiet: bool = False) -> JsonObject:
    """Count the papers' models; return the record of `out`.

    Args:
        out: The folder of the experiment.
        quiet: Has no effect; the experiment prints nothing.

    Raises:
        ReszooError: For a folder that holds another experiment.
    """
    folder = claim_folder(out, "sizes", {})
    measures = {f"{name}_millions": count(name).parameters / 1e6 for name in MILLIONS}
    measures |= {f"{name}_gigamacs": count(name).macs / 1e9 for name in GIGAMACS}
    dropped = spec("resnet110_sd")
    blocks = sum(dropped.depths)
    measures["resnet110_sd_expected_blocks"] = sum(map(dropped.survival, range(blocks)))
    early = count("se_resnet50", stride_at="conv1")
    measures["se_resnet50_stride_in_first_gigamacs"] = early.macs / 1e9
    measures["shortcut_a_parameters"] = count("resnet56").parameters - count("plain56").parameters
    measures["se_resnet50_extra_share"] = (
        count("se_resnet50").parameters / count("resnet50").parameters - 1
    )
    record = write_record(folder, "sizes", settings={}, results={"measures": measures})
    write_report(folder)
    return record


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `sizes` wrote."""
    measures = record["results"]["measures"]
    rows = [[name.replace("_", " "), f"{value:,.4g}"] for name, value in measures.items()]
    note = (
        "millions: of trained weights. gigamacs: 10^9 MACs for one image (1 MAC = 1 multiply-add)."
    )
    finding = f"{len(rows)} sizes and costs, counted without building a model."
    return Page(
        "Sizes of the papers' models", finding, [Section("Counts", [Table([], rows, note)])]
    )
