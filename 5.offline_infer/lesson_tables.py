"""course-lm at work in batches: its held-out skills scored, and the lessons embedded and searched."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import lesson_search
import numpy as np
import pandas as pd

from common import timing
from common.chapters import chapters
from common.course_lm import corpus
from common.course_lm.corpus_terms import term_question
from common.course_lm.corpus_values import TRAIN
from common.course_lm.scoring import is_right

SKILLS = (
    "terms_en", "terms_zh", "arithmetic", "passages", "citation", "summary", "json", "tool_call", "tool_answer",
    "agent", "chat", "code",
)  # fmt: skip


def tokens_in(answers: Path) -> int:
    """Output tokens of a file of answers."""
    with answers.open() as lines:
        return sum(json.loads(line)["output_tokens"] for line in lines)


def evaluate(run, llm, each: int) -> pd.DataFrame:
    """Score every skill on `each` examples, all skills in one batch; and time a few examples one at a time."""
    from vllm import SamplingParams

    examples = [example for skill in SKILLS for example in corpus.held_out(skill, each)]
    prompts = [corpus.prompt_of(example) for example in examples]
    greedy = SamplingParams(temperature=0.0, max_tokens=200)
    run.setting(examples_per_skill=each, max_tokens=200, temperature=0.0)
    few = [prompts[place] for place in range(0, len(prompts), max(1, len(prompts) // run.size(24, 6)))]
    run.step(f"{len(few)} examples, one at a time")
    alone_s = timing.seconds(lambda: [llm.generate(prompt, greedy, use_tqdm=False) for prompt in few]) / len(few)
    llm.reset_prefix_cache()
    run.predict("seconds for all, at most", alone_s * len(examples), "s", because="the time of a few, one at a time")
    run.step(f"{len(examples)} examples of {len(SKILLS)} skills in one batch")
    began = time.perf_counter()
    outputs = llm.generate(prompts, greedy, use_tqdm=False)
    seconds = time.perf_counter() - began
    answers = [output.outputs[0] for output in outputs]
    total = run.count(sum(len(answer.token_ids) for answer in answers))
    run.measured("seconds for all, at most", seconds)
    run.step("scoring")
    right = [is_right(example, answer.text) for example, answer in zip(examples, answers, strict=True)]
    rows = []
    for place, skill in enumerate(SKILLS):
        part = slice(place * each, (place + 1) * each)
        tokens = sum(len(answer.token_ids) for answer in answers[part])
        rows.append({"skill": skill, "requests": each, "right_pct": sum(right[part]) / each * 100,
                     "output_tokens": tokens})  # fmt: skip
    share = sum(right) / len(right) * 100
    rows.append({"skill": "all", "requests": len(examples), "right_pct": share, "output_tokens": total,
                 "seconds": seconds, "examples_s": len(examples) / seconds, "x_one": alone_s * len(examples) / seconds}
                )  # fmt: skip
    worst = min(rows[:-1], key=lambda row: row["right_pct"])
    margin = 196 * (share / 100 * (1 - share / 100) / len(right)) ** 0.5
    run.reading(
        f"{len(examples)} examples in {seconds:.1f} s, {alone_s * len(examples) / seconds:.1f} times as fast as one at "
        f"a time. {share:.1f} % are right, give or take {margin:.1f} for the choice of examples; the weakest skill is "
        f"{worst['skill']}, {worst['right_pct']:.0f} %."
    )
    return pd.DataFrame(rows)


def embed(llm, texts: Sequence[str]) -> np.ndarray:
    """Vectors [texts, width] of length 1, by vLLM's pooling runner."""
    outputs = llm.embed(list(texts), use_tqdm=False)
    return np.array([output.outputs.embedding for output in outputs], dtype=np.float32)


