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
    for guide in ("python-workers.md", "from-gibbs.md", "simulate-from-python.md"):
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
