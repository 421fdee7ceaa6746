"""Chapter 5: its search, its orders, its workers and what it counts are right."""

import mmap
import multiprocessing
import os
import signal
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from batch_files import prompts, write

from common.chapters import ROOT, load
from common.problems import Problem

FOLDER = ROOT / "5.offline_infer"
SEARCH = load(FOLDER / "lesson_search.py")


# ---------------------------------------------------------------------------------------------- search, and the rest


def test_pieces_keep_their_headings_and_all_of_the_text():
    folder = ROOT / "4.workflow"
    found = SEARCH.pieces([folder])
    assert {piece.chapter for piece in found} == {"4.workflow"}
    assert max(len(piece.text) for piece in found) <= SEARCH.PIECE
    keys = {piece.key for piece in found}
    assert {("4.workflow", f"4.{n}") for n in range(1, 12)} <= keys
    assert not any("<!-- value" in piece.text for piece in found)
    assert any("Iteration" in piece.text or "iteration" in piece.text for piece in found)


def test_every_question_names_sections_that_exist():
    asked = SEARCH.questions()
    assert Counter(question.language for question in asked) == {"en": 20, "zh": 20}
    assert len({question.text for question in asked}) == 40


def test_bm25_by_hand():
    bm25 = SEARCH.Bm25(["a cat sat", "a dog sat", "分块预填充"])
    scores = bm25.scores("cats")
    assert scores[0] > 0 and scores[1] == scores[2] == 0
    # One of three texts has the word: idf = ln(1 + 2.5 / 1.5); it occurs once in a text of 3 terms, the mean is 10 / 3.
    assert scores[0] == pytest.approx(np.log(1 + 2.5 / 1.5) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 3 / (10 / 3))))
    assert bm25.scores("预填充")[2] > 0 and not bm25.scores("没有的词").any()


def test_rank_counts_sections_and_not_pieces():
    documents = [SEARCH.Piece("4.workflow", name, "") for name in ("4.1 a", "4.1 a", "4.2 b", "4.3 c")]
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert SEARCH.rank(scores, documents, frozenset({("4.workflow", "4.2")})) == 2
    assert SEARCH.summary([1, 2, 10, 4]) == {"first_pct": 25, "top5_pct": 75, "mrr": pytest.approx(1.85 / 4)}
    assert list(np.argsort(-SEARCH.fused([scores, scores]))) == [0, 1, 2, 3]


def test_the_head_learns_what_belongs_together():
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(600, 8))
    left, right = (np.hstack([shared, 2 * draw.normal(size=(600, 8))]).astype(np.float32) for _ in range(2))
    head = SEARCH.train_head(left[:500], right[:500], range(500), steps=200)

    def first(a: np.ndarray, b: np.ndarray) -> float:
        return (np.argmax(SEARCH.unit(a) @ SEARCH.unit(b).T, axis=1) == np.arange(len(a))).mean()

    before, after = first(left[500:], right[500:]), first(left[500:] @ head, right[500:] @ head)
    assert before < 0.3 and after > before + 0.3  # of pairs it never saw


class Words:
    """A tokenizer whose tokens are words."""

    def encode(self, text, **_):
        return text.split()

    def decode(self, words):
        return " ".join(words)


def test_orders_hold_the_same_requests_and_shared_texts_come_together_or_in_turn():
    contests = load(FOLDER / "offline_contests.py")
    row = [f"w{n}" for n in range(500)]
    grouped = contests.shared_prefixes(Words(), row, groups=3, each=4, prefix=50, own=5)
    assert [request.prompt.split()[0] for request in grouped] == list("000011112222")
    assert len({request.prompt.split("\n")[0] for request in grouped}) == 3
    assert all(request.prompt_tokens == len(request.prompt.split()) for request in grouped)
    in_turn = contests.interleaved(grouped, 4)
    assert [request.prompt.split()[0] for request in in_turn] == list("012012012012")
    orders = contests.orders(grouped[:3] + in_turn[:2])
    assert all(Counter(order) == Counter(orders["as_they_come"]) for order in orders.values())


