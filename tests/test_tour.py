"""`make demo` without a chapter: what it makes of demos that end well, badly or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from common import tour

ROOT = Path(tour.__file__).parent.parent
REPORT = """
import json, sys
report = {"generated_tokens": 12, "experiments": [{"name": "a", "status": "ran"}, {"name": "b", "status": "replayed"},
    {"name": "c", "status": "skipped"}]}
open(sys.argv[sys.argv.index("--json") + 1], "w").write(json.dumps(report))
"""
# A child in a session of its own, as a server started by a demo is: a signal to the demo's group misses it.
HANG = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(300)
"""


def is_running(pid: int) -> bool:
    """A process that has ended but that nobody has waited for does not run."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A function that writes one chapter's demo.py; the tour takes the folder for the course."""
    monkeypatch.setattr(tour, "ROOT", tmp_path)

    def write(name: str, code: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "demo.py").write_text(code)
        return tmp_path / name / "demo.py"

    return write


def test_a_tour_counts_what_ran_and_fails_where_a_demo_does(course, tmp_path, capsys):
    course("0.good", REPORT)
    course("1.failing", REPORT + "\nprint('the reason')\nsys.exit(1)")
    course("2.silent", "")
    assert tour.main(["--json", str(tmp_path / "all.json")]) == 1
    printed = capsys.readouterr().out
    assert "the reason" in printed
    problems = {report["chapter"]: report["problem"] for report in json.loads((tmp_path / "all.json").read_text())}
    assert problems == {"0.good": "", "1.failing": "exit status 1", "2.silent": "it wrote no report"}
    (tmp_path / "1.failing/demo.py").unlink()
    (tmp_path / "2.silent/demo.py").unlink()
    assert tour.main([]) == 0


def test_a_demo_that_hangs_is_stopped_with_everything_it_started(course, tmp_path, monkeypatch):
    demo = course("0.hangs", HANG)
    screen = tmp_path / "screen.txt"
    report = tour.run_demo(demo, tmp_path / "report.json", screen, [], limit_s=2)
    assert report["problem"] == "not finished after 2 s"
    assert not is_running(int(screen.read_text().split()[0]))


def test_ctrl_c_stops_the_demo_and_its_children(course, tmp_path):
    course("0.hangs", HANG)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from common import tour; from pathlib import Path; "
    code += f"tour.ROOT = Path({str(tmp_path)!r}); sys.exit(tour.main([]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 20
    while len(family := psutil.Process(process.pid).children(recursive=True)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    printed, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted" in printed and "Traceback" not in errors
    assert not [child.pid for child in family if is_running(child.pid)]
