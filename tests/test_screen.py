"""The terminal's side: numbers, tables, texts shown as they are, and output that goes to the log."""

import io
import os
import re
import subprocess
import sys

import pytest

from common.screen import Screen, fitted, number, output_to


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (1234567, "1,234,567"),
        (0.0, "0"),
        (0.25, "0.25"),
        (3.14159, "3.14"),
        (99.94, "99.9"),
        (1234.5678, "1,235"),
        (-1234.5678, "-1,235"),
        (0.00012345, "1.2e-04"),
        ("text", "text"),
    ],
)
def test_numbers_have_three_digits(value, shown):
    assert number(value) == shown


@pytest.fixture
def screen():
    return Screen(file=io.StringIO())


def shown(screen):
    return screen.console.file.getvalue()


def test_a_table_is_aligned_and_keeps_brackets(screen):
    rows = [
        {"engine": "[bold]vllm[/bold]", "batch": 8, "p50_s": None},
        {"engine": "[/x]", "batch": 16384, "p50_s": 0.5},
    ]
    screen.table(rows, title="recorded on [an] H100")
    lines = [line.rstrip() for line in shown(screen).splitlines() if line.strip()]
    assert lines[0].strip() == "recorded on [an] H100"
    assert lines[1].split() == ["engine", "batch", "p50_s"]
    assert [line.split() for line in lines[3:]] == [["[bold]vllm[/bold]", "8", "–"], ["[/x]", "16,384", "0.5"]]
    assert len({len(line) for line in lines[3:]}) <= 2


def test_on_a_narrow_screen_the_last_columns_are_named_and_no_number_is_cut():
    narrow = Screen(file=io.StringIO())
    narrow.console.width = 60
    names = ["users", "output_tok_s", "tok_s_difference_pct", "ttft_p50_ms", "ttft_difference_pct"]
    narrow.table([dict.fromkeys(names, 1234.0)] * 2)
    header, _, row, _, rest = shown(narrow).strip("\n").splitlines()
    assert header.split() == names[:4] and row.split() == ["1,234"] * 4 and max(len(header), len(row)) <= 60
    assert rest == "not shown on so narrow a screen: ttft_difference_pct"


def test_an_empty_table_is_shown(screen):
    screen.table([])
    assert "Traceback" not in shown(screen)


def test_long_texts_fold_and_compact_ones_are_cut(screen):
    rows = [{"answer": f"{'word ' * 60}end", "output_tokens": 60}] * 2
    screen.table(rows)
    assert shown(screen).count("end") == 2
    screen.table(rows, compact=True)
    assert shown(screen).count("end") == 2
    assert shown(screen).count("…") == 2


def test_columns_of_numbers_are_never_cut():
    row = {"moment": "prompts computed", "block_table": "2 3 4 5 6 7 8 9 10 26", "ref_counts": "2 2 2 2 2 2 2 1 1"}
    row |= {"why": "a sentence that is too long for this", "tokens_kept": 14, "blocks_cached_free": 12345}
    narrow = Screen(file=io.StringIO())
    narrow.console.width = 80
    for compact in (False, True):
        narrow.table([row] * 2, compact=compact)
    assert shown(narrow).count("tokens_kept  blocks_cached_free\n") == 2
    assert shown(narrow).count("14              12,345\n") == 4


@pytest.mark.parametrize(
    "widths, text, room, expected",
    [
        ([10, 50, 5], [True, True, False], 70, [10, 50, 5]),
        ([10, 50, 5], [True, True, False], 50, [10, 35, 5]),  # the sentence gives way
        ([29, 60, 40, 5], [True, True, True, False], 90, [29, 28, 28, 5]),
        ([29, 60, 40, 5], [True, True, True, False], 70, [25, 20, 20, 5]),  # then the name too
        ([20, 9], [False, False], 15, [20, 9]),  # numbers don't
        ([8, 9], [True, False], 12, [8, 9]),
    ],
)
def test_widths_of_columns(widths, text, room, expected):
    assert fitted(widths, text, room) == expected


@pytest.mark.parametrize("text", ["[/bold]", "[red]x", "C:\\models", "a \\[b]", "什么是 KV 缓存"])
def test_texts_are_shown_as_they_are(screen, text):
    screen.say(text)
    screen.aside(text, text)
    screen.stream("answer", [text[:3], text[3:]])
    screen.problem(text, text, text)
    screen.prediction(text, 1.0, "x", text)
    screen.comparison(text, 1.0, 2.0, "x")
    screen.card(text, [("name", text)])
    assert shown(screen).count(text) == 12


def test_a_comparison_with_a_prediction_of_zero_has_no_ratio(screen):
    screen.comparison("rate", 0.0, 2.0, "x")
    assert "measured  rate: 2 x (predicted 0)" in shown(screen)


def test_steps_are_lines_where_there_is_no_terminal(screen):
    with screen.status("preparing") as status:
        status.update("one [step]")
    assert re.search(r"^ +0 s … one \[step\]$", shown(screen), re.MULTILINE)


def test_pausing_without_a_keyboard_does_not_wait():
    Screen(present=True, file=io.StringIO()).pause()


@pytest.mark.parametrize("columns", [0, 40, 200])
def test_the_width_is_the_terminals(columns):
    # A terminal of 0 columns is what some CI systems and `script` give.
    script = (
        "import fcntl, os, pty, struct, sys, termios\n"
        "outside, inside = pty.openpty()\n"
        f"fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack('4H', 24, {columns}, 0, 0))\n"
        "from common.screen import Screen\nprint(Screen(file=os.fdopen(inside, 'w')).console.width)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(ended.stdout) == (columns or 120)


def test_what_is_printed_goes_to_the_log_and_comes_back(tmp_path):
    script = (
        "import os, subprocess, sys; from pathlib import Path; from common.screen import output_to\n"
        "try:\n"
        "    with output_to(Path(sys.argv[1])) as shown:\n"
        "        print('python'); os.write(2, b'C code'); subprocess.run(['echo', 'child'])\n"
        "        print('seen', file=shown)\n"
        "        raise ValueError\n"
        "except ValueError: print('after')"
    )
    log = tmp_path / "new" / "log"
    ended = subprocess.run([sys.executable, "-c", script, log], capture_output=True, text=True, check=True)
    assert ended.stdout == "seen\nafter\n"
    assert ended.stderr == ""
    assert sorted(log.read_text().replace("C code", "C code\n").split("\n"))[1:] == ["C code", "child", "python"]


def test_the_log_leaves_no_open_files(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    with output_to(tmp_path / "log"):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_reader_who_leaves_ends_the_demo_without_a_traceback(tmp_path):
    script = (
        "import sys; from pathlib import Path; from common.screen import Screen, output_to\n"
        "with output_to(Path(sys.argv[1])) as shown:\n"
        "    screen = Screen(file=shown)\n"
        "    for line in range(100_000): screen.say(f'line {line}')\n"
        "print('the end', file=sys.stderr)"
    )
    demo = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "log"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert demo.stdout.readline() == "line 0\n"
    demo.stdout.close()
    assert demo.wait(30) == 1
    assert demo.stderr.read() == ""
