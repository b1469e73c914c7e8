"""The programs of the guides print what the guides say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.S)
RUN = re.compile(r"<!-- run -->\n```python\n(.*?)```\n\n```text\n(.*?)```", re.S)


def programs():
    for guide in ("python-workers.md", "from-gibbs.md", "from-faas-sim.md", "simulate-from-python.md"):
        text = (GUIDES / guide).read_text()
        files = FILE.findall(text)
        for number, (program, output) in enumerate(RUN.findall(text), 1):
            yield pytest.param(files, program, output, id=f"{guide}-{number}")


@pytest.mark.parametrize(("files", "program", "output"), list(programs()))
def test_a_program_prints_what_the_guide_says(tmp_path, files, program, output):
    for name, content in files:
        (tmp_path / name).write_text(content)
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment
    )
    assert (done.returncode, done.stdout) == (0, output), done.stderr


EXAMPLES = GUIDES.parents[1] / "examples" / "edge-cluster" / "python"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("analysis", r"node +mean, s +requests\n(.+ +[1-9]\d*\n){2,}"),
        ("arrivals", r"constant +300 +300 +300 +300 requests in each minute\n(.+\n){4}"),
        ("basic", r"(\d+) requests, \1 answered\n(.+: \d+ requests, [\d.]+ s on average, pulled \d+ MB\n){2,}"),
        ("function_model", r"(.+ the slowest ([3-9]|\d\d)\.\d\d s\n){2,}"),
        ("scheduler", r"skippy: .*\ngpus first: .* on 12 nodes .*tx2\)\n"),
        ("watchdogs", r"http, 4 .*\nhttp, 2 .*\nforking .*\n"),
    ],
)
def test_an_example_prints_what_it_is_about(name, said):
    done = subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(said, done.stdout), done.stdout
