"""`--set table.key=value`: changes to a recipe's tables, each checked where it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reszoo.errors import ReszooError, did_you_mean
from reszoo.training import tomlfile
from reszoo.training.config import FINETUNE_FIELDS, OPTIMIZER_FIELDS, SCHEDULE_FIELDS
from reszoo.training.fields import convert, hints

# Tables with a key that leaves some of the others nothing to do: that key, and under which of its values each acts.
CHOOSERS: dict[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "augment": ("crop", {"pad": ("pad",), "scale": ("scale",), "area": ("inception",)}),
    "optimizer": ("name", OPTIMIZER_FIELDS),
    "schedule": ("kind", SCHEDULE_FIELDS),
    "finetune": ("freeze", FINETUNE_FIELDS),
}


def flag(text: str) -> str:
    """Return an override as a person typed it, on one line."""
    return f"--set {text if text.isprintable() else ascii(text)}"


def override(tables: Mapping[str, Any], overrides: Sequence[str], configs: Mapping[str, type]) -> dict[str, Any]:
    """Return a recipe's tables with `table.key=value` overrides applied; types are checked, combinations not yet.

    configs: the dataclass of each table but [model], whose keys are checked by the zoo. Where a key that chooses
    (train.steps or train.epochs, schedule.kind, optimizer.name, augment.crop, finetune.freeze) is given, what the
    file says for another choice is dropped.

    Raises ReszooError in one line that begins with the override at fault.
    """
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tables.items()}
    given: dict[str, dict[str, Any]] = {}
    for text in overrides:
        try:
            table, key, value = _read(text, configs)
        except ReszooError as error:
            raise ReszooError(f"{flag(text)}: {error}") from None
        given.setdefault(table, {})[key] = value
    for table, values in given.items():
        for key in _dropped(table, values) - values.keys():
            result.get(table, {}).pop(key, None)
        result[table] = result.get(table, {}) | values
    return result


def _dropped(table: str, values: Mapping[str, Any]) -> set[str]:
    """Return the keys of a file's table that lose their meaning where `values` are given."""
    if table == "train":
        return {"steps": {"epochs"}, "epochs": {"steps"}}.get("".join(values.keys() & {"steps", "epochs"}), set())
    chooser, allowed = CHOOSERS.get(table, ("", {}))
    return {key for key, kinds in allowed.items() if chooser in values and values[chooser] not in kinds}


def _read(text: str, configs: Mapping[str, type]) -> tuple[str, str, Any]:
    """Return (table, key, value) of a `table.key=value`, its key known and its value of the right type."""
    name, equals, spelt = text.partition("=")
    if not equals:
        raise ReszooError("give it as table.key=value, such as train.epochs=2")
    name, spelt = name.strip(), spelt.strip()
    table, _, key = name.partition(".")
    value = tomlfile.parse_value(spelt)
    if table == "model" and key:
        return table, key, spelt if key == "name" and not isinstance(value, str) else value
    keys = {f"{table}.{key}": hint for table, config in configs.items() for key, hint in hints(config).items()}
    if name not in keys:
        same = [known for known in keys if known.split(".")[1] == name]
        near = f"; did you mean {' or '.join(map(repr, same))}?" if same else did_you_mean(name, [*keys, "model.name"])
        raise ReszooError(
            f"no key {name!r}{near or '; keys are ' + ', '.join(f'{t}.KEY' for t in ['model', *configs])}"
        )
    # Digits and the like are TOML, but where text is wanted they are meant as they were typed.
    as_typed = keys[name] is str and not isinstance(value, str)
    return table, key, convert(spelt if as_typed else value, keys[name], name)
