"""The training corpus and the held-out examples, both generated from a seed.

A corpus is a sequence of chunks. Chunk i depends on the seed and i alone, so any number of processes makes
the same text. A document that shares eight tokens in a row with a held-out prompt, outside the fixed forms,
is left out.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.course_lm.corpus_arithmetic import arithmetic
from common.course_lm.corpus_code import code
from common.course_lm.corpus_dialogue import conversation, dialogue
from common.course_lm.corpus_edits import edit
from common.course_lm.corpus_extraction import extraction
from common.course_lm.corpus_passages import passage_question, summary
from common.course_lm.corpus_prose import prose, story_request
from common.course_lm.corpus_sql import sql
from common.course_lm.corpus_terms import term_in_chinese, term_question
from common.course_lm.corpus_tools import after_result, agent, single_call, tools
from common.course_lm.corpus_values import HELD_OUT, TRAIN, Example
from common.course_lm.prompts import render

SEED = 2026
SEQUENCE_LENGTH = 2_048
ROWS_PER_CHUNK = 32
NGRAM = 8
# The weight of a prompt's tokens in the loss. An answer's weigh 1 up to LONG_ANSWER of them; in a longer one each
# weighs less, so that a story, which no two authors would write alike, does not outweigh fifty short answers.
# Whatever weighs more than ANSWERS_FROM belongs to an answer.
PROMPT_WEIGHT, LONG_ANSWER, LEAST_ANSWER_WEIGHT, ANSWERS_FROM = 0.1, 32, 0.2, 0.15
# How often each kind of document is drawn. What must be copied from the prompt (passages, extraction) gets most of the
# tokens; terms, code and loops of calls were at 97 to 100 % with more than they have here.
MIXTURE: dict[Callable[[Random, str], Example], float] = {
    term_question: 0.095,
    arithmetic: 0.10,
    passage_question: 0.265,
    summary: 0.06,
    extraction: 0.21,
    tools: 0.09,
    dialogue: 0.08,
    code: 0.045,
    edit: 0.02,
    prose: 0.035,
}
# What makes held-out examples of each skill; a maker may give two skills, which are sorted out.
HELD_OUT_MAKERS: dict[str, Callable[[Random, str], Example]] = {
    "terms_en": term_question,
    "terms_zh": term_question,
    "arithmetic": arithmetic,
    "passages": passage_question,
    "citation": passage_question,
    "summary": summary,
    "json": extraction,
    "schema": extraction,
    "tool_call": single_call,
    "tool_answer": after_result,
    "agent": agent,
    "chat": dialogue,
    "long_chat": conversation,
    "code": code,
    "edit": edit,
    "story": story_request,
    "prose": prose,
    "chinese": term_in_chinese,
    "sql": sql,
}

# The last of these are the adapters' tasks, which the base model is not trained on.
ADAPTERS = ("chinese", "sql")


def held_out(skill: str, count: int, seed: int = SEED) -> list[Example]:
    """The first `count` held-out examples of a skill."""
    rng = Random(f"held-out {seed} {skill}")
    examples: list[Example] = []
    while len(examples) < count:
        example = HELD_OUT_MAKERS[skill](rng, HELD_OUT)
        if example.skill == skill:
            examples.append(example)
    return examples


def documents(seed: int, chunk: int) -> Iterator[Example]:
    """The endless documents of a chunk."""
    rng = Random(f"{seed} {chunk}")
    makers, weights = list(MIXTURE), list(MIXTURE.values())
    while True:
        yield rng.choices(makers, weights)[0](rng, TRAIN)


def pieces(example: Example) -> list[tuple[str, bool]]:
    """A document's text in pieces, each with whether it is an answer."""
    if not example.messages:
        return [(example.prompt, False), (example.answer, True)] if example.prompt else [(example.answer, True)]
    return render(list(example.messages), list(example.tools))


def answer_weight(tokens: int) -> float:
    """The weight of each token of an answer in the loss, by the answer's length."""
    return max(LEAST_ANSWER_WEIGHT, min(1.0, (LONG_ANSWER / max(1, tokens)) ** 0.5))


def text_of(example: Example) -> str:
    """A document as text."""
    return "".join(text for text, _ in pieces(example))


def prompt_of(example: Example) -> str:
    """A held-out document up to its last answer: what the model is given."""
    if not example.messages:
        return example.prompt
    return (
        "".join(text for text, _ in render(list(example.messages[:-1]), list(example.tools)))
        + "<|im_start|>assistant\n"
    )


