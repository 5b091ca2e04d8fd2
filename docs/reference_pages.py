"""Pages of the site that are generated: the notebook, commands, keys, models, API."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from pathlib import Path

import generate
from record_tables import table

import reszoo
from reszoo.cli.main import COMMANDS, Parser
from reszoo.config.recipe import TABLES
from reszoo.config.schema import FILE

HIDE_CONTENTS = "---\nhide: [toc]\n---\n"
"""Front matter of a page without sections, whose table needs the width."""

API = {
    "Models": "build features count spec Spec list_models freeze grow stack "
    "register_shortcut register_block",
    "Published weights": "list_weights convert",
    "Recipes": "load_recipe list_recipes Recipe",
    "Training": "train train_seeds compare tune Run load_model Hosts",
    "Evaluation, export and serving": "evaluate predict explain export preprocessing "
    "Preprocessing Server",
    "Errors": "ReszooError",
}
"""The public names by subject."""


def commands() -> str:
    """Describe every command of the command line, from its argument parser."""
    sections = [
        "# Command line",
        "After reading this page you know every command of `reszoo` and its options.\n"
        "`reszoo COMMAND --help` prints the same text.",
        table(
            "command | what it does",
            [f"[`{name}`](#reszoo-{name}) | {COMMANDS[name]}" for name in COMMANDS],
        ),
    ]
    for name, summary in COMMANDS.items():
        parser = Parser(prog=f"reszoo {name}", allow_abbrev=False)
        importlib.import_module(f"reszoo.cli.{name.replace('-', '_')}").add_arguments(parser)
        sections.append(f"## reszoo {name}\n\n{summary[:1].upper()}{summary[1:]}.")
        sections += _options(parser)
    return "\n\n".join(sections)


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Return the usage of a command and of its subcommands, each with a table of arguments."""
    usage = parser.format_usage().removeprefix("usage: ").rstrip()
    sections, rows = [f"```text\n{usage}\n```"], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                sections += [f"### {parser.prog} {name}", *_options(child)]
        elif action.help != argparse.SUPPRESS and action.dest != "help":
            if action.nargs == 0:
                names = ", ".join(action.option_strings)
            else:
                value = action.metavar or "|".join(map(str, action.choices or ())) or action.dest
                value = " ".join(value) if isinstance(value, tuple) else value
                names = ", ".join(f"{each} {value}" for each in action.option_strings) or value
            help = (action.help or "") % (vars(action) | {"prog": parser.prog})
            rows.append(f"`{names}`".replace("|", "\\|") + f" | {_escape(help)}")
    if rows:
        sections.insert(1, table("argument | meaning", rows))
    return sections


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def recipe_keys() -> str:
    """Describe every key of a recipe, table by table."""
    sections = [
        "# Recipe keys",
        "After reading this page you know every key of a recipe, its values and its default.\n"
        f"An editor can check recipes with the [JSON Schema](../../recipes/{FILE}).\n"
        "[Training](../training.md) explains what the keys do.",
    ]
    for name in TABLES:
        sections += [f"## [{name}]", generate.keys(Path(__file__), name)]
    return "\n\n".join(sections)


def models() -> str:
    """List every model of the catalog with its size."""
    lines = []
    for name in reszoo.list_models():
        spec, size = reszoo.spec(name), reszoo.count(name)
        shape = "x".join(map(str, spec.default_input_shape))
        alias = "" if spec.name == name else f"`{spec.name}`"
        numbers = f"{size.depth} | {size.parameters:,} | {size.macs / 1e6:,.1f}"
        lines.append(f"`{name}` | {numbers} | {shape} | {spec.shortcut} | {spec.order} | {alias}")
    headers = "model | depth | parameters | million MACs | image | shortcut | order | same as"
    return "\n\n".join(
        [
            HIDE_CONTENTS + "# Table of models",
            "After reading this page you know the size and the cost of every listed model.\n"
            "`reszoo list` prints the same models, `reszoo show NAME` the parts of one.\n"
            "Costs are for one image of the given shape; 1 MAC is one multiply-add.\n"
            "[Models](../zoo.md) explains names and fields.",
            table(headers, lines),
        ]
    )


def weights() -> str:
    """List the published weights."""
    lines = []
    for row in reszoo.list_weights():
        top5 = "" if row.top5 is None else f"{row.top5:g}"
        image = "x".join(map(str, row.transforms.image_size))
        lines.append(f"`{row.model}` | `{row.tag}` | {row.data} | {image} | {row.top1:g} | {top5}")
    return "\n\n".join(
        [
            HIDE_CONTENTS + "# Table of published weights",
            "After reading this page you know which weights `weights=` and `--weights` accept.\n"
            "Accuracies are in percent, for one crop. The publishers state them; those of `mlperf` "
            "and of weights in the package were measured here.\n"
            "[Published weights](../weights.md) explains how they are found and checked.",
            table("model | tag | dataset | image | top-1 | top-5", lines),
        ]
    )


def python() -> str:
    """List the public functions and classes, for mkdocstrings."""
    sections = [
        "# Python API",
        "After reading this page you know every public function and class of `reszoo`.\n"
        "A name is imported when it is first used, so `import reszoo` takes no time.",
    ]
    for subject, names in API.items():
        sections += [f"## {subject}", *(f"::: reszoo.{name}" for name in names.split())]
    return "\n\n".join(sections)


def notebook() -> str:
    """Show the notebook with its outputs, as Markdown and HTML."""
    name = "why_residual.ipynb"
    parts = []
    for cell in json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                parts.append(f"<div>\n{''.join(data['text/html'])}\n</div>")
            elif "image/png" in data:
                parts.append(f'<img alt="Figure" src="data:image/png;base64,{data["image/png"]}">')
            else:
                text = "".join(output.get("text") or data["text/plain"]).strip()
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join([*parts, f"[Download this notebook]({name}).", ""])


PAGES: dict[str, Callable[[], str]] = {
    "notebook.md": notebook,
    "reference/cli.md": commands,
    "reference/recipe-keys.md": recipe_keys,
    "reference/models.md": models,
    "reference/weights.md": weights,
    "reference/python.md": python,
}
"""What makes each page of the site, by its path below docs/."""
