"""PyTorch's checkpoints: what is read besides tensors, what is refused by the name of its type, and that nothing is ever run."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reszoo.errors import ReszooError
from reszoo.weights.checkpoint import read_arrays
from reszoo.weights.torch_file import flatten, load_torch, to_array

from .wrapped import ARRAYS, check_same, loaded, under

torch = pytest.importorskip("torch", reason="PyTorch's own files need PyTorch")

HARMLESS: dict[str, Any] = {
    "namespace": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("a/b")),
    "simple namespace": types.SimpleNamespace(lr=0.1),
    "numpy scalar": np.float64(93.5),
    "numpy integer": np.int32(4),
    "numpy boolean": np.bool_(True),
    "numpy array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "numpy text": np.array(["a", "b"]),
    "numpy dtype": np.dtype("float32"),
    "numpy type": np.float32,
    "date": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    "duration": datetime.timedelta(seconds=3),
    "set": {1, 2},
    "frozen set": frozenset({1}),
    "complex": 1 + 2j,
    "bytes": b"abc",
    "default dictionary": collections.defaultdict(list, a=[1]),
    "ordered": collections.OrderedDict(a=1),
    "counter": collections.Counter("aab"),
    "slice": slice(1, 2),
    "range": range(3),
    "path": pathlib.Path("/data/x"),
    "torch size": torch.Size([1, 2]),
    "torch dtype": torch.float16,
    "device": torch.device("cpu"),
}


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_types_beside_the_weights_are_read(
    kind: str, zipped: bool, tmp_path: Path
) -> None:
    held = {"state_dict": tensors(under("module.")), "args": HARMLESS[kind]}
    torch.save(held, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_arrays(tmp_path / "a.pth")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


def test_older_and_newer_names_of_the_same_types_are_read(tmp_path: Path) -> None:
    """NumPy 1 pickled as numpy.core, NumPy 2 as numpy._core; Python 3.13 as pathlib._local."""
    torch.save({"state_dict": tensors(ARRAYS), "best": np.float64(1), "path": pathlib.PurePosixPath("x")}, tmp_path / "a.pth",
               _use_new_zipfile_serialization=False)  # fmt: skip
    contents = (tmp_path / "a.pth").read_bytes()
    swaps = [
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
        (b"cpathlib\n", b"cpathlib._local\n"),
    ]
    for one, other in swaps:
        assert (one in contents) != (other in contents)
        contents = contents.replace(one, other) if one in contents else contents.replace(other, one)
    (tmp_path / "b.pth").write_bytes(contents)
    assert read_arrays(tmp_path / "b.pth").keys() == ARRAYS.keys()


class Harmful:
    """Writes a file when it is unpickled freely."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (pathlib.Path.touch, (self.path,))


