"""Spaces: the packaged ones, conditions, what values become as a recipe, and one line for each kind of bad input."""

from __future__ import annotations

import itertools
import json
import math
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo.cli.main import main
from reszoo.cli.tune import choose
from reszoo.config.load import load_recipe
from reszoo.errors import ReszooError
from reszoo.tuning.config import SearchConfig, parse_amount
from reszoo.tuning.knobs import Choice, Range
from reszoo.tuning.plan import Plan
from reszoo.tuning.space import Space, load_space, space_folder, space_names
from reszoo.zoo.count import count

HEAD = 'recipe = "quickstart"\n'
DATA = {
    "name": "digits",
    "input_shape": (8, 8, 1),
    "classes": 10,
    "examples": {"train": 1137, "validation": 300},
}


def space_of(text: str, tmp_path: Path, *overrides: str, **search: Any) -> Space:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + text)
    return load_space(path, overrides, **search)


def refusal(text: str, tmp_path: Path, *overrides: str, **search: Any) -> str:
    with pytest.raises(ReszooError) as caught:
        space_of(text, tmp_path, *overrides, **search)
    line = str(caught.value)
    assert "\n" not in line
    return line


# The packaged spaces


@pytest.mark.parametrize("name", space_names())
def test_a_packaged_space_reads_back_from_json_and_has_its_command(name: str) -> None:
    space = load_space(name)
    assert Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    text = (space_folder() / f"{name}.toml").read_text()
    assert f"#     reszoo tune {name}" in text and "# Device: " in text
    assert space.description


@pytest.mark.parametrize("name", space_names())
def test_every_combination_of_a_packaged_space_is_a_recipe(name: str) -> None:
    """Their conditions leave nothing that the zoo would refuse; a plain net has no zero_gamma."""
    space = load_space(name)
    choices = [
        list(knob.options) if isinstance(knob, Choice) else [knob.low, knob.high]
        for knob in space.knobs
    ]
    names = [knob.name for knob in space.knobs]
    seen = set()
    for combination in itertools.product(*choices):
        values = space.canonical(dict(zip(names, combination, strict=True)))
        recipe = space.recipe(values)
        spec = recipe.model.spec
        assert spec.shortcut == values["model.shortcut"] and spec.depths == (int(values["n"]),) * 3
        assert recipe.schedule.rate == values["schedule.rate"]
        assert spec.widths[0] == int(values["width"]) == spec.stem_width
        assert spec.zero_gamma == (values["model.zero_gamma"] == "true")
        if spec.shortcut == "none" or spec.order == "pre":
            assert not spec.zero_gamma and "model.zero_gamma" not in space.active(values)
        seen.add(repr(recipe))
    every_n, rates = len(choices[names.index("n")]), 2
    # Shortcut none: 2 orders; each of three others: post with and without zero_gamma, and pre.
    assert len(seen) == (2 + 3 * 3) * rates * every_n * 2


def test_the_packaged_spaces_hold_epochs_for_hyperband() -> None:
    for name in space_names():
        space = load_space(name)
        assert Plan(space, DATA, space.base.train.epochs).units == 27


# What values mean

CONDITIONED = """
[space]
model.shortcut = ["none", "A"]
model.order = { choices = ["post", "pre"], when = { model.shortcut = ["A"] } }
model.zero_gamma = { choices = [false, true], when = { model.order = "post" } }
train.batch_size = { low = 16, high = 64, log = true, step = 2 }
[space.n.options]
1 = { model.name = "resnet8" }
3 = { model.name = "resnet20" }
[space.block.options]
basic = { model.block = "basic" }
bottleneck = { model.block = "bottleneck" }
"""


def test_a_knob_acts_only_under_its_condition_and_that_ones(tmp_path: Path) -> None:
    space = space_of(CONDITIONED, tmp_path)
    plain = {
        "model.shortcut": "none",
        "model.order": "pre",
        "model.zero_gamma": "true",
        "train.batch_size": 32,
    }
    plain |= {"n": "3", "block": "basic"}
    assert space.canonical(plain) == plain | {"model.order": "post", "model.zero_gamma": "false"}
    assert list(space.active(plain)) == ["model.shortcut", "train.batch_size", "n", "block"]
    recipe = space.recipe(plain)
    assert (recipe.model.spec.order, recipe.model.spec.zero_gamma) == ("post", False)
    pre = plain | {"model.shortcut": "A"}
    assert (
        "model.zero_gamma" not in space.active(pre) and space.recipe(pre).model.spec.order == "pre"
    )


def test_the_product_is_every_combination_that_differs_once(tmp_path: Path) -> None:
    space = space_of(CONDITIONED, tmp_path)
    found = list(space.product())
    # none; A pre; A post without and with zero_gamma, each with 3 batch sizes, 2 depths, 2 blocks.
    assert len(found) == 4 * 3 * 2 * 2 == len({repr(space.recipe(values)) for values in found})
    assert {values["train.batch_size"] for values in found} == {16, 32, 64}


