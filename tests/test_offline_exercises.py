"""Chapter 5's exercises: what a learner is likely to get wrong is caught, and told in words."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.chapters import ROOT

SOLUTIONS = ROOT / "5.offline_infer" / "solutions.py"
# (what our solution says, what a wrong one says, words of the message)
MISTAKES = (
    ("count(found[-1] + between + part)", "count(found[-1]) + count(part)", "without what stands between"),
    ("        if count(paragraph) > limit:", "        if False:", "longer than the limit is not cut"),
    ("    while summaries > 1:", "    while summaries > 0:", "is there a loop that never ends"),
    ("groups = -(-summaries // group)", "groups = max(1, summaries // group)", "the last group is left out"),
    ("        total += summaries * summary + groups * summary", "        total += groups * summary", "later levels"),
    ("        if budget < 0:", "        if budget <= 0:", "a budget that is met exactly counts as exceeded"),
    ("sorted(cost, key=cost.get)", "cost", "the cheapest first"),
    ("for name in documents if name in finished", "for name in finished", "in the order of the documents"),
    ('            if not raw.endswith(b"\\n"):', "            if False:", "JSONDecodeError in done_lines"),
    ("        file.truncate(whole)\n", "", "the file is left as it is"),
    ("enumerate(lines, 1)", "enumerate(lines)", "counted from 0"),
    ("            file.flush()\n            os.fsync(file.fileno())", "            pass", "flush, or close the file"),
    (", ensure_ascii=False", "", "characters as they are"),
    ("for n, line in enumerate(lines, 1) if n not in done)", "for n, line in enumerate(lines, 1))", "should return 0"),
)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """What `make check` prints for each mistake, as futures."""

    def check(right: str, wrong: str) -> tuple[int, str]:
        text = SOLUTIONS.read_text()
        assert right in text, right
        file = tmp_path_factory.mktemp("mistake") / "mine.py"
        file.write_text(text.replace(right, wrong))
        command = [sys.executable, "-m", "common.check", "5", "--file", str(file)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
        return ended.returncode, " ".join((ended.stdout + ended.stderr).split())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {mistake: pool.submit(check, *mistake[:2]) for mistake in MISTAKES}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake[2][:40])
def test_a_mistake_is_told_in_words(checked, mistake):
    status, printed = checked[mistake].result()
    assert status == 1 and re.search(re.escape(mistake[2]), printed), printed
