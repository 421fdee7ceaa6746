"""Each demo in its short form, as a child process: every experiment ran or was replayed, and an engine generated."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from common import hardware
from common.chapters import chapters, load

DEMOS = chapters()
LIMIT_S = 700


@pytest.mark.engine
@pytest.mark.parametrize("folder", DEMOS, ids=lambda folder: folder.name)
def test_smoke(folder, tmp_path, waiting_for_a_gpu):
    report_file = tmp_path / "report.json"
    experiments = load(folder / "demo.py").chapter.experiments
    # What no GPU has recorded yet has nothing to show here: it is skipped, and then this test says so.
    waiting = waiting_for_a_gpu(folder) if not hardware.gpus() else set()
    demo = subprocess.run(
        [sys.executable, folder / "demo.py", "--smoke", "--json", report_file],
        capture_output=True, text=True, timeout=LIMIT_S, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert demo.returncode == 0, demo.stdout[-3000:] + demo.stderr[-3000:]
    assert "Traceback" not in demo.stdout + demo.stderr
    report = json.loads(report_file.read_text())
    assert [entry["name"] for entry in report["experiments"]] == list(experiments)
    for entry in report["experiments"]:
        # The only reason for not running an experiment is hardware that this machine does not have.
        excused = experiments[entry["name"]].gpu and not hardware.gpus()
        shown = "skipped" if entry["name"] in waiting else "replayed"
        assert entry["status"] == (shown if excused else "ran"), entry
        if entry["status"] == "ran":
            assert report["rows"][entry["name"]], f"{entry['name']} has an empty table"
    assert report["generated_tokens"] > 0, "no engine generated anything"
    left = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("TMPDIR") == str(tmp_path)]
    _, left = psutil.wait_procs(left, timeout=5)  # Python's resource tracker ends when its parent has
    assert not left, f"processes left behind: {left}"
    if waiting:
        pytest.skip(f"all else ran; not recorded yet, for want of a GPU: {', '.join(sorted(waiting))}")


@pytest.mark.parametrize("folder", DEMOS, ids=lambda folder: folder.name)
def test_replay_shows_hardware_and_date(folder, tmp_path, waiting_for_a_gpu):
    waiting = waiting_for_a_gpu(folder)
    demo = subprocess.run(
        [sys.executable, folder / "demo.py", "--replay", "--json", tmp_path / "report.json"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stdout + demo.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    statuses = {entry["name"]: entry["status"] for entry in report["experiments"]}
    assert {name for name, status in statuses.items() if status != "replayed"} == waiting, statuses
    assert demo.stdout.count("recorded on") == len(statuses) - len(waiting)
    if waiting:
        pytest.skip(f"all else is replayed; not recorded yet, for want of a GPU: {', '.join(sorted(waiting))}")