def test_bounds_in_a_condition_mean_the_numbers_between(tmp_path: Path) -> None:
    text = """
[space.n.options]
1 = { model.name = "resnet8" }
9 = { model.name = "resnet56" }
18 = { model.name = "resnet110" }
[space.block]
options.basic = { model.block = "basic" }
options.bottleneck = { model.block = "bottleneck" }
when = { n = { low = 9 } }
"""
    space = space_of(text, tmp_path)
    assert space.knobs[1].when == {"n": ("9", "18")}
    assert [values["block"] for values in space.product()] == [
        "basic",
        "basic",
        "bottleneck",
        "basic",
        "bottleneck",
    ]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_two_sets_of_values_are_the_same_trial_exactly_if_their_recipes_are(data: Any) -> None:
    space = load_space("depth_shortcut")
    draw = {
        knob.name: data.draw(
            st.sampled_from(list(knob.options))
            if isinstance(knob, Choice)
            else st.floats(knob.low, knob.high)
        )
        for knob in space.knobs
    }
    one = space.canonical(draw)
    assert space.canonical(one) == one
    other = space.canonical(
        {**draw, "model.zero_gamma": "true", "model.shortcut": data.draw(st.sampled_from("AB"))}
    )
    assert (space.recipe(one) == space.recipe(other)) == (one == other)
    rate = one["schedule.rate"]
    assert (
        math.isclose(rate, draw["schedule.rate"], rel_tol=1e-3)
        and len(f"{rate:g}".lstrip("0.")) <= 5
    )


def test_two_knobs_may_set_one_key_where_their_conditions_exclude_each_other(
    tmp_path: Path,
) -> None:
    text = """
[space]
optimizer.name = ["sgd", "adam"]
[space.slow]
options.a = { schedule.rate = 0.1 }
options.b = { schedule.rate = 0.2 }
when = { optimizer.name = "sgd" }
[space.fast]
options.a = { schedule.rate = 0.001 }
options.b = { schedule.rate = 0.002 }
when = { optimizer.name = "adam" }
"""
    space = space_of(text, tmp_path)
    assert [space.recipe(values).schedule.rate for values in space.product()] == [
        0.1,
        0.2,
        0.001,
        0.002,
    ]
    with pytest.raises(ReszooError, match=r"space.slow and space.fast both set schedule.rate"):
        space_of(text.replace('when = { optimizer.name = "adam" }', ""), tmp_path)


def test_conditions_exclude_each_other_through_the_knobs_they_name_too(tmp_path: Path) -> None:
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
    assert len(list(space_of(text, tmp_path).product())) == 2 + 1 + 2


def test_choices_keep_their_types_and_lists(tmp_path: Path) -> None:
    text = "[space]\nmodel.depths = [[1, 1, 1], [2, 2, 2]]\noptimizer.momentum = [0.5, 0.9]\naugment.pad = [1, 2]\n"
    space = space_of(text, tmp_path)
    assert list(space.knobs[0].options) == ["[1, 1, 1]", "[2, 2, 2]"]  # type: ignore[union-attr]
    recipe = space.recipe(
        {"model.depths": "[2, 2, 2]", "optimizer.momentum": "0.5", "augment.pad": "2"}
    )
    assert (
        recipe.model.spec.depths == (2, 2, 2)
        and recipe.optimizer.momentum == 0.5
        and recipe.augment.pad == 2
    )


def test_the_base_is_the_recipe_with_its_sets_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + 'set = ["train.epochs=3"]\n[space]\nschedule.rate = [0.1, 0.2]\n')
    space = load_space(path, ["train.batch_size=8"])
    assert space.base == load_recipe("quickstart", ["train.epochs=3", "train.batch_size=8"])
    own = tmp_path / "own.toml"
    own.write_text(load_recipe("lab_digits").to_toml())
    path.write_text('recipe = "own.toml"\n[space]\nschedule.rate = [0.1, 0.2]\n')
    assert load_space(path).base == load_recipe("lab_digits")


def test_settings_asked_for_go_before_the_files(tmp_path: Path) -> None:
    text = '[search]\ntuner = "grid"\nseed = 4\n[space]\nschedule.rate = [0.1, 0.2]\n'
    assert space_of(text, tmp_path).search == SearchConfig(tuner="grid", seed=4)
    assert space_of(text, tmp_path, tuner="random", trials=None).search == SearchConfig(
        tuner="random", seed=4
    )


# Budgets, by arithmetic


