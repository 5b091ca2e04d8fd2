"""Search spaces: what values become as a recipe, conditions, budgets, and one line for each invalid input."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import keras_tuner
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo.cli.main import main
from reszoo.cli.tune import find_search
from reszoo.config.load import load_recipe
from reszoo.config.tomlfile import write
from reszoo.errors import ReszooError
from reszoo.tuning.config import SearchConfig, parse_amount
from reszoo.tuning.hyperparameters import Choice, Range
from reszoo.tuning.oracle import _convert
from reszoo.tuning.plan import Plan
from reszoo.tuning.space import Space, load_space, space_folder, space_names
from reszoo.zoo.count import count
from tests.tuning.helpers import DATA

HEAD = 'recipe = "quickstart"\n'


def space_of(text: str, tmp_path: Path, *overrides: str, **search: Any) -> Space:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + text)
    return load_space(path, overrides, **search)


# The packaged spaces


@pytest.mark.parametrize("name", space_names())
def test_every_combination_of_a_packaged_space_is_a_recipe(name: str) -> None:
    """Its conditions leave nothing that the zoo rejects; a plain model has no zero_gamma."""
    space = load_space(name)
    assert Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space and space.description
    assert Plan(space, DATA, space.base.train.epochs).units == 27
    text = (space_folder() / f"{name}.toml").read_text()
    assert f"#     reszoo tune {name}" in text and "# Device: " in text
    rows = [
        list(each.options) if isinstance(each, Choice) else [each.low, each.high]
        for each in space.hyperparameters
    ]
    names = [each.name for each in space.hyperparameters]
    seen = set()
    for row in itertools.product(*rows):
        values = space.canonical(dict(zip(names, row, strict=True)))
        recipe = space.recipe(values)
        spec = recipe.model.spec
        assert spec.shortcut == values["model.shortcut"] and spec.depths == (int(values["n"]),) * 3
        assert recipe.schedule.rate == values["schedule.rate"]
        assert spec.widths[0] == int(values["width"]) == spec.stem_width
        assert spec.zero_gamma == (values["model.zero_gamma"] == "true")
        if spec.shortcut == "none" or spec.order == "pre":
            assert not spec.zero_gamma and "model.zero_gamma" not in space.active(values)
        seen.add(repr(recipe))
    # Shortcut none: 2 orders; each of three others: post with and without zero_gamma, and pre.
    assert len(seen) == (2 + 3 * 3) * 2 * len(rows[names.index("n")]) * 2


# Hyperparameters

number = st.floats(0.001, 1000).map(lambda value: float(f"{value:.3g}"))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_values_and_fractions_are_kerastuners(data: Any) -> None:
    """Independent: KerasTuner maps fractions to values and back on its own."""
    whole, log = data.draw(st.booleans()), data.draw(st.booleans())
    low = data.draw(st.integers(1, 50) if whole else number)
    high = data.draw(st.integers(low + 1, 2000) if whole else number.filter(lambda x: x > low))
    step = data.draw(st.sampled_from([0, 2, 3])) if log or whole else 0
    ours: Any = Range(name="train.x", low=low, high=high, log=log, step=step)
    if data.draw(st.booleans()):
        ours = Choice(name="n", options={str(i): {"a.b": i} for i in range(data.draw(st.integers(1, 9)))})  # fmt: skip
    recipe = load_recipe("quickstart")
    space = Space(name="x", base=recipe, hyperparameters=(ours,), search=SearchConfig())
    (theirs,) = _convert(space).space
    fraction = data.draw(st.floats(0, 1, exclude_max=True))
    value, expected = ours.value_at(fraction), theirs.prob_to_value(fraction)
    assert value == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-3))
    assert isinstance(ours, Choice) or isinstance(value, int) == whole
    assert ours.fraction_of(value) == pytest.approx(theirs.value_to_prob(value), abs=1e-9)
    assert isinstance(theirs, keras_tuner.engine.hyperparameters.HyperParameter)


CONDITIONED = """
[space]
model.shortcut = ["none", "A"]
model.order = { choices = ["post", "pre"], when = { model.shortcut = ["A"] } }
model.zero_gamma = { choices = [false, true], when = { model.order = "post" } }
train.batch_size = { low = 16, high = 64, log = true, step = 2 }
[space.n.options]
1 = { model.name = "resnet8" }
3 = { model.name = "resnet20" }
[space.block]
options.basic = { model.block = "basic" }
options.bottleneck = { model.block = "bottleneck" }
when = { n = { low = 2 } }
"""


def test_a_hyperparameter_is_active_under_its_condition_and_those_it_implies(
    tmp_path: Path,
) -> None:
    space = space_of(CONDITIONED, tmp_path)
    plain: dict[str, Any] = {"model.shortcut": "none", "model.order": "pre"}
    plain |= {"model.zero_gamma": "true", "train.batch_size": 32, "n": "1", "block": "bottleneck"}
    inactive = {"model.order": "post", "model.zero_gamma": "false", "block": "basic"}
    assert space.canonical(plain) == plain | inactive
    assert list(space.active(plain)) == ["model.shortcut", "train.batch_size", "n"]
    pre = plain | {"model.shortcut": "A", "n": "3"}
    assert list(space.active(pre)) == ["model.shortcut", "model.order", "train.batch_size", "n", "block"]  # fmt: skip
    spec = space.recipe(pre).model.spec
    assert (spec.order, spec.zero_gamma, spec.block) == ("pre", False, "bottleneck")
    found = list(space.product())
    # none; A pre; A post without and with zero_gamma, each with 3 batch sizes, and 3 models.
    assert len(found) == 4 * 3 * 3 == len({repr(space.recipe(values)) for values in found})
    assert {values["train.batch_size"] for values in found} == {16, 32, 64}


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_two_sets_of_values_are_the_same_trial_exactly_if_their_recipes_are(data: Any) -> None:
    space = load_space("depth_shortcut")
    draw = {
        each.name: each.value_at(data.draw(st.floats(0, 1, exclude_max=True)))
        for each in space.hyperparameters
    }
    one, changes = space.canonical(draw), {"model.shortcut": data.draw(st.sampled_from("AB"))}
    other = space.canonical({**draw, "model.zero_gamma": "true", **changes})
    assert space.canonical(one) == one
    assert (space.recipe(one) == space.recipe(other)) == (one == other)


def test_two_hyperparameters_may_set_one_key_if_their_conditions_exclude_each_other(
    tmp_path: Path,
) -> None:
    text = """
