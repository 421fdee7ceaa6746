"""Worker processes that write and tokenize documents while the trainer trains.

Nothing here needs PyTorch.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from threading import Semaphore

import numpy as np

from common.course_lm import corpus
from common.course_lm.corpus_values import TRAIN
from common.course_lm.tokenizer import load_tokenizer

_worker: dict = {}


def start_worker(folder: str, seed: int, rows: int) -> None:
    """Give a worker process its tokenizer and the held-out n-grams."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = load_tokenizer(folder)
    forbidden = corpus.free_ngrams(corpus.all_held_out(), tokenizer)
    _worker.update(tokenizer=tokenizer, forbidden=forbidden, seed=seed, rows=rows)


def make_texts(index: int) -> list[str]:
    """A thousand documents as text, for the tokenizer."""
    stream = corpus.documents(corpus.SEED, index)
    return [corpus.text_of(next(stream)) for _ in range(1000)]


def make_chunk(index: int) -> corpus.Chunk:
    """Write, tokenize and pack one chunk in a worker."""
    stream = corpus.documents(_worker["seed"], index)
    return corpus.pack(stream, _worker["tokenizer"], _worker["rows"], _worker["forbidden"])


def make_adapter_batch(order: tuple[str, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Documents of an adapter's task, the batch's number and its size: ids and loss weights, [size, longest].

    Only answers count. Documents that share NGRAM tokens with a held-out prompt are left out, as everywhere.
    """
    task, index, size = order
    tokenizer, rng = _worker["tokenizer"], Random(f"adapter {task} {index}")
    encoded: list[tuple[np.ndarray, np.ndarray]] = []
    while len(encoded) < size:
        made = corpus.encode([corpus.HELD_OUT_MAKERS[task](rng, TRAIN) for _ in range(size)], tokenizer)
        encoded += [pair for pair in made if not corpus.shares(corpus.ngram_hashes(pair[0]), _worker["forbidden"])]
    longest = max(len(tokens) for tokens, _ in encoded[:size])
    ids = np.full((size, longest), tokenizer.pad_token_id, np.int64)
    weights = np.zeros((size, longest), np.float32)
    for row, (tokens, weight) in enumerate(encoded[:size]):
        ids[row, : len(tokens)] = tokens
        weights[row, : len(tokens)] = weight > corpus.ANSWERS_FROM
    return ids, weights


class Stream:
    """What workers make of arguments, in order; they run at most `ahead` results before whoever takes them."""

    def __init__(self, pool: object, make: Callable, arguments: Iterable, ahead: int):
        self.room, self.closed = Semaphore(ahead), False
        self.results = pool.imap(make, self.held_back(arguments))

    def held_back(self, arguments: Iterable) -> Iterator:
        """The arguments, while there is room for results."""
        for argument in arguments:
            self.room.acquire()
            if self.closed:
                return
            yield argument

    def __next__(self) -> object:
        result = next(self.results)
        self.room.release()
        return result

    def close(self) -> None:
        """Take no more. The pool's own thread may wait for room: let it go, or it serves no other stream."""
        self.closed = True
        self.room.release()


class Workers:
    """The processes, for a `with` block. They serve one stream after another."""

    def __init__(self, folder: Path, seed: int, rows: int, processes: int):
        context = multiprocessing.get_context("spawn")
        self.pool = context.Pool(processes, start_worker, (str(folder), seed, rows))
        self.streams: list[Stream] = []

    def stream(self, make: Callable, arguments: Iterable, ahead: int = 500) -> Stream:
        """Let the workers make something of each argument."""
        self.streams.append(Stream(self.pool, make, arguments, ahead))
        return self.streams[-1]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        for stream in self.streams:
            stream.close()
        self.pool.terminate()