def test_a_net_over_budget_is_refused_by_its_published_count(tmp_path: Path) -> None:
    text = '[space.n.options]\n3 = { model.name = "resnet20" }\n18 = { model.name = "resnet110" }\n'
    data = {**DATA, "input_shape": (32, 32, 3)}
    # Table 6 of arXiv 1512.03385 gives 0.27 M and 1.7 M parameters; by hand 269,722 + projections none, and 1,727,962.
    for budget, refused in ((1_000_000, ["18"]), (2_000_000, []), (100_000, ["3", "18"])):
        plan = Plan(space_of(text, tmp_path, max_params=budget), data, 27.0)
        assert [n for n in ("3", "18") if plan.refusal({"n": n})] == refused
    plan = Plan(space_of(text, tmp_path, max_macs=41_000_000), data, 27.0)
    assert plan.refusal({"n": "3"}) == ""
    assert "multiply-adds, more than 41,000,000" in plan.refusal({"n": "18"})
    exact = count("resnet20", (32, 32, 3), 10)
    for most, own in (("max_params", exact.parameters), ("max_macs", exact.multiply_adds)):
        for budget in (own, own - 1):
            plan = Plan(space_of(text, tmp_path, **{most: budget}), data, 27.0)
            assert (plan.refusal({"n": "3"}) == "") == (budget == own)


def test_a_contradiction_is_a_refusal(tmp_path: Path) -> None:
    space = space_of(
        '[space]\nmodel.shortcut = ["none", "A"]\nmodel.zero_gamma = [false, true]\n', tmp_path
    )
    plan = Plan(space, DATA, 27.0)
    found = {
        values["model.shortcut"] + values["model.zero_gamma"]: plan.refusal(values)
        for values in space.product()
    }
    assert [key for key, reason in found.items() if reason] == ["nonetrue"]
    assert "zero_gamma would silence a block" in found["nonetrue"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1M", 10**6), ("2.5M", 2_500_000), ("500k", 500_000), ("200000", 200_000), ("1G", 10**9)],
)
def test_amounts(text: str, number: int) -> None:
    assert parse_amount(text) == number


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=8))
def test_what_is_no_amount_is_told_so(text: str) -> None:
    try:
        assert parse_amount(text) >= 0
    except ReszooError as error:
        assert "amount" in str(error)


# Bad input, each with the line it must earn

LATE = '[space]\nmodel.zero_gamma = { choices = [true], when = { model.shortcut = ["A"] } }\nmodel.shortcut = ["A"]\n'
ELSE = '[space]\nmodel.shortcut = ["none", "A"]\nmodel.order = { choices = ["pre"], when = { model.shortcut = ["D"] } }\n'
SAME = '[space.n.options]\n1 = { model.name = "resnet8" }\n[space.model]\nname = ["resnet20", "resnet32"]\n'
BAD = {
    "no key spcae; did you mean 'space'?": '[spcae]\nx = [1]\n',
    "the table [space] is missing or empty": "",
    "space.model.shortct: model.shortct: unknown key; did you mean 'shortcut'": '[space]\nmodel.shortct = ["A"]\n',
    "space.model.shortcut: give exactly one of": '[space]\nmodel.shortcut = { choices = ["A"], low = 1 }\n',
    "space.schedule.rate: low is 0.2 and high is 0.1, but low must be below high": "[space]\nschedule.rate = { low = 0.2, high = 0.1 }\n",
    "must be above 0": "[space]\nschedule.rate = { low = 0, high = 0.1, log = true }\n",
    "unknown recipe key; did you mean 'schedule.rate'": "[space]\nschedule.rat = [0.1]\n",
    "space.rate: choices need a recipe key": "[space]\nrate = [0.1, 0.2]\n",
    "which is no knob that stands before it": LATE,
    "when says model.shortcut = D, which is none of none, A": ELSE,
    "train.seed cannot be searched": "[space]\ntrain.seed = [0, 1]\n",
    "data.validation cannot be searched: every trial is scored on the same images": "[space]\ndata.validation = [10, 20]\n",
    "train.select cannot be searched: it decides what a score is": '[space]\ntrain.select = ["last", "best"]\n',
    "space.n and space.model.name both set model.name": SAME,
    "search must be a table": 'search = 3\n[space]\nschedule.rate = [0.1]\n',
    "a knob's name has no / and no line breaks": '[space."tuner/x".options]\na = { schedule.rate = 0.1 }\n',
    "train.batch_size: 8.0 is invalid; expected an integer": "[space]\ntrain.batch_size = { low = 8.0, high = 64.0 }\n",
    "no net 'nonet'": '[space]\nmodel.name = ["resnet20", "nonet"]\n',
    "choices must be a list of values": "[space]\nmodel.widths = [{ a = 1 }]\n",
    "published.value changes nothing that is trained": "[space]\npublished.value = [1, 2]\n",
    "option a sets what another sets too": "[space.n.options]\na = { schedule.rate = 0.1 }\nb = { schedule.rate = 0.1 }\n",
    "is no name for an option": '[space.n.options]\n"a\\nb" = { schedule.rate = 0.1 }\n',
    "two choices are the same": "[space]\nschedule.rate = [0.1, 0.1]\n",
    'search.tuner: "randon" is invalid; expected one of "random"': '[search]\ntuner = "randon"\n[space]\nschedule.rate = [0.1]\n',
    "search.trials: -1 is invalid; expected an integer >= 0": "[search]\ntrials = -1\n[space]\nschedule.rate = [0.1]\n",
    'train.epochs: "x" is invalid; expected a number >= 0': '[space]\ntrain.epochs = ["x"]\n',
    "is no knob": "[space]\nschedule.rate = 3\n",
    "option a sets b, which is no recipe key": "[space]\nn.options.a = { b = 1 }\n",
    "no key chioces": "[space]\nschedule.rate = { chioces = [0.1], when = {} }\n",
}  # fmt: skip