def test_kills_are_spread_over_the_job():
    kill_points = load(FOLDER / "killed_jobs.py").kill_points
    for kills in (1, 3, 10):
        points = kill_points(1000, kills)
        assert len(points) == kills and points == sorted(points) and points[0] > 0 and points[-1] < 1000
    assert kill_points(1000, 3) != kill_points(1000, 3, seed=1)


def test_what_is_counted_at_the_end(tmp_path):
    killed = load(FOLDER / "killed_jobs.py")
    file, output = prompts(tmp_path / "p.jsonl", 4), write(tmp_path / "a.jsonl", {"line": 1}, {"line": 3}, {"line": 3})
    write(tmp_path / "a.errors.jsonl", {"line": 2})
    assert killed.account(file, output) == {"once": 2, "lost": 1, "twice": 1}
    output.write_bytes(output.read_bytes() + b'{"li')
    assert killed.lines_of(output) == 3 and killed.lines_of(tmp_path / "none") == 0


def test_peak_memory_is_that_of_the_work():
    peak_mb = load(FOLDER / "killed_jobs.py").peak_mb

    def work():
        with mmap.mmap(-1, 200_000_000) as fresh:  # memory that this process had before would not count
            for _ in range(200):
                fresh.write(bytes(1_000_000))

    assert 190 < peak_mb(work) < 230
    assert peak_mb(lambda: None) < 5  # the peak before is forgotten


def test_a_memory_case_that_fails_says_why():
    killed = load(FOLDER / "killed_jobs.py")
    context = multiprocessing.get_context("fork")

    def case(work) -> object:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(sender,), daemon=True)
        process.start()
        sender.close()
        return killed.MemoryCase("runner_1", 5, process, receiver)

    assert case(lambda sender: sender.send({"seconds": 1.0, "peak_mb": 2.0})).row() == {
        "case": "runner_1", "ended": "finished", "requests": 5, "done": 5, "seconds": 1.0, "peak_mb": 2.0
    }  # fmt: skip
    with pytest.raises(Problem, match="no room"):
        case(lambda sender: sender.send("OSError: no room")).row()
    with pytest.raises(Problem, match="its process is gone"):
        case(lambda sender: os.kill(os.getpid(), signal.SIGKILL)).row()


def test_each_worker_takes_a_core_of_its_own(tmp_path):
    own_core = load(FOLDER / "ray_batch.py").own_core
    cores = sorted(os.sched_getaffinity(0))
    assert [own_core(tmp_path) for _ in cores] == cores
    assert own_core(tmp_path) in cores  # more workers than cores share one


def test_steps_of_an_order():
    steps_of = load(FOLDER / "offline_contests.py").steps_of
    assert steps_of([5, 5, 5, 5], 2) == 10
    assert steps_of([1, 1, 1, 9], 2) == 10 and steps_of([9, 1, 1, 1], 2) == 9


def test_the_time_outside_the_engines_steps_is_counted(monkeypatch):
    contests, clock_s = load(FOLDER / "offline_contests.py"), [0.0]
    monkeypatch.setattr(contests, "time", SimpleNamespace(perf_counter=lambda: clock_s[0]))

    def pass_s(seconds: float) -> None:
        clock_s[0] += seconds

    class Engine:
        def step(self):
            pass_s(0.03)
            return ["an output"]

    engine = Engine()
    llm = SimpleNamespace(llm_engine=engine, reset_prefix_cache=lambda: None)

    def serve() -> tuple[float, float]:
        start_s = clock_s[0]
        assert engine.step() + engine.step() == ["an output"] * 2
        pass_s(0.04)
        return clock_s[0] - start_s, waiting_s

    waiting_s = 0.0
    watched = contests.Watched(llm, 90, serve)
    assert watched() == pytest.approx(900)  # 90 tokens in 0.1 s
    assert watched.steps == 2 and watched.outside_steps_pct == pytest.approx(40)
    assert "step" not in vars(engine)  # as it was
    waiting_s = 0.02  # of what is outside the steps
    watched = contests.Watched(llm, 90, serve)
    watched()
    assert watched.outside_steps_pct == pytest.approx(20)