def term_pairs(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Questions on terms, in both languages, and their answers: what the head is trained on. No lesson is in them."""
    draw = Random(seed)
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        turns = [turn for turn in term_question(draw, TRAIN).messages if turn["role"] != "system"]
        if len(turns) == 2:  # in a longer chat the last question alone says little
            pairs.append((turns[0]["content"], turns[1]["content"]))
    questions, answers = zip(*pairs, strict=True)
    return list(questions), list(answers)


def search(run, llm) -> pd.DataFrame:
    """Forty questions to the lessons' sections, by words, by vectors, and by both; in the short form those on one."""
    # The questions are on chapters 0 to 4: what is written after them does not change the figures.
    documents = lesson_search.pieces(chapters()[:5])[: run.size(None, 32)]
    keys = {piece.key for piece in documents}
    asked = [question for question in lesson_search.questions() if question.answers & keys]
    texts = [f"{piece.section}\n\n{piece.text}" for piece in documents]
    run.setting(documents=len(documents), sections=len(keys), questions=len(asked), pooling="mean")
    chance = 5 / len(keys) * 100
    run.predict("first five by chance", chance, "%", because=f"five of {len(keys)} sections")
    run.step("embedding one piece at a time")
    few = texts[:: max(1, len(texts) // run.size(24, 8))]
    alone_s = timing.seconds(lambda: [embed(llm, [text]) for text in few]) / len(few)
    llm.reset_prefix_cache()
    run.step(f"embedding {len(texts)} pieces in one batch")
    found: list[np.ndarray] = []
    batch_s = timing.seconds(lambda: found.append(embed(llm, texts)))
    vectors, queries = found[0], embed(llm, [question.text for question in asked])
    run.step("training a head on the corpus of course-lm")
    left, right = term_pairs(run.size(full=2000, smoke=200))
    steps = run.size(full=300, smoke=20)
    run.setting(pairs=len(left), head_steps=steps)
    centre = vectors.mean(axis=0)
    head = lesson_search.train_head(embed(llm, left) - centre, embed(llm, right) - centre, right, steps)
    bm25 = lesson_search.Bm25(texts)
    words = [bm25.scores(question.text) for question in asked]

    def cosine(move) -> list[np.ndarray]:
        rows, columns = (lesson_search.unit(move(side)) for side in (queries, vectors))
        return list(rows @ columns.T)

    trained = cosine(lambda side: (side - centre) @ head)
    methods = {
        "bm25": words,
        "vectors": cosine(lambda side: side),
        "vectors_centred": cosine(lambda side: side - centre),
        "vectors_trained_head": trained,
        "bm25_and_trained_head": [lesson_search.fused(pair) for pair in zip(words, trained, strict=True)],
    }
    rows = []
    for name, scores in methods.items():
        ranks = [lesson_search.rank(s, documents, q.answers) for s, q in zip(scores, asked, strict=True)]
        row = {"method": name} | lesson_search.summary(ranks)
        for language in ("en", "zh"):
            of_language = [rank for rank, question in zip(ranks, asked, strict=True) if question.language == language]
            row[f"top5_{language}_pct"] = lesson_search.summary(of_language)["top5_pct"]
        rows.append(row | {"documents_s": len(texts) / batch_s if "vectors" in name else None})
    table = pd.DataFrame(rows)
    table["x_one"] = [alone_s * len(texts) / batch_s if "vectors" in name else None for name in table.method]
    top = table.set_index("method").top5_pct
    run.measured("first five by chance", top["vectors"])
    run.count(len(asked))  # a pooling engine generates no tokens: what is counted are the questions it answered
    run.reading(
        f"The right section is among the first five for {top['bm25']:.0f} % of the questions by words, for "
        f"{top['vectors']:.0f} % by course-lm's vectors as they are, for {top['vectors_trained_head']:.0f} % behind a "
        f"trained head and for {top['bm25_and_trained_head']:.0f} % by both. {len(texts)} pieces were embedded in "
        f"{batch_s:.1f} s."
    )
    return table
