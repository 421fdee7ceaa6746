"""`make check CH=3`: run the checks of a chapter on its exercises.py and say in words what is still wrong.

    python -m common.check 3                       your exercises.py
    python -m common.check 3 --file solutions.py   another file of that chapter, or a path

The checks are ordinary pytest tests in tests/checks_CHAPTER/: a file is an exercise, its docstring the title, and the
fixture `exercises` the learner's module. This module replaces pytest's report by sentences.
"""

import argparse
import math
import signal
import sys
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from common.chapters import ROOT, chapters, load

LIMIT_S = 5  # for one check; ours take less than one
UNWRITTEN = "not yet written: "
SHOWN = 2  # problems of one exercise; the rest mostly follow from the first


# ------------------------------------------------------------------------------------- what the checks are made of


def close(got: object, wanted: object) -> bool:
    """Whether two answers are the same: numbers to one part in a million, and element by element in sequences."""
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(wanted, (int, float)):
        return isinstance(got, (int, float)) and math.isclose(got, wanted, rel_tol=1e-6, abs_tol=1e-12)
    if isinstance(wanted, Mapping):
        return (
            isinstance(got, Mapping) and got.keys() == wanted.keys() and all(close(got[k], wanted[k]) for k in wanted)
        )
    if isinstance(wanted, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(wanted):
            return False
        return all(close(g, w) for g, w in zip(got, wanted, strict=True))
    return got == wanted


def shown(value: object) -> str:
    """A value as a sentence shows it: floats with six significant digits, thousands separated."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        items = ", ".join(shown(item) for item in value)
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    return repr(value)


def expect(call: str, got: object, wanted: object, why: str = "", mistakes: Mapping[str, object] | None = None) -> None:
    """Fail unless `got` is `wanted`, saying which call it was and why the answer is that.

    `mistakes` maps what may have gone wrong to the answer it leads to; one that gives `got` is named.
    """
    if close(got, wanted):
        return
    if got is None:
        raise AssertionError(f"{call} returns None: is there a `return` missing?")
    sentences = f"{call} should return {shown(wanted)}{f': {why}' if why else ''}.\nYours returns {shown(got)}."
    named = [mistake for mistake, answer in (mistakes or {}).items() if close(got, answer)]
    raise AssertionError(sentences + (f"\nIt looks as if {named[0]}." if named else ""))


# ------------------------------------------------------------------------------------- one run


@dataclass
class Exercise:
    """What became of one exercise: how many checks it has, how many pass, and what is wrong, in words."""

    title: str
    checks: int = 0
    passed: int = 0
    problems: list[str] = field(default_factory=list)


class Report:
    """A pytest plugin: gives the checks the learner's module, and turns their outcomes into sentences."""

    def __init__(self, module: ModuleType):
        self.module = module
        self.found: dict[ModuleType, Exercise] = {}
        self.endless: set[ModuleType] = set()  # exercises of which a check was not finished in time
        self.broken: list[str] = []  # checks that could not be collected: our fault, not the learner's

    @pytest.fixture
    def exercises(self) -> ModuleType:
        return self.module

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        def out_of_time(*_: object) -> None:
            self.endless.add(item.module)
            raise TimeoutError(f"not finished after {LIMIT_S} s: is there a loop that never ends?")

        if item.module in self.endless:
            pytest.skip("an earlier check of this exercise did not end")  # one wait is enough
        before = signal.signal(signal.SIGALRM, out_of_time)
        signal.alarm(LIMIT_S)
        try:
            return (yield)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        exercise = self.found.setdefault(item.module, Exercise(item.module.__doc__.splitlines()[0]))
        if call.when == "call":
            exercise.checks += 1
            exercise.passed += call.excinfo is None
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            problem = in_words(call.excinfo.value, Path(self.module.__file__))
            if problem not in exercise.problems:
                exercise.problems.append(problem)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append(report.longreprtext)


def in_words(error: BaseException, file: Path) -> str:
    """A sentence for what a check raised; for an error of the learner's code also the line it came from."""
    if isinstance(error, NotImplementedError):
        return UNWRITTEN + str(error)
    if isinstance(error, AttributeError) and getattr(error.obj, "__file__", None) == str(file):
        return f"{file.name} has no {error.name} any more: take its first lines from the original file."
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, AssertionError) and not lines:
        return str(error)
    where = "in the check, from what your code returned"
    if lines:
        where = f"in {lines[-1].name}, line {lines[-1].lineno} of {file.name}: {lines[-1].line}"
    return f"{type(error).__name__} {where}\n{error}"


