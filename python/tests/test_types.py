"""The types that the package promises to who uses it."""

import subprocess
import sys
from pathlib import Path

import pytest


def check(path):
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", "/dev/null", str(path)]
    return subprocess.run(command, capture_output=True, text=True, cwd=path.parent)


def test_a_program_passes_the_strict_type_checker():
    pytest.importorskip("mypy")
    done = check(Path(__file__).parent / "typed_program.py")
    assert done.returncode == 0, done.stdout


def test_what_is_wrong_is_seen(tmp_path):
    pytest.importorskip("mypy")
    program = tmp_path / "wrong.py"
    program.write_text("from gatewright import Hub, QueueFull\nHub(port='5019')\nQueueFull().retry_later\n")
    done = check(program)
    assert "arg-type" in done.stdout and "attr-defined" in done.stdout, done.stdout
