"""The steps of continuous integration run what the README says; the workflows cover what the project declares."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from release import ROOT
from test_readme import README
from test_release import pythons

WORKFLOWS = {path.stem: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
FORMS = {path.stem: path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"}

# ---------------------------------------------------------------------- .ci


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The README and .ci beside programs that only record how they are called."""
    for name in (".ci", "README.md", "constraints.txt", "pyproject.toml"):
        origin = ROOT / name
        (shutil.copytree if origin.is_dir() else shutil.copy)(origin, tmp_path / name)
    record = f'#!/bin/sh\necho "$(basename "$0") $*" >>{tmp_path}/calls\n'
    programs = ("pip", "python", "tightframe", "ruff", "mypy", "mkdocs")
    for folder, names in (("bin", ("python3",)), (".venv/bin", programs)):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / folder / name).write_text(record)
            (tmp_path / folder / name).chmod(0o755)
    return tmp_path


def ci(copy: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{copy / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [copy / ".ci" / script, *arguments], env={**os.environ, "PATH": path}, capture_output=True, text=True
    )


DEMO, TEST = (
    [command.replace(".venv/bin/", "").replace("'", "") for command in line.split(" && ")]
    for line in re.findall(r"^python3 -m venv .*", README, flags=re.M)
)
STEPS = {
    "demo": DEMO,
    "test": TEST,
    "slow": ["python -m pytest -n 2 -m slow"],
    "lint": ["ruff check .", "ruff format --check src", "mypy "],
    "docs": ["pip install -q -c constraints.txt -e .[docs]", "mkdocs build --strict"],
}


@pytest.mark.parametrize("steps", [[], *([step] for step in STEPS), ["demo", "lint"]])
def test_each_step_runs_its_commands(copy: Path, steps: list[str]) -> None:
    assert DEMO[-1] == "tightframe demo" and TEST[0] == "python3 -m venv .venv"
    assert ci(copy, "run", *steps).returncode == 0
    expected = [command for step in steps or ["test", "slow", "lint", "docs"] for command in STEPS[step]]
    assert (copy / "calls").read_text().splitlines() == expected


def test_the_steps_take_their_commands_from_the_readme(copy: Path) -> None:
    (copy / "README.md").write_text(README.replace("pytest -n 2", "pytest -n 3"))
    ci(copy, "run", "test")
    assert (copy / "calls").read_text().endswith("python -m pytest -n 3\n")


def test_a_failure_ends_the_run(copy: Path) -> None:
    (copy / ".venv" / "bin" / "pip").write_text("#!/bin/sh\nexit 3\n")
    assert ci(copy, "run").returncode == 3
    assert (copy / "calls").read_text().splitlines() == ["python3 -m venv .venv"]
    assert ci(copy, "run", "tests").returncode == 2


def test_the_oldest_torch_is_that_of_the_project(copy: Path) -> None:
    assert ci(copy, "torch", "oldest").returncode == 0
    (oldest,) = re.findall(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert (copy / "constraints.txt").read_text() == f"torch=={oldest}.*\n"
    assert ci(copy, "torch", "newest").returncode == 0
    assert (copy / "constraints.txt").read_text() == "torch\n"
    assert ci(copy, "torch").returncode == 2
    (copy / "pyproject.toml").write_text("dependencies = []\n")
    assert ci(copy, "torch", "oldest").returncode != 0


# ---------------------------------------------------------------------- .github


def workflow(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8")))


def test_all_declared_versions_are_tested() -> None:
    matrix = workflow("test")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix == {"python": pythons(), "torch": ["oldest", "newest"]}
    assert workflow("release")["jobs"]["test"]["strategy"]["matrix"]["python"] == pythons()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_scripts_and_steps_exist(name: str) -> None:
    for job in workflow(name)["jobs"].values():
        for step in job["steps"]:
            script, *arguments = step.get("run", "true").split()
            if script.startswith(".ci/"):
                assert os.access(ROOT / script, os.X_OK)
                assert script != ".ci/run" or set(arguments) <= STEPS.keys()
            for path in re.findall(r"scripts/\w+\.py", step.get("run", "")):
                assert (ROOT / path).is_file()


def test_only_the_last_job_of_a_release_may_publish_and_nothing_knows_a_password() -> None:
    for name, path in WORKFLOWS.items():
        assert "secrets." not in path.read_text(encoding="utf-8")
        assert workflow(name)["permissions"] == {"contents": "read"}
        writers = {job for job, each in workflow(name)["jobs"].items() if "permissions" in each}
        assert writers == ({"publish"} if name == "release" else set())
    jobs = workflow("release")["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert (jobs["publish"]["needs"], jobs["test"]["needs"]) == ("test", "build")


@pytest.mark.parametrize("name", FORMS)
def test_issue_forms_are_whole(name: str) -> None:
    form = yaml.safe_load(FORMS[name].read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    for field in form["body"]:
        assert field["type"] in ("input", "textarea", "checkboxes") and field["attributes"]["label"]
    required = {field["id"] for field in form["body"] if field.get("validations", {}).get("required")}
    assert required >= {"bug": {"versions"}, "numbers": {"paper", "convention", "data", "versions"}}.get(name, set())


def test_a_commit_runs_the_linters_of_the_project() -> None:
    """Without the network: every hook is local, and each linter of `.ci/run lint` has one."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    entries = [re.sub(r" --[-\w]+", "", hook["entry"]) for hook in repository["hooks"]]
    assert entries == [f".venv/bin/{re.sub(r' (--check|src|[.])', '', command).strip()}" for command in STEPS["lint"]]
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
