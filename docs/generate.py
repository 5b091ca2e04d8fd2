"""Write the parts of the documentation that come from code and records.

    python docs/generate.py            rewrite the pages and recipes/recipe.schema.json
    python docs/generate.py --check    change nothing; exit status 1 if a file is out of date

Such a part of a page is between `<!-- generated: NAME ARGUMENT ... -->` and `<!-- end -->`, where
NAME is one of `GENERATORS`.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import record_tables
from pydantic.fields import FieldInfo
from record_tables import table

import reszoo
from reszoo.config.recipe import TABLES
from reszoo.config.schema import FILE, recipe_schema
from reszoo.validation.messages import choices, describe, show
from reszoo.validation.table import Table
from reszoo.zoo.catalog import FAMILIES, RULES
from reszoo.zoo.conflicts import CONFLICTS, ONLY

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKED = re.compile(
    r"^(?P<indent> *)<!-- generated: (?P<what>.*?) -->\n.*?^ *<!-- end -->$",
    re.DOTALL | re.MULTILINE,
)

SIZES = (
    "resnet20 resnet32 resnet44 resnet56 resnet110 resnet1202 resnet110_v2 resnet164_v2 "
    "resnet1001_v2 wrn16_4 wrn16_8 wrn28_10 wrn40_4 resnext29_8x64d resnet18 resnet34 resnet50_v1 "
    "resnet50 resnet101_v1 resnet101 resnet152_v1 resnet152 resnet50_v2 resnet200_v2 resnet50_d "
    "wide_resnet50_2 wide_resnet101_2 resnext50_32x4d resnext101_32x8d se_resnet50"
).split()


def keys(page: Path, name: str) -> str:
    """Describe the keys of a table of a recipe."""
    family = TABLES[name]
    owners = list(family.alternatives())
    lines = []
    fields = family.fields_of_alternatives()
    for key in sorted(fields, key=lambda key: key != family.CHOICE):
        field = fields[key]
        users = [each for each in owners if key in each.model_fields]
        cells = [f"`{key}`", accepted(field), default(field), field.description or ""]
        if key == family.CHOICE:
            cells[1] = ", ".join(f'`"{choice_of(each)}"`' for each in owners)
            cells[2] = f'`"{family.DEFAULT}"`' if family.DEFAULT else "required"
            cells[3] = " ".join(f"{choice_of(each)}: {summary(each)}" for each in owners)
        if family.CHOICE:
            cells.insert(1, ", ".join(map(choice_of, users)) if len(users) < len(owners) else "")
        lines.append(" | ".join(cells))
    only = f"only with {family.CHOICE} | " if family.CHOICE else ""
    return table(f"key | {only}value | default | meaning", lines)


def summary(owner: type[Table]) -> str:
    """Return the first line of a class's docstring, its first letter small unless it is a name."""
    text = (owner.__doc__ or "").partition("\n")[0]
    return text if text[1:2].isupper() or text.startswith("Adam") else text[:1].lower() + text[1:]


def choice_of(owner: type[Table]) -> str:
    """Return the value of the deciding key that chooses a class."""
    return str(next(iter(choices(owner.model_fields[owner.CHOICE])), "module:attribute"))


def accepted(field: FieldInfo) -> str:
    """Return what a field accepts, its texts as code."""
    return re.sub(r'("[^"]*")', r"`\1`", describe(field).removeprefix("one of "))


def default(field: FieldInfo, required: str = "required") -> str:
    """Return the default of a field as code, or `required`."""
    if field.is_required():
        return required
    return "" if field.default is None else f"`{show(field.default)}`"


def fields(page: Path) -> str:
    """Describe the fields of a model's specification."""
    return table(
        "field | value | default | meaning",
        [
            f"`{key}` | {accepted(field)} | {default(field, '')} | {field.description}"
            for key, field in reszoo.Spec.model_fields.items()
            if key != "name"
        ],
    )


def conflicts(page: Path) -> str:
    """List the fields that contradict each other."""
    lines = []
    for names, other, values, reason in CONFLICTS:
        changed = [
            f"`{name}={ONLY[name]!r}`" if name in ONLY else f"`{name}`" for name in names.split()
        ]
        shown = " or ".join(f"`{value!r}`" for value in values)
        lines.append(f"{', '.join(changed)} | `{other}` = {shown} | {reason}")
    return table("field | not with | reason", lines)


def models(page: Path) -> str:
    """List the names of the models."""
    lines = []
    for family in (*RULES, *FAMILIES):
        if isinstance(family.depths, str):
            name = f"`{family.form.format('{d}')}`, d = {family.depths}"
        else:
            name = ", ".join(f"`{model.name}`" for model in family.models)
        lines.append(f"{name} | {family.meaning.replace('{}', '{d}')} | {family.source}")
    return table("name | model | source", lines)


def sizes(page: Path) -> str:
    """Count the main models."""
    return table(
        "model | depth | parameters | million MACs",
        [
            f"`{name}` | {size.depth} | {size.parameters:,} | {size.macs / 1e6:,.1f}"
            for name, size in ((name, reszoo.count(name)) for name in SIZES)
        ],
    )


GENERATORS = {
    each.__name__: each
    for each in (keys, fields, conflicts, models, sizes, *record_tables.GENERATORS)
}


def generate(page: Path, text: str) -> str:
    """Return the text of a page with its generated parts written anew."""

    def write(match: re.Match[str]) -> str:
        name, *arguments = match["what"].split()
        body = GENERATORS[name](page, *arguments)
        made = f"<!-- generated: {match['what']} -->\n\n{body}\n\n<!-- end -->"
        return textwrap.indent(made, match["indent"])

    return MARKED.sub(write, text)


def main() -> int:
    """Write or check all files, and return the exit status."""
    made = {page: generate(page, page.read_text(encoding="utf-8")) for page in PAGES}
    made[ROOT / "recipes" / FILE] = json.dumps(recipe_schema(), indent=1) + "\n"
    stale = [path for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    for path in stale:
        if "--check" in sys.argv[1:]:
            print(
                f"{path.relative_to(ROOT)}: out of date; run python docs/generate.py",
                file=sys.stderr,
            )
        else:
            path.write_text(made[path], encoding="utf-8")
    return int("--check" in sys.argv[1:] and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