def corpus_hash(seed: int = SEED, chunks: int = 2, per_chunk: int = 500) -> str:
    """SHA-256 of the first documents of the first chunks."""
    digest = hashlib.sha256()
    for chunk in range(chunks):
        stream = documents(seed, chunk)
        for _ in range(per_chunk):
            digest.update(text_of(next(stream)).encode())
    return digest.hexdigest()


def ngram_hashes(ids: np.ndarray) -> np.ndarray:
    """A 64-bit hash of every NGRAM tokens in a row, [len(ids) - NGRAM + 1]."""
    if len(ids) < NGRAM:
        return np.empty(0, dtype=np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(ids.astype(np.uint64), NGRAM)
    hashes = np.zeros(len(windows), dtype=np.uint64)
    for column in range(NGRAM):
        hashes = hashes * np.uint64(1_000_003) + windows[:, column] + np.uint64(1)
        hashes ^= hashes >> np.uint64(29)
    return hashes


def shares(hashes: np.ndarray, forbidden: np.ndarray) -> bool:
    """Whether any hash is among the sorted forbidden ones."""
    places = np.minimum(np.searchsorted(forbidden, hashes), len(forbidden) - 1)
    return bool((forbidden[places] == hashes).any())


def free_ngrams(examples: list[Example], tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """Sorted hashes of all NGRAMs in the words of held-out prompts outside the fixed forms."""
    texts = sorted({form for example in examples for text in example.free_text for form in (text, " " + text)})
    hashes = [ngram_hashes(np.array(ids)) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return np.unique(np.concatenate(hashes))


@lru_cache(maxsize=1)
def all_held_out(per_skill: int = 400) -> list[Example]:
    """The examples that training keeps away from."""
    return [example for skill in HELD_OUT_MAKERS for example in held_out(skill, per_skill)]


@dataclass
class Chunk:
    """Packed rows: tokens, the loss weight of each, its position in its document, and which document.

    All are [rows, SEQUENCE_LENGTH]; a document's first token has weight 0.
    """

    tokens: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    documents: np.ndarray
    skipped: int = 0


def encode(examples: list[Example], tokenizer: PreTrainedTokenizerFast) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token ids and loss weights of documents; pieces are tokenized apart, as they are at inference."""
    parts = [pieces(example) for example in examples]
    flat = [text for part in parts for text, _ in part]
    encoded = iter(tokenizer._tokenizer.encode_batch_fast(flat, add_special_tokens=False))
    out = []
    for part in parts:
        ids = [(next(encoded).ids, answer) for _, answer in part]
        tokens = np.fromiter((i for piece, _ in ids for i in piece), dtype=np.int32)
        counts = [len(piece) for piece, _ in ids]
        of_pieces = [answer_weight(len(piece)) if answer else PROMPT_WEIGHT for piece, answer in ids]
        weights = np.repeat(np.array(of_pieces, dtype=np.float16), counts)
        weights[0] = 0
        out.append((tokens, weights))
    return out


def pack(
    stream: Iterator[Example],
    tokenizer: PreTrainedTokenizerFast,
    rows: int = ROWS_PER_CHUNK,
    forbidden: np.ndarray | None = None,
) -> Chunk:
    """Fill rows with whole documents, each into the first row with room for it."""
    shape = (rows, SEQUENCE_LENGTH)
    chunk = Chunk(
        np.zeros(shape, np.int16),
        np.zeros(shape, np.float16),
        np.zeros(shape, np.int16),
        np.full(shape, -1, np.int16),
    )
    used, counts, misses = np.zeros(rows, int), np.zeros(rows, int), 0
    while misses < 64:
        for tokens, weights in encode([next(stream) for _ in range(128)], tokenizer):
            length = len(tokens)
            room = np.flatnonzero(used + length <= SEQUENCE_LENGTH)
            if not len(room):
                misses += 1
                continue
            if forbidden is not None and shares(ngram_hashes(tokens), forbidden):
                chunk.skipped += 1
                continue
            row = room[0]
            place = slice(used[row], used[row] + length)
            chunk.tokens[row, place], chunk.weights[row, place] = tokens, weights
            chunk.positions[row, place], chunk.documents[row, place] = np.arange(length), counts[row]
            used[row] += length
            counts[row] += 1
    return chunk
