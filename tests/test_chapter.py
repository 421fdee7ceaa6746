"""Demos from the command line, as child processes: what they show, write, save, replay, and how they end."""

import json
import os
import pty
import re
import signal
import time

import pytest
from fake_chapter import Course

from common import results
from common.dependencies import source_hash


@pytest.fixture
def course(tmp_path):
    return Course(tmp_path)


def statuses(report):
    return {entry["name"]: entry["status"] for entry in report["experiments"]}


def one_line(shown):
    return re.sub(r"\s+", " ", shown)


# ------------------------------------------------------------------------------------------------- command lines


def test_list_names_the_experiments_without_running_any(course):
    code, shown, _ = course.run("--list")
    lines = shown.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == ["works", "fails", "needs_a_gpu", "waits", "lacks_rows"]
    assert "Does it work?" in lines[0]
    assert lines[2].endswith("(GPU)")
    assert not list(course.logs.iterdir())


def test_help_holds_the_docstring_and_the_chapters_own_option(course):
    code, shown, _ = course.run("--help")
    assert code == 0
    assert "9.fake: a chapter for the tests\n\nTo copy: make demo CH=9" in shown
    assert "--colour" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "wroks"], "There is no experiment wroks. .*works, fails, needs_a_gpu, waits, lacks_rows"),
        (["--model", "course-lmm"], "There is no model course-lmm. .*Did you mean course-lm?"),
        (["--model", "shape:llama-3-70b"], r"shape:llama-3-70b needs 13\d\.\d GiB"),
        (["--replay"], "No run is recorded for this chapter. .*none yet"),
        (["--replay", "b200"], "No run is recorded for b200"),
    ],
)
def test_a_command_that_cannot_run_says_why_at_once(course, words, message):
    code, shown, report = course.run(*words, "--json", course.report)
    assert code == 1
    assert re.search(message, one_line(shown))
    assert "fix" in shown
    assert "Traceback" not in shown
    assert report["experiments"] == []


def test_a_report_goes_into_a_new_folder(course, tmp_path):
    report = tmp_path / "new" / "report.json"
    course.run("--only", "wroks", "--json", report)
    assert json.loads(report.read_text())["chapter"] == "9.fake"


