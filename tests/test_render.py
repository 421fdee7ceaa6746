"""Generated pages: marks are filled from results files, and a mark that fits nothing is an error."""

import re
import sys

import pandas as pd
import pytest

from common import render, results
from common.dependencies import source_hash
from common.problems import Problem

DEMO = '''"""9.fake: a chapter"""
import pandas as pd
from common.chapter import Chapter

chapter = Chapter(__file__)


@chapter.experiment
def throughput(run):
    """How fast?"""
    return pd.DataFrame([{"users": 1, "output_tok_s": 1.0}])


chapter.figure(name="speed", experiment="throughput", x="users", y="output_tok_s", title="Speed")
'''

ROWS = [
    {"server": "naive", "users": 1, "output_tok_s": 12.5, "step": "a|b\nc", "measured": True},
    {"server": "vllm", "users": 1, "output_tok_s": 1234.5, "step": "x", "measured": False},
    {"server": "vllm", "users": 16, "output_tok_s": None, "step": "x", "measured": False},
]


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """A course of one chapter, with one experiment recorded on an H100."""
    monkeypatch.setattr(render, "ROOT", tmp_path)
    folder = tmp_path / "9.fake"
    folder.mkdir()
    (folder / "demo.py").write_text(DEMO)
    record = results.record(
        folder=folder,
        question="How fast?",
        command="python 9.fake/demo.py --save",
        hardware={"name": "NVIDIA H100 80GB HBM3", "count": 1, "cores": 16, "driver": "580.1"},
        model={"name": "shape:qwen2.5-7b", "weights": "random", "dtype": "bfloat16"},
        settings={"input_tokens": 1000, "smoke": False},
        predictions=[{"name": "speed-up", "value": 8, "unit": "x", "because": "batch | 8", "measured": 7.5}],
        table=pd.DataFrame(ROWS),
        reading="vLLM is faster.",
        seconds=61.2,
        source=lambda: source_hash(folder / "demo.py", "throughput"),
    )
    results.save(folder, "h100", "throughput", record)
    return folder


def mark(kind, words, body=""):
    space = "\n" if kind == "table" else ""
    return f"<!-- {kind} {words} -->{space}{body}{space}<!-- end {kind} -->"


# ------------------------------------------------------------------------------------------------------- tables


def test_a_table_is_markdown():
    lines = render.table(ROWS).splitlines()
    assert lines[0] == "| server | users | output_tok_s | step | measured |"
    assert lines[1] == "| --- | ---: | ---: | --- | ---: |"
    assert lines[2] == "| naive | 1 | 12.5 | a\\|b c | yes |"
    assert lines[3] == "| vllm | 1 | 1,234 | x | no |"
    assert lines[4] == "| vllm | 16 | – | x | no |"
    assert render.table([]) == "(no rows)"


def test_a_table_mark_is_filled(chapter):
    text = f"before\n\n{mark('table', 'throughput h100')}\n\nafter\n"
    filled = render.fill(text, chapter)
    assert render.table(ROWS) in filled
    assert filled.startswith("before\n\n<!-- table throughput h100 -->\n|")
    assert filled.endswith("|\n<!-- end table -->\n\nafter\n")


def test_a_table_mark_takes_columns_and_rows(chapter):
    words = "throughput h100 columns=users,output_tok_s where=server:vllm,users:1"
    filled = render.fill(mark("table", words), chapter)
    assert filled.splitlines()[1:-1] == ["| users | output_tok_s |", "| ---: | ---: |", "| 1 | 1,234 |"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("throughput h100 output_tok_s where=server:naive", "12.5"),
        ("throughput h100 output_tok_s where=server:vllm,users:1", "1,234"),
        ("throughput h100 output_tok_s where=server:vllm,users:1 format=.1f", "1234.5"),
        ("throughput h100 output_tok_s where=users:16 format=.1f", "–"),
        ("throughput h100 predicted:1", "8"),
        ("throughput h100 measured:1 format=.2f", "7.50"),
        ("throughput h100 measured where=users:16", "no"),
        ("throughput h100 setting:input_tokens", "1,000"),
        ("throughput h200 output_tok_s", "(not recorded yet)"),
        ("unknown h100 output_tok_s", "(not recorded yet)"),
    ],
)
def test_a_value_mark_is_filled(chapter, words, shown):
    # The recorded 1234.5 keeps four digits: 1234 or 1235 by the rule that rounds half to even.
    expected = shown.replace("1234.5", f"{float(f'{1234.5:.4g}'):.1f}")
    assert f"-->{expected}<!--" in render.fill(f"It is {mark('value', words, 'old')} fast.", chapter)


def test_filling_again_changes_nothing(chapter):
    text = "\n".join(
        [
            mark("table", "throughput h100"),
            mark("value", "throughput h100 users where=server:naive", "?") + " and " + mark("value", "a h100 users"),
            mark("table", "throughput h100 columns=users"),
            mark("table", "throughput cpu"),
        ]
    )
    once = render.fill(text, chapter)
    assert once != text
    assert render.fill(once, chapter) == once


