"""What a user sees while TensorFlow loads: nothing, unless loading fails."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import reszoo
from reszoo.loading import held_standard_error, quiet_logger

SCRIPT = """
import reszoo
run = reszoo.train("quickstart", run_dir="run", quiet=True, overrides=["model.name=resnet8", "train.epochs=1",
    "data.examples=64"]).run
reszoo.evaluate(run)
"""


def run_python(script: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a new interpreter whose environment sets no log level."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    clean |= {"PYTHONPATH": str(Path(reszoo.__file__).parents[1]), **environment}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.slow
def test_training_from_python_prints_none_of_tensorflows_log_lines(tmp_path: Path) -> None:
    assert run_python(SCRIPT, tmp_path).stderr == ""


@pytest.mark.parametrize(
    "statement",
    ["reszoo.build", "import reszoo.models", "from reszoo.lab.degradation import degradation"],
)
def test_loading_tensorflow_prints_nothing(statement: str, tmp_path: Path) -> None:
    script = f"""
import reszoo
{statement}
import sys, tensorflow as tf
tf.zeros(1)
tf.get_logger().warning("a function is traced often")
assert "keras" in sys.modules
"""
    assert run_python(script, tmp_path).stderr == ""


def test_a_notebook_shows_no_log_lines_of_tensorflow(tmp_path: Path) -> None:
    """In a kernel `sys.ps1` exists, and TensorFlow logs information to standard output."""
    script = """
import sys
sys.ps1 = ">>> "
import reszoo
reszoo.build
import tensorflow as tf
tf.get_logger().info("assets written")
"""
    shown = run_python(script, tmp_path)
    assert shown.stdout + shown.stderr == ""


def test_a_logger_is_quiet_inside_the_block(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("library")
    logger.setLevel(logging.INFO)
    with pytest.raises(ImportError), quiet_logger("library"):
        logger.warning("inside")
        logger.error("failed")
        raise ImportError
    logger.info("after")
    assert caplog.messages == ["failed", "after"]


def test_a_log_level_that_the_user_set_stays(tmp_path: Path) -> None:
    script = "import logging\nlogging.getLogger('tensorflow').setLevel('INFO')\nimport reszoo\nreszoo.build\n"
    shown = run_python(
        script
        + "import os; print(logging.getLogger('tensorflow').level, os.environ['TF_CPP_MIN_LOG_LEVEL'])",
        tmp_path,
        TF_CPP_MIN_LOG_LEVEL="1",
    )
    assert shown.stdout.split() == ["20", "1"]


def test_standard_error_is_held_back_unless_the_block_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with held_standard_error():
        os.write(2, b"note\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
    with pytest.raises(ImportError), held_standard_error():
        os.write(2, b"reason\n")
        raise ImportError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "reason\nafter\n"
