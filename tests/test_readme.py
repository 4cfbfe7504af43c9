"""What the README tells people to type works."""

import re
import subprocess
import sys
from pathlib import Path

from tandem_edu.cli import _parser
from tandem_edu.reproduce.readme import BEGIN, END, headline

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_its_program_runs():
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    short = re.sub(r"steps=\d+", "steps=2, seq_len=32", program)
    assert short.count("steps=2,") == 1
    run = subprocess.run([sys.executable, "-W", "error", "-c", short], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "acceptance_by_position" in run.stdout


def test_its_pictures_and_pages_are_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links and not [link for link in links if not (ROOT / link.partition("#")[0]).exists()]


def test_its_commands_are_commands():
    commands = re.findall(r"^\.venv/bin/tandem-edu (.*)$", README, re.MULTILINE)
    assert len(commands) == 9
    for command in commands:
        _parser().parse_args(re.sub(r'"[^"]*"', "text", command).split())


def test_its_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_its_results_are_those_in_the_results():
    """Where it has a table of results, `tandem-edu reproduce` made it from what is in results/."""
    if BEGIN in README:
        assert f"{BEGIN}\n{headline(ROOT / 'results')}{END}" in README