def test_what_is_not_recorded_says_so(chapter):
    assert render.fill(mark("table", "other h100"), chapter).splitlines()[1] == "(not recorded yet)"


def test_a_mark_may_name_another_chapter(chapter):
    other = chapter.parent / "10.other"
    other.mkdir()
    assert "-->12.5<!--" in render.fill(
        mark("value", "9.fake/throughput h100 output_tok_s where=server:naive"), other
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (mark("value", "throughput h100 output_tok_s where=server:vllm"), "fits 2 rows"),
        (mark("value", "throughput h100 output_tok_s where=server:other"), "fits 0 rows"),
        (mark("value", "throughput h100 speed where=server:naive"), "speed"),
        (mark("value", "throughput h100 output_tok_s where=server:naive format=.1q"), "format"),
        (mark("value", "throughput h100 output_tok_s where=colour:red"), "colour"),
        (mark("value", "throughput h100 predicted:2"), "2"),
        (mark("value", "throughput h100 predicted:0"), "0"),
        (mark("value", "throughput h100 measured:one"), "one"),
        (mark("value", "throughput h100 setting:users"), "users"),
        (mark("table", "throughput h100 columns=users,speed"), "speed"),
        (mark("table", "throughput h100 where=users"), "users"),
        (mark("table", "throughput h100 sorted"), "sorted"),
        (mark("table", "throughput"), "table"),
        ("<!-- value throughput h100 users -->1", "end"),
        # The first lacks its end: it must not swallow the sentence between the two.
        ("<!-- table throughput h100 -->\nA sentence.\n" + mark("table", "throughput h100"), "end"),
        ("<!-- value throughput h100 users --> words " + mark("value", "other h100 users"), "end"),
    ],
)
def test_a_mark_that_fits_nothing_is_a_problem_that_names_it(chapter, text, message):
    with pytest.raises(Problem, match=message) as problem:
        render.fill(text, chapter)
    assert "9.fake" in str(problem.value)
    assert problem.value.fix


# -------------------------------------------------------------------------------------------------------- pages


def test_results_page_shows_rows_predictions_and_where_they_come_from(chapter):
    page = render.results_page(chapter)
    assert page.startswith("# 9.fake: results\n")
    assert "## h100: NVIDIA H100 80GB HBM3" in page
    assert "### throughput (h100)\n\nHow fast?\n" in page
    assert render.table(results.read(results.path(chapter, "h100"))["experiments"]["throughput"]["rows"]) in page
    assert "vLLM is faster." in page
    assert "![Speed](figures/speed-h100.png)" in page
    assert "| speed-up [x] | 8 | 7.5 | batch \\| 8 |" in page
    for part in (
        "1 × NVIDIA H100 80GB HBM3, 16 cores, driver 580.1",
        "shape:qwen2.5-7b, random weights, bfloat16",
        "input_tokens 1,000, smoke no",
        "`python 9.fake/demo.py --save`; 61 s.",
    ):
        assert part in page
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d UTC, ", page, re.MULTILINE)
    assert "- `output_tok_s` output tokens of all requests together per second [tokens/s]" in page


def test_results_page_of_a_chapter_without_records(chapter):
    results.path(chapter, "h100").unlink()
    assert "## " not in render.results_page(chapter)


def run_main(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["render", *words])
    with pytest.raises(SystemExit) as exit_:
        render.main()
    return exit_.value.code, capsys.readouterr().out.splitlines()


def test_main_writes_what_differs_and_check_only_tells(chapter, monkeypatch, capsys):
    lesson = chapter / "lesson.md"
    lesson.write_text("# Lesson\n\n" + mark("table", "throughput h100") + "\n")
    generated = [chapter / "results.md", chapter / "figures" / "speed-h100.png"]
    told = ["differs: 9.fake/results.md", "differs: 9.fake/lesson.md", "differs: 9.fake/figures/speed-h100.png"]
    assert run_main(monkeypatch, capsys, "--check") == (1, told)
    assert not any(file.exists() for file in generated)
    code, lines = run_main(monkeypatch, capsys)
    assert (code, len(lines)) == (0, 3)
    assert all(file.exists() for file in generated)
    assert "1,234" in lesson.read_text()
    assert run_main(monkeypatch, capsys, "--check") == (0, [])
    (chapter / "demo.py").write_text(DEMO.replace("1.0", "2.0"))
    changed = ["recorded before its code changed: 9.fake h100: throughput"]
    assert run_main(monkeypatch, capsys, "--check") == (0, changed)


def test_main_says_which_mark_is_wrong(chapter, monkeypatch, capsys):
    (chapter / "lesson.md").write_text(mark("value", "throughput h100 users"))
    code, _ = run_main(monkeypatch, capsys)
    assert "fits 3 rows" in code
    assert not (chapter / "results.md").exists()