class Shell:
    """Runs a command when it is unpickled freely."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        import os

        return (os.system, (f"touch {self.path}",))


class Evaluate:
    """Runs Python when it is unpickled freely."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (eval, (f"open({str(self.path)!r}, 'w').close()",))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (Shell, "(posix|os)\\.system"),
        (Evaluate, r"(__builtin__\.|builtins\.|)eval"),
        (Harmful, "(getattr|pathlib)"),
    ],
)
def test_a_file_that_runs_a_program_is_rejected_by_name_and_runs_nothing(
    harm: Any, named: str, zipped: bool, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    held = {"state_dict": tensors(ARRAYS), "args": harm(trace)}
    torch.save(held, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ReszooError, match=f"a.pth holds {named}[^ ]*, which is not unpickled because"
    ) as caught:
        read_arrays(tmp_path / "a.pth")
    assert not trace.exists() and "\n" not in str(caught.value)
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert trace.exists(), "the file does harm where it is unpickled freely"


def test_a_whole_model_is_rejected_by_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(1, 1)), tmp_path / "a.pth")
    with pytest.raises(
        ReszooError,
        match=r"holds torch.nn.modules.container.Sequential, .* torch.save\(model.state_dict\(\)",
    ):
        read_arrays(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "base"), [("omegaconf.dictconfig.DictConfig", object), ("yacs.config.CfgNode", dict)]
)
def test_objects_of_libraries_that_train_are_read_without_their_code(
    name: str, base: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings of these libraries stand in many checkpoints, whether or not the libraries are installed here."""
    path, _, kind = name.rpartition(".")
    made = type(
        kind,
        (base,),
        {"__module__": path, "__setstate__": lambda self, state: pytest.fail("its code was run")},
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, path.partition(".")[0], types.ModuleType(path.partition(".")[0]))
        patch.setitem(sys.modules, path, types.ModuleType(path))
        setattr(sys.modules[path], kind, made)
        config = made()
        config.content = {"lr": 0.1}
        if base is dict:
            config["lr"] = 0.1
        torch.save(
            {"state_dict": tensors(under("model.")), "hyper_parameters": config},
            tmp_path / "a.ckpt",
        )
        assert read_arrays(tmp_path / "a.ckpt").keys() == ARRAYS.keys()
    assert read_arrays(tmp_path / "a.ckpt").keys() == ARRAYS.keys()


def test_reading_leaves_pytorchs_list_of_safe_types_as_it_was(tmp_path: Path) -> None:
    before = list(torch.serialization.get_safe_globals())
    torch.save({"state_dict": tensors(ARRAYS), "args": argparse.Namespace()}, tmp_path / "a.pth")
    load_torch(tmp_path / "a.pth")
    assert torch.serialization.get_safe_globals() == before


def test_nested_tables_become_dotted_names() -> None:
    held = {
        "a": {"b": torch.ones(1), "c": [torch.zeros(2), 3]},
        "epoch": 3,
        "args": {"lr": 0.1},
        "n": np.zeros(2),
    }
    found, empty = flatten(held)
    assert list(found) == ["a.b", "a.c.0", "n"] and empty == ["epoch", "args"]
    loop: dict[str, Any] = {"x": torch.ones(1)}
    loop["loop"] = loop
    assert "x" in flatten(loop)[0]


@pytest.mark.parametrize("held", [[torch.ones(1)], torch.ones(1), 3, {}, {"epoch": 3}], ids=repr)
def test_a_file_without_tensors_by_name_is_rejected(held: Any, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "a.pth")
    with pytest.raises(ReszooError, match="a.pth .*(holds no tensors by name|not tensors by name)"):
        read_arrays(tmp_path / "a.pth")


def test_half_precision_becomes_float32_and_sparse_tensors_are_rejected() -> None:
    assert to_array(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    assert to_array(torch.ones(2, dtype=torch.int64)).dtype == np.int64
    assert to_array(torch.nn.Parameter(torch.ones(2))).tolist() == [1, 1]
    with pytest.raises(ReszooError, match="sparse or quantized"):
        to_array(torch.eye(2).to_sparse())


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("DistributedDataParallel in Lightning", {"state_dict": under("model.module."), "epoch": 1}),
        ("below two keys", {"state_dict": {"model": under("")}}),
        ("net", {"net": under("")}),
        ("params", {"params": under("module.")}),
        ("DeepSpeed", {"module": under("")}),
        ("FSDP", under("_fsdp_wrapped_module.")),
        ("a module of another model", {"model": under("backbone.body.") | {"head.x": np.ones(2, np.float32)}}),
        ("an optimizer", {"model": under(""), "optimizer": {"state": {0: {"momentum": np.ones(3, np.float32)}}}}),
        ("a loss inside", {"model": under("") | {"criterion.weight": np.ones(3, np.float32)}}),
        ("a profiler's counts", {"model": under("") | {"layer1.0.conv1.total_ops": np.ones(1)}}),
        ("modules as tables", {"layer1": {"0": {}}}),
    ],
)  # fmt: skip
def test_common_wrappings_load_exactly(name: str, held: dict[str, Any], tmp_path: Path) -> None:
    if name == "modules as tables":
        held = {}
        for key, array in ARRAYS.items():
            *parts, last = key.split(".")
            place = held
            for part in parts:
                place = place.setdefault(part, {})
            place[last] = array

    def convert(value: Any) -> Any:
        return (
            {k: convert(v) for k, v in value.items()}
            if isinstance(value, dict)
            else torch.from_numpy(np.array(value))
            if isinstance(value, np.ndarray)
            else value
        )

    torch.save(convert(held), tmp_path / "a.bin")
    check_same(loaded(tmp_path / "a.bin"))


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema"])
def test_averaged_weights_are_loaded_and_raw_ones_on_request(
    averaged: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.pth"
    torch.save(
        {"state_dict": tensors(under("", factor=3)), averaged: tensors(under("module."))}, path
    )
    check_same(loaded(path))
    assert (
        f"a.pth: loaded the averaged weights '{averaged}.module', not the raw ones ('state_dict')"
        in capsys.readouterr().err
    )
    check_same(loaded(f"{path}#raw"), factor=3)
    check_same(loaded(f"{path}#state_dict"), factor=3)
    check_same(loaded(f"{path}#{averaged}"))


def test_self_supervised_encoders_load_without_their_projection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = under("module.encoder_q.", without=("linear.",))
    head = {f"module.encoder_q.linear.{n}.weight": np.ones((4, 4), np.float32) for n in (0, 2)}
    queue = {"module.queue": np.ones((4, 8), np.float32)}
    torch.save(
        {"state_dict": tensors(backbone | head | queue), "arch": "resnet20"},
        tmp_path / "moco.pth.tar",
    )
    path = tmp_path / "moco.pth.tar"
    assert loaded(path, classes=7).output_shape == (None, 7)
    assert "new classifier for 7 classes" in capsys.readouterr().err
    assert loaded(path, classes=None, top=False).output_shape == (None, 12)
    torch.save(tensors(backbone | queue), path)
    with pytest.raises(
        ReszooError,
        match="The file holds no classifier: give top=False for none, or classes=N for a new one",
    ):
        loaded(path, classes=None)


def test_teacher_and_student_are_rejected_with_both_names(tmp_path: Path) -> None:
    path = tmp_path / "dino.pth"
    torch.save(
        {
            "teacher": tensors(under("backbone.")),
            "student": tensors(under("module.backbone.", factor=2)),
        },
        path,
    )
    with pytest.raises(ReszooError, match="'teacher.backbone', 'student.module.backbone'"):
        loaded(path)
    check_same(loaded(f"{path}#student"), factor=2)
