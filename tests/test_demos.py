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
LIMIT_S = 420


@pytest.mark.engine
@pytest.mark.parametrize("folder", DEMOS, ids=lambda folder: folder.name)
def test_smoke(folder, tmp_path, waiting_for_a_gpu):
    report_file = tmp_path / "report.json"
    experiments = load(folder / "demo.py").chapter.experiments
    # What no GPU has recorded yet has nothing to show here: the rest is run, and then the test says what it left out.
    waiting = waiting_for_a_gpu(folder) if not hardware.gpus() else set()
    runnable = [name for name in experiments if name not in waiting]
    chosen = [word for name in runnable for word in ("--only", name)] if waiting else []
    demo = subprocess.run(
        [sys.executable, folder / "demo.py", "--smoke", "--json", report_file, *chosen],
        capture_output=True, text=True, timeout=LIMIT_S, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert demo.returncode == 0, demo.stdout[-3000:] + demo.stderr[-3000:]
    assert "Traceback" not in demo.stdout + demo.stderr
    report = json.loads(report_file.read_text())
    assert [entry["name"] for entry in report["experiments"]] == runnable
    for entry in report["experiments"]:
        # The only reason for not running an experiment is hardware that this machine does not have.
        excused = experiments[entry["name"]].gpu and not hardware.gpus()
        assert entry["status"] == ("replayed" if excused else "ran"), entry
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
    recorded = [name for name in load(folder / "demo.py").chapter.experiments if name not in waiting]
    chosen = [word for name in recorded for word in ("--only", name)] if waiting else []
    demo = subprocess.run(
        [sys.executable, folder / "demo.py", "--replay", "--json", tmp_path / "report.json", *chosen],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stdout + demo.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert {entry["status"] for entry in report["experiments"]} == {"replayed"}
    assert demo.stdout.count("recorded on") == len(report["experiments"])
    if waiting:
        pytest.skip(f"all else is replayed; not recorded yet, for want of a GPU: {', '.join(sorted(waiting))}")
