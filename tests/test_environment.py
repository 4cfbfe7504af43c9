"""environment.yml and pyproject.toml name the same packages with the same lowest versions."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def lowest_versions(requirements: list[str]) -> dict[str, str]:
    """By name; a requirement of any other form is an error."""
    versions = {}
    for requirement in requirements:
        # An extra (`pyright[nodejs]`) is pip's alone; conda knows the bare name.
        parts = re.fullmatch(r"([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?>=([0-9.]+)", requirement)
        assert parts, requirement
        name, version = parts.groups()
        assert versions.setdefault(name, version) == version, f"two versions for {name}"
    return versions


def test_environment_and_pyproject_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    extras = project["optional-dependencies"]
    wanted = lowest_versions([*project["dependencies"], *extras["lab"], *extras["test"]])
    wanted["python"] = project["requires-python"].removeprefix(">=")

    packages = [entry for entry in environment["dependencies"] if isinstance(entry, str) and entry != "pip"]
    assert lowest_versions(packages) == wanted
    assert len(packages) == len(set(packages))
    assert environment["name"] == project["name"]
    assert environment["channels"] == ["conda-forge"]
    assert environment["dependencies"][-1] == {"pip": ["-e ."]}
