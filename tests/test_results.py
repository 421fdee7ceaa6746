"""Results files: written whole or not at all, read with clear messages, and hashes that follow the code."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common import results
from common.dependencies import source_hash
from common.problems import Problem

ROOT = Path(results.__file__).parent.parent


@pytest.fixture
def record(tmp_path):
    """A function that makes a whole record around a table."""

    def build(table=None, **changes):
        settings = {
            "folder": tmp_path,
            "question": "How fast?",
            "command": "python 9.fake/demo.py --save",
            "hardware": {"name": "Some CPU", "count": 1, "cores": 2, "driver": None},
            "model": {"name": "course-lm", "weights": "0123456789abcdef", "dtype": "bfloat16"},
            "settings": {"seed": 0},
            "predictions": [],
            "table": pd.DataFrame([{"batch": 1, "output_tok_s": 10.0}]) if table is None else table,
            "reading": "It is fast.",
            "seconds": 1.23,
            "source": lambda: "feedfacefeedface",
        }
        return results.record(**(settings | changes))

    return build


# ------------------------------------------------------------------------------------------- writing and reading


def test_what_is_saved_is_read(tmp_path, record):
    table = pd.DataFrame([{"server": "vllm", "users": 4, "p50_s": 0.25, "failed": 0}])
    file = results.save(tmp_path, "cpu", "first", record(table))
    results.save(tmp_path, "cpu", "second", record())
    stored = results.read(file)
    assert file == tmp_path / "results" / "cpu.json"
    assert (stored["schema"], stored["hardware"]) == (results.SCHEMA, "Some CPU")
    assert list(stored["experiments"]) == ["first", "second"]
    assert stored["experiments"]["first"]["rows"] == [{"server": "vllm", "users": 4, "p50_s": 0.25, "failed": 0}]
    assert stored["experiments"]["first"]["columns"]["p50_s"]["unit"] == "s"
    assert "latency" in stored["experiments"]["first"]["columns"]["p50_s"]["meaning"]


def test_saving_again_replaces_one_experiment_alone(tmp_path, record):
    results.save(tmp_path, "cpu", "first", record())
    results.save(tmp_path, "cpu", "second", record())
    results.save(tmp_path, "cpu", "first", record(reading="It is slow."))
    experiments = results.read(results.path(tmp_path, "cpu"))["experiments"]
    assert [entry["reading"] for entry in experiments.values()] == ["It is slow.", "It is fast."]


def test_files_are_read_with_the_preferred_hardware_first(tmp_path, record):
    for slug in ("zeta", "cpu", "h200", "h100", "alpha"):
        results.save(tmp_path, slug, "first", record())
    assert list(results.read_all(tmp_path)) == ["h100", "h200", "cpu", "alpha", "zeta"]
    assert results.read_all(tmp_path / "none") == {}


GOOD = '{"schema": 1, "hardware": "x", "experiments": {}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        GOOD.encode()[:-3],
        b"[1, 2]",
        b"null",
        b"\xff\xfe\x00",
        b'{"schema": 1}',
        b'{"schema": 1, "experiments": []}',
        b'{"schema": 1, "experiments": {"first": 7}}',
        b'{"schema": 1, "experiments": {"first": {"rows": []}}}',
        b'{"schema": 1, "experiments": {"first": {"rows": [], "date": "", "hardware": {}}}}',
    ],
)
def test_a_damaged_file_is_named_with_the_fix(tmp_path, content):
    file = tmp_path / "cpu.json"
    file.write_bytes(content)
    with pytest.raises(Problem, match=r"cpu\.json is damaged") as problem:
        results.read(file)
    assert "git checkout" in problem.value.fix


def test_a_file_cut_short_is_damaged(tmp_path, record):
    file = results.save(tmp_path, "cpu", "first", record())
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    with pytest.raises(Problem, match="damaged"):
        results.read_all(tmp_path)
    with pytest.raises(Problem, match="damaged"):
        results.save(tmp_path, "cpu", "second", record())
    assert file.read_text() == whole[: len(whole) // 2], "a damaged file may hold what somebody wants back"


def test_another_schema_says_so(tmp_path):
    file = tmp_path / "cpu.json"
    file.write_text(GOOD.replace('"schema": 1', '"schema": 99'))
    with pytest.raises(Problem, match="schema 99, this course reads 1") as problem:
        results.read(file)
    assert problem.value.fix


def test_a_place_that_cannot_be_written_is_a_problem(tmp_path, record):
    # A path below a regular file: nobody can write there, root included.
    (tmp_path / "chapter").write_text("a file, not a folder")
    for attempt in (
        lambda: results.check_writable(tmp_path / "chapter"),
        lambda: results.save(tmp_path / "chapter", "cpu", "first", record()),
    ):
        with pytest.raises(Problem, match="can't be written") as problem:
            attempt()
        assert str(tmp_path / "chapter" / "results") in problem.value.fix


def test_checking_leaves_nothing_behind(tmp_path):
    results.check_writable(tmp_path)
    assert list((tmp_path / "results").iterdir()) == []


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path, record):
    file = results.save(tmp_path, "cpu", "first", record())
    before = file.read_text()
    script = (
        "import os, signal, sys; from pathlib import Path; from common import results;"
        "os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL);"
        "results.write(Path(sys.argv[1]), 'half')"
    )
    ended = subprocess.run([sys.executable, "-c", script, file], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert file.read_text() == before
    assert list(results.read_all(tmp_path)) == ["cpu"]
    results.save(tmp_path, "cpu", "second", record())
    assert list(results.read(file)["experiments"]) == ["first", "second"]


def test_an_unknown_column_is_refused_before_anything_is_written(tmp_path, record):
    with pytest.raises(ValueError, match=r"without unit and meaning: \['speediness'\]"):
        results.save(tmp_path, "cpu", "first", record(pd.DataFrame([{"batch": 1, "speediness": 2.0}])))
    assert not results.path(tmp_path, "cpu").exists()


# ------------------------------------------------------------------------------------------------------- records


def test_a_record_holds_all_that_the_design_asks_for(record):
    made = record()
    assert set(made) == {
        "question", "command", "date", "commit", "dirty", "hardware", "environment", "versions", "model", "settings",
        "predictions", "source_hash", "seconds", "columns", "reading", "rows",
    }  # fmt: skip
    assert {"python", "vllm", "torch", "transformers"} <= made["versions"].keys()
    assert made["date"].endswith(" UTC")


def test_rows_hold_plain_values():
    table = pd.DataFrame(
        {
            "users": np.array([1, 2, 3]),
            "output_tok_s": [1234.5678, np.nan, np.inf],
            "p50_s": np.array([0.123456, -np.inf, 1.0], dtype=np.float32),
            "fixed_works": np.array([True, False, True]),
            "step": ["text", None, pd.NA],
        }
    )
    rows = results.rows(table)
    assert rows[0] == {"users": 1, "output_tok_s": 1235.0, "p50_s": 0.1235, "fixed_works": True, "step": "text"}
    assert rows[1] == {"users": 2, "output_tok_s": None, "p50_s": None, "fixed_works": False, "step": None}
    assert rows[2]["output_tok_s"] is None
    assert rows[2]["step"] is None
    assert type(rows[0]["users"]) is int
    assert type(rows[0]["fixed_works"]) is bool


def test_values_that_json_cannot_hold_do_not_lose_the_measurement(tmp_path, record):
    predictions = [
        {"name": "speed-up", "value": float("inf"), "unit": "x", "because": "no reason", "measured": float("nan")}
    ]
    settings = {"seed": np.int64(7), "rate": np.float64("nan"), "lengths": [np.int64(1), 2]}
    file = results.save(tmp_path, "cpu", "first", record(predictions=predictions, settings=settings))
    stored = results.read(file)["experiments"]["first"]
    assert stored["predictions"][0]["value"] is None
    assert stored["predictions"][0]["measured"] is None
    assert stored["settings"] == {"seed": 7, "rate": None, "lengths": [1, 2]}
    assert "NaN" not in file.read_text()


def test_the_environment_is_what_changes_a_measurement(monkeypatch):
    kept = {"VLLM_CPU_KVCACHE_SPACE", "NCCL_DEBUG", "CUDA_HOME", "OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"}
    for name in kept | {"PYTHONPATH", "COURSE_TEST_SECRET"}:
        monkeypatch.setenv(name, "1")
    found = results.environment()
    assert kept <= found.keys()
    assert "PYTHONPATH" not in found and "COURSE_TEST_SECRET" not in found


def git(folder, *words):
    identity = ["-c", "user.name=course", "-c", "user.email=course@example.org"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_commit_and_whether_code_differs_from_it(tmp_path):
    chapter = tmp_path / "9.fake"
    chapter.mkdir()
    (chapter / "demo.py").write_text("one\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert results.commit(chapter) == (head, False)
    # What a recording writes does not make the next experiment's tree dirty, here or in another chapter.
    for folder in (chapter, tmp_path / "10.other"):
        for name in ("results/cpu.json", "figures/a-cpu.png", "results.md"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("new")
    assert results.commit(chapter) == (head, False)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "two")
    (chapter / "results" / "cpu.json").write_text("newer")
    assert results.commit(chapter)[1] is False
    (chapter / "demo.py").write_text("two\n")
    assert results.commit(chapter)[1] is True


def test_without_git_the_commit_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("COURSE_COMMIT", raising=False)
    assert results.commit(tmp_path) == ("unknown", False)
    monkeypatch.setenv("COURSE_COMMIT", "abc123")
    assert results.commit(tmp_path) == ("abc123", False)


def test_stale_names_the_records_whose_code_has_changed(tmp_path, record):
    demo = tmp_path / "demo.py"
    text = "BATCH = 8\n\n\ndef first(run):\n    return BATCH\n\n\ndef second(run):\n    return 2\n"
    demo.write_text(text)
    for name in ("first", "second"):
        source = source_hash(demo, name)
        results.save(tmp_path, "cpu", name, record(source=lambda source=source: source))
    assert results.stale(tmp_path) == []
    demo.write_text(text.replace("BATCH = 8", "BATCH = 16"))
    assert results.stale(tmp_path) == [f"{tmp_path.name} cpu: first"]
    demo.write_text(text.replace("def second", "def third"))
    assert results.stale(tmp_path) == [f"{tmp_path.name} cpu: second"]
