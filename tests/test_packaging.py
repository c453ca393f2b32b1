"""What is said in several places is the same in all: versions, lower bounds, licence; the workflow asks for little."""

from __future__ import annotations

import importlib
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, BUILD = SETTINGS["project"], SETTINGS["build-system"]
EXTRAS = PROJECT["optional-dependencies"]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
RELEASE = WORKFLOW.with_name("release.yml")
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def pins(name: str) -> dict[str, str]:
    """Package names as pip compares them, and their versions."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pinned}


def bounded(*extras: str) -> dict[str, Version]:
    """The lower bound of each package that has one, of the dependencies and of these extras."""
    found = {}
    for text in [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]:
        requirement = Requirement(text)
        for bound in requirement.specifier:
            assert bound.operator == ">=", f"{text}: only lower bounds, as nobody knows what the future breaks"
            found[canonicalize_name(requirement.name)] = Version(bound.version)
    return found


OLDEST_BY_HAND = {"napari", "magicgui", "pytest-qt", "pytest-xvfb", "napari-nifti", "triton"}
"""With windows or without tests there: .ci/oldest does not install them."""


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    bounds = bounded(*(extra for extra in EXTRAS if extra != "docs"))
    oldest = {name: Version(version) for name, version in pins("constraints-oldest.txt").items()}
    assert oldest == {name: bound for name, bound in bounds.items() if name not in OLDEST_BY_HAND}


def test_the_newest_versions_keep_the_lower_bounds() -> None:
    newest = pins("constraints.txt")
    for name, bound in bounded(*EXTRAS).items():
        if name != "triton":  # comes with torch, if that is for CUDA
            assert Version(newest[name]) >= bound


def test_pre_commit_runs_the_versions_of_the_constraints() -> None:
    config = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"ruff==([\d.]+)", config)) == {pins("constraints.txt")["ruff"]}


def test_citation_changelog_and_package_speak_of_the_same_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] == metadata.version("nlmeans")
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["title"].startswith(PROJECT["name"])
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def jobs(workflow: Path = WORKFLOW) -> dict[str, Any]:
    return yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]


def test_the_workflow_may_only_read_and_knows_no_secret() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    assert not any("permissions" in job for job in jobs().values())


def test_the_workflows_take_official_actions_of_one_major_version() -> None:
    both = [*jobs().values(), *jobs(RELEASE).values()]
    used = {step["uses"] for job in both for step in job["steps"] if "uses" in step}
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used), used
    assert len(used) == len({action.split("@")[0] for action in used})


@pytest.mark.parametrize("script", [".ci/run", ".ci/oldest", ".ci/smoke.py", "containers/smoke"])
def test_the_workflow_runs_the_scripts_of_the_repository(script: str) -> None:
    commands = [step["run"] for job in jobs().values() for step in job["steps"] if "run" in step]
    assert any(script in command for command in commands)
    assert (ROOT / script).is_file()
    assert script.endswith(".py") or (ROOT / script).stat().st_mode & 0o111


def test_the_scripts_are_functions_that_exist() -> None:
    scripts = PROJECT["scripts"]
    assert set(scripts) == {"nlmeans", "nlmeans-bids"}
    for target in scripts.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_a_release_is_published_from_a_tag_without_a_password() -> None:
    text = RELEASE.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # in YAML 1.1, the key `on` is true
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    assert {name: job.get("permissions") for name, job in workflow["jobs"].items()} == {
        "build": None,
        "publish": {"contents": "read", "id-token": "write"},
    }
    build = " ".join(step.get("run", "") for step in workflow["jobs"]["build"]["steps"])
    assert 'test "$GITHUB_REF_NAME" = "v$version"' in build
    assert ".ci/package" in build
    assert workflow["jobs"]["publish"]["needs"] == "build"


def test_the_conda_recipe_has_what_pyproject_has() -> None:
    recipe = yaml.safe_load((ROOT / "containers" / "conda" / "meta.yaml").read_text(encoding="utf-8"))
    assert recipe["package"] == {"name": PROJECT["name"], "version": PROJECT["version"]}
    assert recipe["build"]["noarch"] == "python"
    scripts = dict(line.split(" = ") for line in recipe["build"]["entry_points"])
    assert scripts == PROJECT["scripts"]
    wanted = [Requirement(f"python{PROJECT['requires-python']}"), *map(Requirement, PROJECT["dependencies"])]
    expected = {f"{CONDA_NAMES.get(one.name, one.name)} {one.specifier}" for one in wanted}
    assert set(recipe["requirements"]["run"]) == expected
    assert re.sub(">", " >", BUILD["requires"][0]) in recipe["requirements"]["host"]
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert (ROOT / recipe["about"]["license_file"]).is_file()
