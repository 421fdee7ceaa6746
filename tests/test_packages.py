"""A chapter's own packages: pinned, found out when missing, installed into the course's .venv and nowhere else."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from common import packages
from common.chapters import chapters
from common.problems import Problem

CHAPTERS = [folder for folder in chapters() if (folder / "requirements.txt").exists()]


@pytest.mark.parametrize("folder", CHAPTERS, ids=lambda folder: folder.name)
def test_every_chapter_pins_its_packages_and_none_of_the_courses(folder):
    pins = packages.pins(folder)
    listed = (packages.ROOT / "requirements-cpu.txt").read_text() + (packages.ROOT / "requirements.txt").read_text()
    assert pins and not [name for name in pins if f"\n{name}==" in listed]


def test_what_is_there_is_not_missing(tmp_path):
    assert packages.pins(tmp_path) == {} and packages.missing(tmp_path) == []
    file = tmp_path / "requirements.txt"
    file.write_text(f"# why\n\npandas=={version('pandas')}  # tables\n")
    assert packages.pins(tmp_path) == {"pandas": version("pandas")} and packages.missing(tmp_path) == []
    file.write_text("pandas==0.0.1\nno-such-package==1.0\n")
    assert packages.missing(tmp_path) == ["pandas==0.0.1", "no-such-package==1.0"]
    file.write_text("pandas>=2\n")
    with pytest.raises(Problem, match="without an exact version"):
        packages.pins(tmp_path)


@pytest.fixture
def wanting(tmp_path, monkeypatch):
    """A chapter that lacks a package, and the pip commands that were run for it (none is really run)."""
    (tmp_path / "requirements.txt").write_text("no-such-package==1.0\n")
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", run)
    return tmp_path, commands


def test_another_python_is_told_what_to_do(wanting, monkeypatch):
    folder, commands = wanting
    monkeypatch.setattr(packages, "VENV", str(folder))
    with pytest.raises(Problem, match=r"needs no-such-package==1.0, which this Python does not have") as problem:
        packages.ensure(folder)
    assert problem.value.fix == f"{sys.executable} -m pip install no-such-package==1.0" and not commands


def test_the_courses_venv_gets_it_under_the_courses_constraints(wanting, monkeypatch):
    folder, commands = wanting
    monkeypatch.setattr(packages, "VENV", sys.prefix)
    monkeypatch.setattr(packages, "read_stamp", lambda: {"device": "gpu"})
    packages.ensure(folder)
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"] and command[-1] == "no-such-package==1.0"
    assert command[command.index("-c") + 1] == str(packages.ROOT / "requirements.txt")
    packages.ensure(folder / "nothing-here")
    assert len(commands) == 1


def test_a_failed_installation_is_a_problem(wanting, monkeypatch):
    folder, _ = wanting
    monkeypatch.setattr(packages, "VENV", sys.prefix)
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found for no-such-package==1.0\n")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(Problem, match=r"needs no-such-package==1.0") as problem:
        packages.ensure(folder)
    assert "By hand: " in problem.value.fix
