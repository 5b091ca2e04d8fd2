"""The checks of reszoo doctor, each with a stand-in for what it reads."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reszoo import doctor
from reszoo.cli.main import main
from reszoo.doctor import (
    Check,
    check_backend,
    check_folders,
    check_network,
    check_processor,
    check_python,
    check_tensorflow,
)

ANSWER = """import json; print("noise")
print(json.dumps({"versions": {"tensorflow": "2.21.0"}, "gpus": [%s]}))"""


@pytest.mark.parametrize(
    ("program", "statuses", "text"),
    [
        (ANSWER % '"A100", "A100"', ["ok", "ok"], "A100, A100"),
        (ANSWER % "", ["ok", "ok"], "CPU; no GPU"),
        ("raise ImportError('no module named x')", ["failed"], "ImportError: no module named x"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", ["failed"], "ended by signal 4"),
        ("import sys; sys.exit(3)", ["failed"], "exit status 3"),
    ],
)
def test_tensorflow_that_cannot_be_loaded_is_reported_with_advice(
    program: str, statuses: list[str], text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path / "none")
    checks = check_tensorflow(program)
    assert [check.status for check in checks] == statuses and text in checks[-1].value
    assert all(bool(check.advice) == (check.status != "ok") for check in checks)


def test_a_driver_without_a_gpu_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path / "version")
    (tmp_path / "version").touch()
    check = check_tensorflow(ANSWER % "")[1]
    assert check.status == "warning" and "reszoo[gpu]" in check.advice


@pytest.mark.parametrize(
    ("flags", "environ", "status", "text"),
    [
        ("fpu avx avx2 avx512f amx_bf16", {}, "ok", "bfloat16 in hardware; oneDNN on"),
        ("fpu avx avx2", {}, "ok", "avx avx2; bfloat16 emulated"),
        ("fpu avx", {"TF_ENABLE_ONEDNN_OPTS": "0"}, "warning", "oneDNN off"),
        ("fpu sse2", {}, "failed", "vector units unknown"),
    ],
)
def test_the_processor_is_read_from_its_flags(
    flags: str,
    environ: dict[str, str],
    status: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    check = check_processor(tmp_path / "cpuinfo", environ)
    assert check.status == status and text in check.value
    assert bool(check.advice) == (status != "ok")


def test_caches_have_sizes_and_unusable_ones_advice(tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "b").write_bytes(b"x" * 3_000_000)
    (tmp_path / "file").touch()
    environ = {
        "RESZOO_DATA": str(tmp_path / "data"),
        "RESZOO_HOME": str(tmp_path / "file" / "below"),
        "HF_HOME": str(tmp_path / "new" / "folder"),
    }
    data, home, hub, working = check_folders(environ)
    assert data.value.startswith(f"{tmp_path / 'data'}: 3 MB, ") and "GB free" in data.value
    assert home.status == "warning" and "not writable" in home.value
    assert home.advice == "Give a writable folder: RESZOO_HOME."
    assert hub.name == "cache HF_HOME" and "not writable" not in hub.value
    assert not (tmp_path / "new").exists() and working.name == "working folder"


@pytest.fixture
def site() -> Iterator[str]:
    """A site that answers HEAD with 501, which shows that it is reached."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_site_that_does_not_answer_is_a_warning_in_time(
    site: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "NETWORK_SECONDS", 0.3)
    monkeypatch.setenv("no_proxy", "*")
    assert check_network({"here": site}, {}) == Check("network", "ok", "here reached")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = check_network({"here": site, "silent": address, "odd": "x://y"}, {})
    assert found.status == "warning" and "HTTPS_PROXY" in found.advice
    assert "here reached; silent " in found.value and "unknown url type" in found.value
    assert "not checked" in check_network({"odd": "x://y"}, {"HF_HUB_OFFLINE": "1"}).value


def test_only_what_prevents_training_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_python((3, 11)).status == "ok"
    assert check_python((3, 10)).status == check_python((3, 14)).status == "failed"
    assert check_backend({"KERAS_BACKEND": ""}).status == "ok"
    bad = check_backend({"KERAS_BACKEND": "jax"})
    found = [Check("python", "ok", "3.11"), Check("network", "warning", "none", "Wait.")]
    monkeypatch.setattr(doctor, "examine", lambda environ: found)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["", "network: Wait."]
    found.append(bad)
    assert main(["doctor", "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert printed["usable"] is False and printed["checks"][2] == bad.to_dict()
    assert bad.advice == "Training needs TensorFlow: unset KERAS_BACKEND."


def test_memory_is_the_smallest_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\n")
    monkeypatch.setattr(doctor, "MEMINFO", tmp_path / "meminfo")
    for text, shown, status in (("max", "16.4 GB", "ok"), ("2000000000", "2.0 GB", "warning")):
        (tmp_path / "limit").write_text(f"{text}\n")
        monkeypatch.setattr(doctor, "MEMORY_LIMITS", (tmp_path / "limit",))
        check = doctor.check_memory()
        assert (check.value, check.status) == (shown, status)
