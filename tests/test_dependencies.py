"""What of the code a record depends on: what changes its hash, and what does not."""

import pytest

from common import dependencies
from common.dependencies import source_hash

DEMO = '''"""A demo."""
from common import models, timing
from common.chapter import Chapter
from common.load import Target as LoadTarget
from cache import Cache

chapter = Chapter(__file__)
BATCH = 8
DEPTH: int = 3
LOW, HIGH = 1, 2
UNUSED = 5
QUICK = 6


class Helper:
    size = 1


def step(x):
    return x + BATCH + DEPTH + HIGH


@chapter.experiment
def first(run):
    """How fast?"""
    helper = Helper()
    run.predict(1)
    few = run.size(full=8, smoke=2)
    if few or not run.smoke:
        few = [few] if run.smoke else (few, BATCH)
    if run.smoke:
        few = QUICK
    return timing.repeat(lambda: step(helper.size))


@chapter.experiment(gpu=True)
def second(run: Cache):
    """How slow?"""
    from common import lengths

    run.child("server.py", scheduler="common.trace.Tracing")
    return run.engine(run.model), LoadTarget, Cache, lengths.sample(), models.resolve(), models.preflight()
'''
FILES = {
    "common/chapter.py": "class Chapter: pass\n",
    "common/lengths.py": "def sample(): return 1\ndef other(): return 1\n",
    "common/load.py": "class Target:\n    deadline = 1\nclass Clients: pass\n",
    "common/memory.py": "def sample(): return 1\n",
    "common/models.py": (
        "SIZE = 1\ndef resolve(): return 1\ndef preflight(): return 1\ndef engine(model): return options()\n"
        "def options(): return {'size': SIZE}\ndef serve(): return 1\n"
    ),
    "common/run.py": (
        "from common import models, memory\nclass Run:\n    def engine(self, model): return models.engine(model)\n"
        "    def predict(self, value): return memory.sample()\n"
    ),
    "common/timing.py": "import time\ndef repeat(f): return f(), now()\ndef now(): return time.time()\n",
    "common/trace.py": "class Tracing: pass\nclass Other: pass\n",
    "cache.py": "from store import Store\nclass Cache(Store): pass\ndef unused(): pass\n",
    "store.py": "class Store:\n    slots = 1\n",
    "server.py": "PORT = 1\ndef main(): return PORT\n",
}


@pytest.fixture
def hashes(tmp_path, monkeypatch):
    """A function: the hashes of both experiments, after a change in one of the files."""
    (tmp_path / "common").mkdir()
    monkeypatch.setattr(dependencies, "COMMON", tmp_path / "common")

    def hash_after(file="demo.py", old="", new=""):
        dependencies._module.cache_clear()
        for name, text in (FILES | {"demo.py": DEMO}).items():
            assert name != file or old in text
            (tmp_path / name).write_text(text.replace(old, new) if name == file and old else text)
        return source_hash(tmp_path / "demo.py", "first"), source_hash(tmp_path / "demo.py", "second")

    return hash_after


FIRST, SECOND, NONE = (True, False), (False, True), (False, False)


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("demo.py", "lambda: step", "lambda: 2 * step", FIRST),
        ("demo.py", "return x +", "return x -", FIRST),
        ("demo.py", "BATCH = 8", "BATCH = 9", FIRST),
        ("demo.py", "DEPTH: int = 3", "DEPTH: int = 4", FIRST),
        ("demo.py", "LOW, HIGH = 1, 2", "LOW, HIGH = 1, 3", FIRST),
        ("demo.py", "size = 1", "size = 2", FIRST),
        ("demo.py", "full=8", "full=9", FIRST),
        ("demo.py", "else (few, BATCH)", "else (few, 2 * BATCH)", FIRST),
        ("common/timing.py", "f(), now()", "now(), f()", FIRST),
        ("common/timing.py", "time.time()", "time.monotonic()", FIRST),
        ("demo.py", "gpu=True", "gpu=False", SECOND),
        ("demo.py", "run.engine(", "run.serve(", SECOND),
        ("common/models.py", "return options()", "return options() | {}", SECOND),
        ("common/models.py", "SIZE = 1", "SIZE = 2", SECOND),
        ("common/models.py", "def resolve(): return 1", "def resolve(): return 2", SECOND),
        ("common/run.py", "models.engine(model)", "models.engine(model, 1)", SECOND),
        ("common/load.py", "deadline = 1", "deadline = 2", SECOND),
        ("common/lengths.py", "sample(): return 1", "sample(): return 2", SECOND),
        ("common/trace.py", "class Tracing: pass", "class Tracing: x = 1", SECOND),
        ("cache.py", "class Cache(Store): pass", "class Cache(Store): x = 1", SECOND),
        ("store.py", "slots = 1", "slots = 2", SECOND),
        ("server.py", "PORT = 1", "PORT = 2", SECOND),
        ("demo.py", "UNUSED = 5", "UNUSED = 6", NONE),
        ("demo.py", "smoke=2", "smoke=QUICK", NONE),
        ("demo.py", "[few] if", "[2 * few] if", NONE),
        ("demo.py", "few = QUICK", "few = 2 * QUICK", NONE),
        ("demo.py", "QUICK = 6", "QUICK = 7", NONE),
        ("demo.py", "    if run.smoke:\n        few = QUICK\n", "", NONE),
        ("demo.py", "if few or not run.smoke:", "if not run.smoke and few is not None or not run.smoke:", NONE),
        ("demo.py", "    helper = Helper()", "    # why\n    helper = Helper()  # really\n", NONE),
        ("demo.py", '"""A demo."""', '"""Another demo."""', NONE),
        ("demo.py", '"""How fast?"""', '"""How quick?"""', NONE),
        ("demo.py", "run: Cache", "run: object", NONE),
        ("common/chapter.py", "class Chapter: pass", "class Chapter: x = 1", NONE),
        ("common/load.py", "class Clients: pass", "class Clients: x = 1", NONE),
        ("common/lengths.py", "other(): return 1", "other(): return 2", NONE),
        ("common/memory.py", "return 1", "return 2", NONE),
        ("common/models.py", "def serve(): return 1", "def serve(): return 2", NONE),
        ("common/models.py", "def preflight(): return 1", "def preflight(): return 2", NONE),
        ("common/trace.py", "class Other: pass", "class Other: x = 1", NONE),
        ("cache.py", "def unused(): pass", "def unused(): return 1", NONE),
    ],
)
def test_the_hash_follows_what_an_experiment_uses(hashes, file, old, new, changed):
    before, after = hashes(), hashes(file, old, new)
    assert tuple(b != a for b, a in zip(before, after, strict=True)) == changed


def test_a_function_may_move_to_another_module(hashes, tmp_path):
    before = hashes()
    (tmp_path / "common" / "clock.py").write_text("import time\ndef now(): return time.time()\n")
    timing = "from common.clock import now\ndef repeat(f): return f(), now()\n"
    assert hashes("common/timing.py", FILES["common/timing.py"], timing) == before


def test_the_hash_is_the_same_on_every_python(tmp_path):
    # Recorded on one Python and checked on another: ast.dump writes more fields on 3.12 and fewer on 3.13.
    demo = tmp_path / "demo.py"
    demo.write_text(
        "class Pair:\n    left = None\n\n\ndef first(run, *, quick=False):\n"
        "    return [f'{run!r:>10} {{x}}', Pair, lambda: None, *(), 1.5, b'b', ...]\n"
    )
    assert source_hash(demo, "first") == "ac4e4fbe7bc458e2"
