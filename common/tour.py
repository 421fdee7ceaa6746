"""Every chapter's demo in its short form, in order: what `make demo` shows when no chapter is named.

Each demo is a child process with its own time limit. Its screen goes to a file, its report is read, and a
table at the end says what ran, what was shown as recorded, what could be neither, and what failed.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console

from common.chapters import ROOT, chapters
from common.screen import Screen

TAIL_LINES = 15
STATES = ("ran", "replayed", "skipped", "failed")  # of an experiment, in a demo's report


def stop(process: subprocess.Popen, patience_s: float = 15.0) -> None:
    """End a demo as Ctrl-C would, so that it cleans up; then kill what is left of it and of its children."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=1)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, timeout=5)
    process.wait()


def run_demo(demo: Path, report: Path, screen: Path, arguments: list[str], limit_s: float) -> dict:
    """Run one demo and return its report, with `seconds` and, where it went wrong, `problem` added."""
    command = [sys.executable, str(demo), "--smoke", "--json", str(report), *arguments]
    start = time.monotonic()
    problem = ""
    with screen.open("w") as output:
        # A session of its own: Ctrl-C reaches this process alone, and `stop` passes it on once.
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            if process.wait(limit_s):
                problem = f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            problem = f"not finished after {limit_s:.0f} s"
        finally:
            stop(process)
    try:
        found = json.loads(report.read_text())
    except (OSError, ValueError):
        found, problem = {"experiments": []}, problem or "it wrote no report"
    return found | {
        "chapter": demo.parent.name,
        "seconds": round(time.monotonic() - start, 1),
        "problem": problem,
    }


def summary(reports: list[dict]) -> list[dict]:
    """One row a chapter: how many experiments ended in each state; tokens generated; seconds; what went wrong."""
    rows = []
    for report in reports:
        states = [experiment["status"] for experiment in report["experiments"]]
        counts = {state: states.count(state) for state in STATES}
        of_all = {"tokens": report.get("generated_tokens", 0), "seconds": round(report["seconds"])}
        rows.append({"chapter": report["chapter"]} | counts | of_all | {"ended": report["problem"] or "ok"})
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run all demos; 0 if each ended well, 1 if one did not, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m common.tour", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all reports into one file")
    parser.add_argument("--limit", type=float, default=900, metavar="S", help="seconds that one demo may take")
    options, passed_on = parser.parse_known_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="course-demo-"))
    demos = [folder / "demo.py" for folder in chapters(ROOT)]
    reports, interrupted = [], False
    console.print(f"{len(demos)} chapters in their short form. What they print goes to {folder}", soft_wrap=True)
    try:
        for place, demo in enumerate(demos, 1):
            name = demo.parent.name
            screen = folder / f"{name}.txt"
            with console.status(f"{place} of {len(demos)}  {name}"):
                report = run_demo(demo, folder / f"{name}.json", screen, passed_on, options.limit)
            reports.append(report)
            mark = "[red]✗[/red]" if report["problem"] else "[green]✓[/green]"
            console.print(f"{mark} {place} of {len(demos)}  {name}  {report['seconds']:.0f} s")
            if report["problem"]:
                tail = screen.read_text(errors="replace").splitlines()[-TAIL_LINES:]
                console.print("\n".join(f"    {line}" for line in tail), markup=False)
    except KeyboardInterrupt:
        interrupted = True
        console.print("Interrupted: the demo that ran was stopped.")
    Screen().table(summary(reports))
    console.print("One chapter in full: make demo CH=3")
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1, ensure_ascii=False) + "\n")
    if interrupted:
        return 130
    return 1 if any(report["problem"] for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