def run(checks: Path, module: ModuleType) -> list[Exercise]:
    """Run the checks in a folder on a module. Raises RuntimeError if the checks themselves can't be collected."""
    report = Report(module)
    # Prints of the learner's code are let through (-s): that is how one looks for a mistake.
    options = ["-s", "--assert=plain", "--noconftest", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    options += ["-o", "addopts=--import-mode=importlib"]
    options += ["--disable-plugin-autoload", "-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    status = pytest.main([*options, *map(str, sorted(checks.glob("*.py")))], plugins=[report])
    if status == pytest.ExitCode.INTERRUPTED:  # Ctrl-C
        sys.exit(130)
    if report.broken or status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError("\n".join(report.broken) or f"pytest ended with status {status}")
    return list(report.found.values())


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0 if every exercise passes, 1 if not, 2 for a chapter without exercises."""
    parser = argparse.ArgumentParser(prog="python -m common.check", description="Check the exercises of a chapter.")
    parser.add_argument("chapter", help="its number, or its folder's name")
    parser.add_argument("--file", default="exercises.py", help="exercises.py, solutions.py, or a path")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)

    folders = {folder.name: folder for folder in chapters() if (folder / "exercises.py").exists()}
    number = options.chapter.split(".")[0]
    folder = next((folder for name, folder in folders.items() if name.split(".")[0] == number), None)
    if folder is None:
        there = ", ".join(sorted((name.split(".")[0] for name in folders), key=int))
        console.print(f"Chapter {options.chapter} has no exercises to check. These have: {there}.")
        return 2
    file = (folder / options.file).resolve()
    try:
        module = load(file)
    except Exception as error:  # whatever a learner's file may raise, and a missing one
        console.print(not_loaded(error, file))
        return 1

    exercises = run(ROOT / "tests" / f"checks_{folder.name.replace('.', '_')}", module)
    console.print(str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file), style="bold")
    for exercise in exercises:
        show(console, exercise)
    done = sum(not exercise.problems for exercise in exercises)
    passed, checks = sum(e.passed for e in exercises), sum(e.checks for e in exercises)
    console.print(f"\n{done} of {len(exercises)} exercises pass ({passed} of {checks} checks).", style="bold")
    return 0 if done == len(exercises) else 1


def not_loaded(error: Exception, file: Path) -> str:
    """A sentence for a file of exercises that can't be imported."""
    if isinstance(error, FileNotFoundError):
        return f"There is no {file}."
    if isinstance(error, SyntaxError):
        return f"{file.name} is no Python yet, line {error.lineno}: {error.msg}\n    {(error.text or '').strip()}"
    return f"{file.name} stops while it is imported. {in_words(error, file)}"


def show(console: Console, exercise: Exercise) -> None:
    """One exercise: a line that says how it stands, and its first problems."""
    if not exercise.problems:
        console.print(f"\n  pass  {exercise.title}", style="green")
        return
    wrong = [problem for problem in exercise.problems if not problem.startswith(UNWRITTEN)]
    unwritten = [problem.removeprefix(UNWRITTEN) for problem in exercise.problems if problem.startswith(UNWRITTEN)]
    console.print(f"\n  {'FAIL' if wrong else 'open'}  {exercise.title}", style="red" if wrong else "yellow")
    problems = wrong[:SHOWN]
    if len(wrong) > SHOWN:
        problems.append(f"and {len(wrong) - SHOWN} more; mend these first")
    if unwritten:
        problems.append(UNWRITTEN + ", ".join(unwritten))
    for problem in problems:
        lines = [part for line in problem.splitlines() for part in textwrap.wrap(line, 100)]
        console.print(textwrap.indent("\n".join(lines), " " * 10).replace(" " * 10, "        - ", 1))


if __name__ == "__main__":
    sys.exit(main())