def test_a_model_with_a_damaged_config_gives_one_message(course, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    code, shown, _ = course.run("--model", tmp_path)
    assert code == 1
    assert "error" in shown
    assert "Traceback" not in shown


def test_replayed_numbers_cannot_be_saved(course):
    course.record("works")
    before = results.path(course.folder, "h100").read_bytes()
    code, shown, _ = course.run("--replay", "--save")
    assert code == 2
    assert "--replay" in shown
    assert "--save" in shown
    assert results.path(course.folder, "h100").read_bytes() == before
    assert list(results.read_all(course.folder)) == ["h100"]


def test_a_damaged_results_file_gives_one_clear_message(course):
    course.record("works")
    file = results.path(course.folder, "h100")
    file.write_text(file.read_text()[:100])
    code, shown, _ = course.run("--replay")
    assert code == 1
    assert "h100.json is damaged" in shown.replace("\n", "")
    assert "git checkout" in shown
    assert "Traceback" not in shown
    assert "Does it work?" not in shown


def test_results_that_cannot_be_written_stop_the_demo_before_it_measures(course):
    (course.folder / "results").write_text("a file")
    code, shown, _ = course.run("--save")
    assert code == 1
    assert "can't be written" in shown
    assert "Does it work?" not in shown


def test_a_report_that_cannot_be_written_stops_the_demo_before_it_measures(course):
    code, shown, _ = course.run("--only", "works", "--json", course.demo / "report.json")
    assert code == 2
    assert "can't be written" in one_line(shown)
    assert "Traceback" not in shown
    assert "Does it work?" not in shown


# ----------------------------------------------------------------------------------------------------- a full run


def test_a_run_shows_each_experiment_and_reports_how_it_ended(course):
    course.record("works")
    course.record("needs_a_gpu")
    code, shown, report = course.run("--smoke", "--json", course.report)
    text = one_line(shown)
    assert code == 1
    assert statuses(report) == {
        "works": "ran", "fails": "failed", "needs_a_gpu": "replayed", "waits": "ran", "lacks_rows": "failed",
    }  # fmt: skip
    assert (report["chapter"], report["hardware"], report["model"]) == ("9.fake", "cpu", "course-lm")
    assert (report["smoke"], report["generated_tokens"]) == (True, 7)
    row = {"engine": "vllm", "batch": 2, "output_tok_s": 3.0, "p50_s": None}
    assert report["rows"] == {"works": [row], "waits": [{"seconds": 1.5}]}
    reasons = {entry["name"]: entry["reason"] for entry in report["experiments"]}
    assert "out of memory" in reasons["fails"]
    assert "no GPU" in reasons["needs_a_gpu"]
    # The card, then the question, the prediction, an answer as it is, the measurement, the table and its reading.
    order = [
        "9.fake: a chapter for the tests", "course-lm, trained weights", "works 1 of 5", "Does it work?",
        "predicted rate: 2 tokens/s (two by two)", "a [red] answer [/b]", "output_tok_s on h100", "4,321",
        "measured rate: 3 tokens/s (predicted 2, 1.50 of the prediction)", "It works.",
        "fails 2 of 5", "RuntimeError: CUDA out of memory", "did not fit the memory", "fix",
        "needs_a_gpu 3 of 5", "this machine has no GPU", "recorded on NVIDIA H100 80GB HBM3, 2026-01-02 03:04 UTC",
        "(random weights)", "It was fast.", "waiting now", "It read 1 row.",
        "This needs the rows of needs_a_gpu", "--only needs_a_gpu", "failed: fails, lacks_rows",
    ]  # fmt: skip
    places = [text.find(part) for part in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    # What is printed meanwhile goes to the log, and so does the traceback.
    for line in ("printed by the experiment", "printed by a child", "written by C code", "Traceback"):
        assert line not in shown
        assert line in course.log()


def test_only_runs_what_it_names_and_all_well_is_status_zero(course):
    code, shown, report = course.run("--only", "waits", "--only", "works", "--colour", "blue", "--json", course.report)
    assert code == 0
    assert statuses(report) == {"works": "ran", "waits": "ran"}
    assert "a [blue] answer" in shown
    assert report["rows"]["works"][0]["batch"] == 8


# --------------------------------------------------------------------------------------------- saving and resuming


def test_save_resume_and_replay(course):
    course.record("works")
    code, _, _ = course.run("--save", "--repeats", "5")
    stored = results.read(results.path(course.folder, "cpu"))
    assert code == 1  # `fails` did, and nothing shows needs_a_gpu: what ran is saved all the same
    assert list(stored["experiments"]) == ["works", "waits"]
    record = stored["experiments"]["works"]
    assert {key: record[key] for key in ("question", "reading", "dirty")} == {
        "question": "Does it work?", "reading": "It works.", "dirty": False,
    }  # fmt: skip
    assert record["command"] == "python 9.fake/demo.py --save --repeats 5"
    assert record["rows"] == [{"engine": "vllm", "batch": 8, "output_tok_s": 3.0, "p50_s": None}]
    assert record["settings"] == {"seed": 0, "repeats": 5, "smoke": False}
    assert record["predictions"] == [
        {"name": "rate", "value": 2.0, "unit": "tokens/s", "because": "two by two", "measured": 3.0}
    ]
    assert record["model"]["name"] == "course-lm"
    assert re.fullmatch(r"[0-9a-f]{16}", record["model"]["weights"])
    about = {"name", "count", "memory_bytes", "driver", "cpu", "cores", "python_ms", "clocks_before", "clocks_after"}
    assert about == set(record["hardware"])
    assert 1 < record["hardware"]["python_ms"] < 1000
    assert record["versions"]["vllm"] != "not installed"
    assert record["source_hash"] == source_hash(course.demo, "works")
    assert record["columns"]["output_tok_s"]["unit"] == "tokens/s"
    assert record["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", record["date"])

    # Resumed: what is saved is shown as this machine saved it, and not measured again.
    saved = results.path(course.folder, "cpu").read_bytes()
    words = ("--save", "--resume", "--only", "works", "--json", course.report)
    code, shown, report = course.run(*words, "--repeats", "5")
    assert code == 0
    assert statuses(report) == {"works": "replayed"}
    assert "saved already" in report["experiments"][0]["reason"]
    assert f"recorded on {stored['hardware']}" in one_line(shown)
    assert "4,321" not in shown
    assert results.path(course.folder, "cpu").read_bytes() == saved

    # A smoke run's sizes are others, and so is what other options ask for: the record does not stand for them.
    for others in (("--smoke", "--repeats", "5"), (), ("--model", "course-lm")):
        _, _, report = course.run(*words, *others)
        assert statuses(report) == {"works": "ran"}

    # What needs a GPU, and has not been recorded on one, is no fault of this machine.
    code, shown, report = course.run("--only", "needs_a_gpu", "--json", course.report)
    assert code == 0
    assert statuses(report) == {"needs_a_gpu": "skipped"}
    assert "Not run here: this machine has no GPU. No recorded run of it exists yet." in one_line(shown)
    assert "failed" not in shown

    code, shown, _ = course.run("--repeats", "0")
    assert code == 1 and "Take --repeats 1 or more" in shown

    # Replayed: by default the preferred hardware, and any by name.
    code, shown, report = course.run("--replay", "--only", "works", "--json", course.report)
    assert code == 0
    assert statuses(report) == {"works": "replayed"}
    assert "recorded on NVIDIA H100 80GB HBM3, 2026-01-02 03:04 UTC" in one_line(shown)
    assert "predicted rate: 5 tokens/s (it was so)" in one_line(shown)
    assert "4,321" in shown
    assert report["rows"] == {}
    code, shown, _ = course.run("--replay", "cpu", "--only", "works")
    assert code == 0
    assert "4,321" not in shown
    assert "It works." in shown


# --------------------------------------------------------------------------------------------------- interruption


def test_an_interrupt_keeps_what_was_saved_and_writes_the_report(tmp_path):
    courses = {}
    for how in (signal.SIGINT, signal.SIGTERM):  # both at once: starting takes the time
        (tmp_path / how.name).mkdir()
        course = courses[how] = Course(tmp_path / how.name)
        words = ("--save", "--only", "works", "--only", "waits", "--json", course.report)
        course.process = course.start(*words, env={"WAIT_S": "60"})
    for how, course in courses.items():
        shown = ""
        for line in course.process.stdout:
            shown += line
            if "waiting now" in line:
                break
        time.sleep(0.2)
        course.process.send_signal(how)
        rest, _ = course.process.communicate(timeout=20)
        assert course.process.returncode == 130
        assert "Interrupted. What was saved stays saved" in rest
        assert "Traceback" not in shown + rest
        assert statuses(json.loads(course.report.read_text())) == {"works": "ran"}
        assert list(results.read(results.path(course.folder, "cpu"))["experiments"]) == ["works"]


def test_a_second_interrupt_does_not_cut_the_cleaning_up_short(course):
    words = ("--only", "works", "--only", "waits", "--json", course.report)
    process = course.start(*words, env={"WAIT_S": "60", "CLOSE_S": "1.5"})
    shown = ""
    for line in process.stdout:
        shown += line
        if "waiting now" in line:
            break
    time.sleep(0.2)  # in the middle of the line it would be written twice
    process.send_signal(signal.SIGINT)
    for line in process.stdout:
        shown += line
        if "Interrupted" in line:
            break
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in shown + rest
    assert statuses(json.loads(course.report.read_text())) == {"works": "ran"}


# ---------------------------------------------------------------------------------------------- before an audience


class Terminal:
    """A demo in a terminal of its own, which can press keys."""

    def __init__(self, course, *words):
        self.keyboard, inside = pty.openpty()
        self.process = course.start(*words, stdin=inside, stdout=inside, stderr=inside, text=False)
        os.close(inside)
        os.set_blocking(self.keyboard, False)
        self.shown = ""

    def wait_for(self, text, seconds=30):
        """Read until `text` was shown after the last key."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self.shown += os.read(self.keyboard, 65536).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # the other side is closed
                break
            if text in self.shown:
                return True
        return text in self.shown

    def press(self, key):
        self.shown = ""
        time.sleep(0.1)
        os.write(self.keyboard, key.encode())


def test_presenting_waits_for_a_key_at_question_prediction_and_table(course):
    course.record("works")
    terminal = Terminal(course, "--replay", "--present", "--only", "works")
    for shown, not_yet in (("Does it work?", "it was so"), ("it was so", "4,321"), ("4,321", "It was fast.")):
        assert terminal.wait_for("any key"), terminal.shown
        assert shown in terminal.shown
        assert not_yet not in terminal.shown
        terminal.press(" ")
    assert terminal.wait_for("It was fast."), terminal.shown
    assert terminal.process.wait(10) == 0


def test_presenting_ends_at_q(course):
    course.record("works")
    terminal = Terminal(course, "--replay", "--present", "--only", "works")
    assert terminal.wait_for("any key"), terminal.shown
    terminal.press("q")
    assert terminal.wait_for("Interrupted"), terminal.shown
    assert terminal.process.wait(10) == 130
