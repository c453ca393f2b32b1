"""The container recipes install what the README and pyproject.toml say, and copy files that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.test_packaging import EXTRAS, PROJECT, ROOT, jobs

FOLDER = ROOT / "containers"
DOCKER, APPTAINER = FOLDER / "Dockerfile", FOLDER / "nlmeans.def"
RECIPES = [DOCKER, APPTAINER]
OTHER_DOORS = {"monai", "napari"}
"""Extras for Python and for windows, which a container without a screen has no use for."""


def install(text: str) -> tuple[str, set[str]]:
    """The file with constraints and the extras that the only `pip install` of a text names."""
    (line,) = re.findall(r"pip install (.*)", text)
    words = shlex.split(line.split("&&")[0])
    extras = re.findall(r"^\.\[(.*)\]$", words[-1])[0].split(",")
    return words[words.index("-c") + 1], set(extras)


def code(recipe: Path) -> str:
    """A recipe without its comments."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def sections() -> dict[str, str]:
    """The sections of the recipe for Apptainer."""
    parts = re.split(r"^%(\w+)\n", code(APPTAINER), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def copied(recipe: Path) -> set[str]:
    """Files and folders of the repository that a recipe copies."""
    if recipe == APPTAINER:
        pairs = [line.split() for line in sections()["files"].splitlines() if line.strip()]
        assert all(target == f"/opt/nlmeans/{source}" for source, target in pairs)
        return {source for source, _ in pairs}
    return {word for line in re.findall(r"^COPY (.*) \S+$", code(recipe), re.MULTILINE) for word in line.split()}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_constraints_and_extras_are_those_of_the_readme(recipe: Path) -> None:
    setup = re.findall(
        r"<!-- setup -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    constraints, asked = install(setup[0])
    assert "all" in asked
    everything = set(re.findall(r"\[(.*)\]", EXTRAS["all"][0])[0].split(","))
    assert install(code(recipe)) == (constraints, everything - OTHER_DOORS)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_everything_that_the_wheel_is_made_of_is_copied(recipe: Path) -> None:
    packages = {"nlmeans", "monai_transforms", "napari_nlm", "sample_data"}
    assert copied(recipe) == {
        "pyproject.toml",
        "constraints.txt",
        PROJECT["readme"],
        *PROJECT["license-files"],
        *packages,
    }
    assert all((ROOT / name).exists() for name in copied(recipe))


def test_docker_is_sent_no_more_than_it_copies() -> None:
    lines = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied(DOCKER)


def test_the_recipes_take_the_same_python_which_ci_tests() -> None:
    docker = re.findall(r"^FROM python:([\d.]+)-slim$", code(DOCKER), re.MULTILINE)
    apptainer = re.findall(r"^From: python:([\d.]+)-slim$", code(APPTAINER), re.MULTILINE)
    assert docker == apptainer
    assert docker[0] in jobs()["run"]["strategy"]["matrix"]["python"]


def test_the_entry_point_is_the_bids_app() -> None:
    assert yaml.safe_load(re.findall(r"^ENTRYPOINT (.*)$", code(DOCKER), re.MULTILINE)[0]) == ["nlmeans-bids"]
    assert sections()["runscript"].strip() == 'exec nlmeans-bids "$@"'
    assert "nlmeans-bids" in PROJECT["scripts"]


def test_one_argument_chooses_the_build_of_torch() -> None:
    assert re.findall(r"^ARG (\w+)=", code(DOCKER), re.MULTILINE) == ["PIP_EXTRA_INDEX_URL"]
    assert sections()["arguments"].split() == ["PIP_EXTRA_INDEX_URL="]
    assert re.findall(r"{{ (\w+) }}", sections()["post"]) == ["PIP_EXTRA_INDEX_URL"]
    assert "--build-arg PIP_EXTRA_INDEX_URL=" in (FOLDER / "smoke").read_text(encoding="utf-8")


def test_the_page_names_the_extras() -> None:
    text = " ".join((ROOT / "docs" / "cohorts.md").read_text(encoding="utf-8").split())
    (named,) = re.findall(r"`constraints.txt` and the extras (.*?)\. ", text)
    assert set(re.findall(r"`(\w+)`", named)) == install(code(DOCKER))[1]
