"""The same nets under Keras' JAX backend, without TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reszoo import Spec, build, spec

from .helpers import BASIC, BOTTLENECK, images, randomize

SIZE = (9, 10, 3)
USUAL: dict[str, Spec] = {
    "A": BASIC,
    "everything": BASIC.replace(
        order="pre", shortcut="C", gate="exclusive", rezero=True, se_ratio=0.5, dropout=0.5
    ),
    "d": BOTTLENECK.replace(
        stem="deep", shortcut="B", shrink="avgpool", stride_at="conv2", groups=2
    ),
}
MORE: dict[str, Spec] = {
    **{name: spec(name) for name in ("plain8", "resnet8", "resnet8_v2", "wrn10_1")},
    "stem": BASIC.replace(stem="imagenet", order="bn_after_add", shortcut="B", blur=True),
    "scaled": BOTTLENECK.replace(
        order="relu_before_add", branch_scale=0.5, shortcut_scale=0.5, pad_at="end"
    ),
    "relu_pre": BASIC.replace(order="relu_pre", gate="shortcut_only"),
}
SCRIPT = """
import json, sys
from pathlib import Path
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, NotInstalled())
import jax
import numpy as np
import reszoo
from reszoo.exporting.fold import fold
folder = Path(sys.argv[1])
batch = np.load(folder / "images.npy")
for name, fields in json.loads((folder / "specs.json").read_text()).items():
    spec, shape = reszoo.Spec(**fields), batch.shape[1:]
    model = reszoo.build(spec, input_shape=shape, classes=5, weights=folder / f"{name}.weights.h5")
    parameters = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert reszoo.count(spec, input_shape=shape, classes=5).parameters == parameters, name
    run = jax.jit(model.stateless_call, static_argnames="training")
    trained, state = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    np.save(folder / f"{name}.inference.npy", run(trained, state, batch, training=False)[0])
    if not fields["dropout"]:
        outputs, state = run(trained, state, batch, training=True)
        np.save(folder / f"{name}.training.npy", outputs)
        np.save(folder / f"{name}.after.npy", run(trained, state, batch, training=False)[0])
    folded = fold(model).model
    trained, state = ([v.value for v in vs] for vs in (folded.trainable_variables, folded.non_trainable_variables))
    np.save(folder / f"{name}.folded.npy", jax.jit(folded.stateless_call)(trained, state, batch)[0])
    if name == "A":
        deeper = spec.replace(depths=(spec.depths[0] + 1, *spec.depths[1:]))
        np.save(folder / f"{name}.grown.npy", reszoo.grow(model, deeper)(batch))
import keras
assert keras.config.backend() == "jax", keras.config.backend()
"""


@pytest.mark.parametrize(
    "nets", [USUAL, pytest.param(MORE, marks=pytest.mark.slow)], ids=["usual", "more"]
)
def test_jax_gives_tensorflows_outputs(nets: dict[str, Spec], tmp_path: Path) -> None:
    """To 1e-5 of the largest logit: in inference, folded, grown, in training mode, and after the statistics moved."""
    pytest.importorskip("jax")
    batch = images((4, *SIZE))
    np.save(tmp_path / "images.npy", batch)
    (tmp_path / "specs.json").write_text(
        json.dumps({name: net.to_dict() for name, net in nets.items()})
    )
    models = {}
    for name, net in nets.items():
        models[name] = build(net, input_shape=SIZE, classes=5)
        randomize(models[name], 0)
        models[name].save_weights(tmp_path / f"{name}.weights.h5")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    compared = 0
    for name, model in models.items():
        modes = (
            ("inference", False),
            ("folded", False),
            ("grown", False),
            ("training", True),
            ("after", False),
        )
        for mode, training in modes:
            if (tmp_path / f"{name}.{mode}.npy").exists():
                theirs, ours = (
                    np.load(tmp_path / f"{name}.{mode}.npy"),
                    np.asarray(model(batch, training=training)),
                )
                np.testing.assert_allclose(
                    theirs, ours, rtol=0, atol=1e-5 * np.abs(ours).max(), err_msg=f"{name}, {mode}"
                )
                compared += 1
    assert compared == sum(2 if net.dropout else 4 for net in nets.values()) + ("A" in nets)
