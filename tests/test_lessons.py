"""Lessons: the sections that every chapter has, in both languages; commands that exist; generated parts up to date."""

import ast
import re
import shlex
import subprocess
import sys

import pytest

from common import render, results
from common.chapters import chapters, load

CHAPTERS = chapters()
PAGES = [page for folder in [*CHAPTERS, render.ROOT] for page in sorted(folder.glob("*.md"))]
PAIRS = [(page, page.with_suffix(".zh.md")) for page in PAGES if page.with_suffix(".zh.md").exists()]
SECTIONS = ["Why it pays", "Predict, then run", "Reading the results", "Pitfalls", "Checklist", "Exercises", "Sources"]
SECTIONS_ZH = ["为什么值得", "先预测", "读懂结果", "常见误区", "实战检查清单", "动手练习", "资料来源"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[tuple[int, str]]:
    """(level, title) of every heading outside code."""
    return [(len(m[1]), m[2]) for m in re.finditer(r"^(#+) (.+)$", FENCE.sub("", text), re.MULTILINE)]


def code(text: str) -> list[str]:
    """Code blocks; drawings are left out, since their labels are translated."""
    return [body for language, body in FENCE.findall(text) if language != "mermaid"]


def marks(text: str) -> list[str]:
    return re.findall(r"<!-- (?:table|value) .*?-->", text)


def links(text: str) -> list[str]:
    return [re.sub(r"\.zh\.md", ".md", link) for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text))]


@pytest.mark.parametrize("folder", CHAPTERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name,sections", [("lesson.md", SECTIONS), ("lesson.zh.md", SECTIONS_ZH)])
def test_lesson_has_its_sections_in_order(folder, name, sections):
    text = (folder / name).read_text()
    titles = [title for level, title in headings(text) if level == 2]
    places = [next((i for i, title in enumerate(titles) if title.startswith(section)), None) for section in sections]
    assert None not in places, f"missing: {[s for s, p in zip(sections, places, strict=True) if p is None]} in {titles}"
    assert places == sorted(places)
    number = folder.name.split(".")[0]
    numbered = [title for _, title in headings(text) if re.match(rf"{number}\.\d+ ", title)]
    assert [int(title.split()[0].split(".")[1]) for title in numbered] == list(range(1, len(numbered) + 1))
    assert len(numbered) >= 5
    assert text.count("<details>") == text.count("</details>") >= 1


@pytest.mark.parametrize("english,chinese", PAIRS, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_both_languages_say_the_same(english, chinese):
    en, zh = english.read_text(), chinese.read_text()
    assert [level for level, _ in headings(en)] == [level for level, _ in headings(zh)]
    assert code(en) == code(zh)
    assert marks(en) == marks(zh)
    assert sorted(links(en)) == sorted(links(zh))
    assert en.count("\n|") == zh.count("\n|"), "tables differ in rows"


@pytest.mark.parametrize("folder", CHAPTERS, ids=lambda folder: folder.name)
def test_every_experiment_is_in_the_lesson_and_recorded(folder, waiting_for_a_gpu):
    lesson = (folder / "lesson.md").read_text()
    recorded = {name for stored in results.read_all(folder).values() for name in stored["experiments"]}
    for name in load(folder / "demo.py").chapter.experiments:
        assert f"`{name}`" in lesson or f"--only {name}" in lesson, f"{name} is not in the lesson"
    waiting = waiting_for_a_gpu(folder)
    for name in load(folder / "demo.py").chapter.experiments:
        assert name in recorded | waiting, f"{name} is not recorded on any hardware"
    if waiting:
        pytest.skip(f"not recorded yet, for want of a GPU: {', '.join(sorted(waiting))}")


def demo_commands() -> list[tuple[str, str, str]]:
    """(page, chapter number, options) of every `make demo` and `make record` command in any page or docstring."""
    found = []
    pages = [page for folder in CHAPTERS for page in folder.glob("*.md")] + list(render.ROOT.glob("*.md"))
    texts = {page: page.read_text() for page in pages}
    texts |= {folder / "demo.py": ast.get_docstring(ast.parse((folder / "demo.py").read_text())) for folder in CHAPTERS}
    for page, text in texts.items():
        for match in re.finditer(
            r"make (?:demo|record) CH=(\d+)(?: ARGS=(?:'([^'\n]*)'|(\S+?)))?(?=[\s`|).,;:，。；：]|$)", text
        ):
            found.append((f"{page.parent.name}/{page.name}", match[1], match[2] or match[3] or ""))
    return found


def test_commands_of_the_pages_are_accepted_by_the_demos():
    demos = {folder.name.split(".")[0]: load(folder / "demo.py").chapter for folder in CHAPTERS}
    commands = demo_commands()
    assert len(commands) > 10
    for page, number, arguments in commands:
        if number in demos:
            options = demos[number].parser.parse_args(shlex.split(arguments))
            unknown = set(options.only or []) - demos[number].experiments.keys()
            assert not unknown, f"{page}: {unknown}"


def test_make_targets_of_the_pages_exist():
    makefile = (render.ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in [page for folder in CHAPTERS for page in folder.glob("*.md")] + list(render.ROOT.glob("*.md")):
        used = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
        used |= set(re.findall(r"^make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert used <= targets, f"{page}: no such target: {used - targets}"


@pytest.mark.parametrize("folder", [*CHAPTERS, render.ROOT], ids=lambda folder: folder.name)
def test_links_to_files_lead_somewhere(folder):
    for page in folder.glob("*.md"):
        for link in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", FENCE.sub("", page.read_text())):
            if not re.match(r"[a-z]+:", link):
                assert (page.parent / link).exists(), f"{page}: {link}"


def test_long_python_excerpts_come_from_files_that_run():
    sources = [" ".join(p.read_text().split()) for p in render.ROOT.glob("[0-9c]*/**/*.py")]
    for folder in CHAPTERS:
        for page in folder.glob("lesson*.md"):
            for language, body in FENCE.findall(page.read_text()):
                if language == "python" and len(body.strip().splitlines()) > 5:
                    excerpt = " ".join(body.split())
                    assert any(excerpt in source for source in sources), f"{page}: from no file:\n{body}"


def test_generated_parts_are_up_to_date():
    check = subprocess.run([sys.executable, "-m", "common.render", "--check"], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr
    if "changed" in check.stdout:
        print(check.stdout)  # records older than their code are listed, and no failure


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_pages_are_finished(page, waiting_for_a_gpu):
    text = page.read_text()
    waiting = waiting_for_a_gpu(page.parent) if page.parent in CHAPTERS else set()
    unrecorded = [name for name in waiting if re.search(rf"<!-- (table|value) {name} ", text)]
    for name in unrecorded:
        text = re.sub(rf"(<!-- (?:table|value) {name} [^>]*-->\s*)\(not recorded yet\)", r"\1", text)
    for word in ("TODO", "FIXME", "(not recorded yet)", "/work/", "lorem"):
        assert word not in text, word
    if unrecorded:
        pytest.skip(f"finished but for what a GPU has still to record: {', '.join(sorted(unrecorded))}")


@pytest.mark.parametrize("folder", CHAPTERS, ids=lambda folder: folder.name)
def test_records_are_full_runs(folder):
    for slug, stored in results.read_all(folder).items():
        for name, record in stored["experiments"].items():
            assert record["settings"]["smoke"] is False, f"{slug}: {name} is a smoke run"
            assert record["commit"] != "unknown", f"{slug}: {name} names no commit"
