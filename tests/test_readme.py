"""What the README tells people to type works."""

import re
import subprocess
import sys
from pathlib import Path

from studies.page import BEGIN, END, headline
from tandem_edu.cli.parser import parser

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
    assert len(commands) == 6
    for command in commands:
        parser().parse_args(re.sub(r'"[^"]*"', "text", command).split())


def test_its_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_its_figures_are_those_of_the_results():
    """`python -m studies` has written them from the tables in results/."""
    assert f"{BEGIN}\n{headline(ROOT / 'results')}{END}" in README


def test_its_first_screen_is_short_and_counts_the_lines_of_nano():
    first = README[: README.index("## The course")]
    assert "make demo" in first and "make test" in first and first.count("\n") <= 30
    lines = len((ROOT / "tandem_edu" / "nano.py").read_text("utf-8").splitlines())
    assert f"[the whole idea in {lines} lines](tandem_edu/nano.py)" in README
