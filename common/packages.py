"""Packages that one chapter needs beside the course's own: pinned in its requirements.txt, installed at first use."""

import importlib
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.chapters import ROOT
from common.install import REQUIREMENTS, VENV, explain, read_stamp
from common.problems import Problem


def pins(folder: Path) -> dict[str, str]:
    """Name and exact version of each package in the chapter's requirements.txt; none if it has no such file."""
    file = folder / "requirements.txt"
    if not file.exists():
        return {}
    lines = [line.split("#")[0].strip() for line in file.read_text().splitlines()]
    try:
        return dict(line.split("==") for line in lines if line)
    except ValueError:
        raise Problem(f"{file} has a line without an exact version.", "Write NAME==VERSION.") from None


def missing(folder: Path) -> list[str]:
    """The pins that this Python does not have in exactly that version."""
    found = []
    for name, wanted in pins(folder).items():
        try:
            there = version(name)
        except PackageNotFoundError:
            there = ""
        if there != wanted:
            found.append(f"{name}=={wanted}")
    return found


def ensure(folder: Path) -> None:
    """Install what is missing, beside the course's own packages and without changing one of them.

    Only into the course's .venv; with another Python, and where pip fails, Problem says what to do by hand.
    """
    wanted = missing(folder)
    if not wanted:
        return
    by_hand = f"{sys.executable} -m pip install {' '.join(wanted)}"
    if Path(sys.prefix).resolve() != Path(VENV).resolve():
        raise Problem(f"{folder.name} needs {', '.join(wanted)}, which this Python does not have.", by_hand)
    constraints = ROOT / REQUIREMENTS[read_stamp().get("device", "cpu")]
    command = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]
    ended = subprocess.run(
        [*command, "-c", str(constraints), *wanted], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if ended.returncode:
        sentence, fix = explain(ended.stdout + ended.stderr)
        raise Problem(f"{folder.name} needs {', '.join(wanted)}. {sentence}", f"{fix} By hand: {by_hand}")
    importlib.invalidate_caches()