@pytest.mark.parametrize("line", BAD, ids=list(BAD))
def test_a_bad_space_is_refused_in_one_line_that_names_it(line: str, tmp_path: Path) -> None:
    told = refusal(BAD[line], tmp_path)
    assert line in told and "mine.toml" in told


def test_an_override_of_what_is_searched_is_refused(tmp_path: Path) -> None:
    told = refusal("[space]\nschedule.rate = [0.1, 0.2]\n", tmp_path, "schedule.rate=0.3")
    assert told == "schedule.rate: it is searched by mine, so an override is invalid; remove it"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_space_file_ends_in_a_traceback(
    data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    leaf = st.one_of(
        st.integers(-3, 3),
        st.floats(allow_nan=False, width=16),
        st.booleans(),
        st.sampled_from(["A", "none", ""]),
    )
    value = st.one_of(leaf, st.lists(leaf, max_size=3))
    keys = st.sampled_from(
        ["choices", "options", "low", "high", "log", "step", "when", "model.name"]
    )
    knob = st.one_of(
        value,
        st.dictionaries(
            keys, st.one_of(value, st.dictionaries(keys, value, max_size=2)), max_size=4
        ),
    )
    names = st.sampled_from(
        ["model.shortcut", "schedule.rate", "n", "train.epochs", "model.depths"]
    )
    from reszoo.config.tomlfile import write

    told = data.draw(st.dictionaries(names, knob, min_size=1, max_size=3))
    try:
        text = write({"recipe": "quickstart", "space": told})
    except ReszooError:
        return
    tomllib.loads(text)
    path = tmp_path_factory.mktemp("space") / "mine.toml"
    path.write_text(text)
    try:
        space = load_space(path)
    except ReszooError as error:
        assert "\n" not in str(error)
        return
    assert Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    for knob_of in space.knobs:
        assert isinstance(knob_of, Choice | Range)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["tune"], "reszoo: which space? Give its name, depth_shortcut"),
        (
            ["tune", "--resume"],
            "which search? There is none under tune/; give its folder with --run-dir",
        ),
        (["tune", "--export", "best.toml"], "which search? There is none under tune/"),
        (
            ["tune", "--run-dir", "somewhere"],
            "somewhere: add --resume to resume this search, or --export FILE",
        ),
        (
            ["tune", "depth_shortcu"],
            "reszoo: no space 'depth_shortcu'; did you mean 'depth_shortcut'",
        ),
        (
            ["tune", "depth_shortcut", "--max-params", "lots"],
            'reszoo: "lots" is invalid; expected a whole amount such as 1M',
        ),
        (
            ["tune", "depth_shortcut", "--trials", "-2"],
            "search.trials: -2 is invalid; expected an integer >= 0",
        ),
        (
            ["tune", "depth_shortcut", "--set", "train.epochs=x"],
            'train.epochs: "x" is invalid; expected a number',
        ),
        (["tune", "depth_shortcut", "--tuner", "luck"], "invalid choice: 'luck'"),
        (["tune", "nowhere/mine.toml"], "no file nowhere/mine.toml"),
    ],
)
def test_what_is_typed_wrong_is_told_before_tensorflow_loads(
    argv: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1 and "Traceback" not in told


def test_the_newest_search_is_the_one_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("new", "old", "older")):
        (tmp_path / "tune" / name).mkdir(parents=True)
        (tmp_path / "tune" / name / "search.json").write_text("{}")
        os.utime(tmp_path / "tune" / name / "search.json", (1000 - number, 1000 - number))
    assert (
        choose(None, None, True, False)
        == choose(None, None, False, True)
        == (None, Path("tune/new"))
    )
    assert choose("tune/old", None, True, False) == (None, Path("tune/old"))
    assert choose(None, Path("there"), True, True) == (None, Path("there"))
    assert choose("mine.toml", None, False, True) == ("mine.toml", Path("tune/mine"))