[space]
optimizer.name = ["sgd", "adam"]
[space.kind]
options.low = { schedule.warmup = 1 }
options.high = { schedule.warmup = 2 }
when = { optimizer.name = "sgd" }
[space.slow]
options.a = { schedule.rate = 0.1 }
options.b = { schedule.rate = 0.2 }
when = { kind = "low" }
[space.fast]
options.a = { schedule.rate = 0.001 }
options.b = { schedule.rate = 0.002 }
when = { optimizer.name = "adam" }
"""
    rates = [space_of(text, tmp_path).recipe(v).schedule.rate for v in space_of(text, tmp_path).product()]  # fmt: skip
    base = load_recipe("quickstart").schedule.rate
    assert rates == [0.1, 0.2, base, 0.001, 0.002]
    with pytest.raises(ReszooError, match=r"space.slow and space.fast both set schedule.rate"):
        space_of(text.replace('when = { optimizer.name = "adam" }', ""), tmp_path)


def test_choices_keep_their_types_and_lists(tmp_path: Path) -> None:
    text = "[space]\nmodel.depths = [[1, 1, 1], [2, 2, 2]]\noptimizer.momentum = [0.5, 0.9]\naugment.pad = [1, 2]\n"
    space = space_of(text, tmp_path)
    assert space.hyperparameters[0].all_values() == ["[1, 1, 1]", "[2, 2, 2]"]
    values = {"model.depths": "[2, 2, 2]", "optimizer.momentum": "0.5", "augment.pad": "2"}
    tables = space.recipe(values).to_dict()
    assert tables["model"]["depths"] == [2, 2, 2]
    assert tables["optimizer"]["momentum"] == 0.5 and tables["augment"]["pad"] == 2


def test_the_base_is_the_recipe_with_its_overrides_and_requested_settings_win(
    tmp_path: Path,
) -> None:
    text = 'set = ["train.epochs=3"]\n[search]\ntuner = "grid"\nseed = 4\n[space]\nschedule.rate = [0.1, 0.2]\n'
    space = space_of(text, tmp_path, "train.batch_size=8", tuner="random", trials=None)
    assert space.base == load_recipe("quickstart", ["train.epochs=3", "train.batch_size=8"])
    assert space.search == SearchConfig(tuner="random", seed=4)
    (tmp_path / "own.toml").write_text(load_recipe("lab_digits").to_toml())
    path = tmp_path / "beside.toml"
    path.write_text('recipe = "own.toml"\n[space]\nschedule.rate = [0.1, 0.2]\n')
    assert load_space(path).base == load_recipe("lab_digits")


# Budgets, without building a model


def test_a_model_over_budget_is_rejected_by_its_published_count(tmp_path: Path) -> None:
    text = '[space.n.options]\n3 = { model.name = "resnet20" }\n18 = { model.name = "resnet110" }\n'
    data = {**DATA, "input_shape": (32, 32, 3)}

    def rejected(**search: Any) -> list[str]:
        plan = Plan(space_of(text, tmp_path, **search), data, 27.0)
        return [n for n in ("3", "18") if plan.reason_against({"n": n})]

    # Table 6 of arXiv 1512.03385 gives 0.27 M and 1.7 M parameters.
    assert rejected(max_params=1_000_000) == ["18"] == rejected(max_macs=41_000_000)
    assert rejected(max_params=2_000_000) == [] and rejected(max_params=100_000) == ["3", "18"]
    exact = count("resnet20", (32, 32, 3), 10)
    assert rejected(max_params=exact.parameters) == ["18"] == rejected(max_macs=exact.macs)
    assert "3" in rejected(max_params=exact.parameters - 1)
    assert "3" in rejected(max_macs=exact.macs - 1)


def test_contradictory_values_are_rejected(tmp_path: Path) -> None:
    text = '[space]\nmodel.shortcut = ["none", "A"]\nmodel.zero_gamma = [false, true]\n'
    space = space_of(text, tmp_path)
    reasons = [Plan(space, DATA, 27.0).reason_against(values) for values in space.product()]
    assert [bool(reason) for reason in reasons] == [False, True, False, False]
    assert "zero_gamma" in reasons[1]


@given(
    st.one_of(st.text(max_size=8), st.sampled_from(["1M", "2.5M", "500k", "1_000", "1G", "1.5"]))
)
def test_amounts(text: str) -> None:
    known = {"1M": 10**6, "2.5M": 2_500_000, "500k": 500_000, "1_000": 1000, "1G": 10**9}
    try:
        assert parse_amount(text) == known.get(text, parse_amount(text)) >= 0
    except ReszooError as error:
        assert "expected an amount" in str(error) and text not in known


# Invalid input, each with its line

LATE = '[space]\nmodel.zero_gamma = { choices = [true], when = { model.shortcut = ["A"] } }\nmodel.shortcut = ["A"]\n'
ELSE = '[space]\nmodel.shortcut = ["none", "A"]\nmodel.order = { choices = ["pre"], when = { model.shortcut = ["D"] } }\n'
SAME = '[space.n.options]\n1 = { model.name = "resnet8" }\n[space.model]\nname = ["resnet20", "resnet32"]\n'
ONE = "[space]\nschedule.rate = [0.1]\n"
BAD = {
    "spcae: unknown key; did you mean 'space'?": "[spcae]\nx = [1]\n",
    "space: missing; expected a table of keys": "",
    "space.model.shortct: model.shortct: unknown key; did you mean 'shortcut'": '[space]\nmodel.shortct = ["A"]\n',
    "space.model.shortcut.choices: missing or not alone": '[space]\nmodel.shortcut = { choices = ["A"], low = 1 }\n',
    "space.schedule.rate.low: 0.2 is invalid; expected a number below high = 0.1": "[space]\nschedule.rate = { low = 0.2, high = 0.1 }\n",
    "low: 0 is invalid; expected a number > 0 with log = true": "[space]\nschedule.rate = { low = 0, high = 0.1, log = true }\n",
    "log: 1 is invalid; expected true or false": "[space]\nschedule.rate = { low = 0.1, high = 0.2, log = 1 }\n",
    "high: missing; expected an integer": "[space]\nschedule.rate = { low = 0.1 }\n",
    "step: 1.5 is invalid; expected an integer": "[space]\ntrain.batch_size = { low = 1, high = 5, step = 1.5 }\n",
    "unknown recipe key; did you mean 'schedule.rate'": "[space]\nschedule.rat = [0.1]\n",
    "space.rate.choices: expected options, or a recipe key": "[space]\nrate = [0.1, 0.2]\n",
    "when.model.shortcut: expected a hyperparameter with choices that stands before": LATE,
    'when.model.shortcut: ["D"] is invalid; expected some of none, A': ELSE,
    "train.seed: cannot be searched": "[space]\ntrain.seed = [0, 1]\n",
    "data.validation: cannot be searched, because every trial is scored on the same": "[space]\ndata.validation = [10, 20]\n",
    "train.select: cannot be searched, because it decides what a score is": '[space]\ntrain.select = ["last", "best"]\n',
    "published.value: cannot be searched": "[space]\npublished.value = [1, 2]\n",
    "space.n and space.model.name both set model.name": SAME,
    "search: 3 is invalid; expected a table": 'search = 3\n' + ONE,
    "expected a name without / and line breaks": '[space."tuner/x".options]\na = { schedule.rate = 0.1 }\n',
    "train.batch_size: 8.0 is invalid; expected an integer": "[space]\ntrain.batch_size = { low = 8.0, high = 64.0 }\n",
    "'nonet'": '[space]\nmodel.name = ["resnet20", "nonet"]\n',
    "is invalid; expected a list of values": "[space]\nmodel.widths = [{ a = 1 }]\n",
    "expected other values than options.a": "[space.n.options]\na = { schedule.rate = 0.1 }\nb = { schedule.rate = 0.1 }\n",
    "expected a label that can be printed": '[space.n.options]\n"a\\nb" = { schedule.rate = 0.1 }\n',
    "expected different values": "[space]\nschedule.rate = [0.1, 0.1]\n",
    'search.tuner: "randon" is invalid; expected one of "random"': '[search]\ntuner = "randon"\n' + ONE,
    "search.trials: -1 is invalid; expected an integer >= 0": "[search]\ntrials = -1\n" + ONE,
    'train.epochs: "x" is invalid; expected a number >= 0': '[space]\ntrain.epochs = ["x"]\n',
    "space.schedule.rate.choices: 3 is invalid": "[space]\nschedule.rate = 3\n",
    'options.a: "b" is invalid; expected a recipe key': "[space]\nn.options.a = { b = 1 }\n",
    "chioces: unknown key; did you mean 'choices'": "[space]\nschedule.rate = { chioces = [0.1], when = {} }\n",
}  # fmt: skip


@pytest.mark.parametrize("line", BAD, ids=list(BAD))
def test_an_invalid_space_is_rejected_in_one_line_that_names_it(line: str, tmp_path: Path) -> None:
    with pytest.raises(ReszooError) as caught:
        space_of(BAD[line], tmp_path)
    message = str(caught.value)
    assert line in message and "mine.toml" in message and "\n" not in message


leaf = st.one_of(st.integers(-3, 3), st.floats(allow_nan=False, width=16), st.booleans(), st.sampled_from(["A", "none", ""]))  # fmt: skip
value = st.one_of(leaf, st.lists(leaf, max_size=3))
keys = st.sampled_from(["choices", "options", "low", "high", "log", "step", "when", "model.name"])
entry = st.one_of(value, st.dictionaries(keys, st.one_of(value, st.dictionaries(keys, value, max_size=2)), max_size=4))  # fmt: skip
names = st.sampled_from(["model.shortcut", "schedule.rate", "n", "train.epochs", "model.depths"])


@settings(max_examples=150, deadline=None)
@given(tables=st.dictionaries(names, entry, min_size=1, max_size=3))
def test_no_space_file_ends_in_a_traceback(
    tables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("space") / "mine.toml"
    try:
        path.write_text(write({"recipe": "quickstart", "space": tables}))
        space = load_space(path)
    except ReszooError as error:
        assert "\n" not in str(error)
        return
    assert Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space


# The command line

CLI = [
    ("", "space: missing; expected depth_shortcut"),
    ("--resume", "--run-dir: missing; expected the folder of a search, as tune/ holds none"),
    ("--export best.toml", "--run-dir: missing"),
    ("--run-dir somewhere", "somewhere: add --resume to resume this search, or --export FILE"),
    ("depth_shortcu", "reszoo: no space 'depth_shortcu'; did you mean 'depth_shortcut'"),
    ("luck", "no space 'luck'; expected one that `reszoo tune --help` lists, or a file that ends"),
    ("depth_shortcut --max-params lots", '"lots" is invalid; expected an amount such as 1M'),
    ("depth_shortcut --trials -2", "search.trials: -2 is invalid; expected an integer >= 0"),
    ("depth_shortcut --set train.epochs=x", 'train.epochs: "x" is invalid; expected a number'),
    ("depth_shortcut --set schedule.rate=1", "schedule.rate: depth_shortcut searches it"),
    ("depth_shortcut --tuner luck", "invalid choice: 'luck'"),
    ("nowhere/mine.toml", "no file nowhere/mine.toml"),
]


@pytest.mark.parametrize(("arguments", "line"), CLI)
def test_invalid_arguments_are_reported_before_tensorflow_loads(
    arguments: str,
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reszoo.cli.tune.load_tensorflow", None)
    assert main(["tune", *arguments.split()]) == 2
    message = capsys.readouterr().err
    assert line in message and message.count("\n") == 1 and "Traceback" not in message


def test_the_newest_search_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("new", "old", "older")):
        path = tmp_path / "tune" / name / "search.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (1000 - age, 1000 - age))
    newest = (None, Path("tune/new"))
    assert find_search(None, None, True, False) == find_search(None, None, False, True) == newest
    assert find_search("tune/old", None, True, False) == (None, Path("tune/old"))
    assert find_search(None, Path("there"), True, True) == (None, Path("there"))
    assert find_search("mine.toml", None, False, True) == ("mine.toml", Path("tune/mine"))
