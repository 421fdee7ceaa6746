"""An engine that runs in this process, looked at between its steps: block tables, the pool, who runs at once."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from common import timing
from common.course_lm import prompts
from common.lengths import Lengths
from common.throughput import random_prompts

PASSAGES = [
    "The ferry to Halden leaves from pier 7 every 40 minutes and carries 120 people.",
    "The library of Halden opens at nine in the morning and closes at six in the evening.",
    "The museum of Halden was built in 1912 by Ida Berg and has four floors.",
]
STORY = (
    "Every morning the baker of the village rose before the sun, lit the oven and kneaded the dough. One winter the "
    "river froze and no flour came by boat, so the farmers carried what they had left across the ice to him."
)
# name: (a letter for each sample, what is asked, output tokens)
SENT = {
    "alone": ("A", "What is the KV cache?", 64),
    "question_1": ("B", prompts.rag_prompt("Who built the museum of Halden?", PASSAGES), 24),
    "question_2": ("C", prompts.rag_prompt("How often does the ferry to Halden leave?", PASSAGES), 64),
    "samples": ("DEF", prompts.SUMMARY_FORM.format(text=STORY), 64),
}


def prompt_ids(tokenizer) -> dict[str, list[int]]:
    """The prompt of each request in SENT as token ids."""
    texts = {}
    for name, (_, question, _) in SENT.items():
        texts[name] = "".join(piece for piece, _ in prompts.render([{"role": "user", "content": question}]))
    begin = "<|im_start|>assistant\n"
    return {name: tokenizer.encode(text + begin, add_special_tokens=False) for name, text in texts.items()}


def blocks_of(ids: dict[str, list[int]], block_size: int) -> int:
    """Blocks that the prompts of SENT take together: each full block once, however many begin with it, and their ends.

    The last token of a prompt is always computed, so the block with it is each sample's own.
    """
    full = {tuple(prompt[:end]) for prompt in ids.values() for end in range(block_size, len(prompt), block_size)}
    return len(full) + sum(len(letters) for letters, _, _ in SENT.values())


@dataclass(frozen=True)
class Table:
    """One request's block table: tokens whose K and V it holds, physical blocks in order, reference count of each."""

    request: str
    tokens: int
    blocks: list[int]
    ref_counts: list[int]


@dataclass(frozen=True)
class Snapshot:
    """All tables at one moment, and the pool: blocks in use, free blocks, and which of these still keep a prefix."""

    tables: list[Table]
    in_use: int
    free: int
    cached_free: list[int]


def core(llm):
    """The engine core of an engine in this process."""
    return llm.llm_engine.engine_core.engine_core


def snapshot(llm) -> Snapshot:
    """The block tables and the pool now."""
    scheduler = core(llm).scheduler
    manager, pool = scheduler.kv_cache_manager, scheduler.kv_cache_manager.block_pool
    tables = []
    for request in scheduler.running:
        blocks = manager.get_blocks(request.request_id).blocks[0]
        name = request.request_id.rsplit("-", 1)[0]  # vLLM adds random digits to the caller's name
        tokens, numbers = request.num_computed_tokens, [block.block_id for block in blocks]
        tables.append(Table(name, tokens, numbers, [block.ref_cnt for block in blocks]))
    cached_free = [block.block_id for block in pool.blocks if block.ref_cnt == 0 and block.block_hash is not None]
    free = pool.get_num_free_blocks()
    return Snapshot(tables, pool.num_gpu_blocks - 1 - free, free, cached_free)  # the null block is nobody's


class Stage:
    """Requests that are sent to an engine and watched. Each, and each of its samples, has a letter of its own."""

    def __init__(self, llm):
        self.llm, self.output_tokens, self.widest = llm, 0, 0
        self.letters: dict[str, str] = {}

    def send(self, name: str, prompt: list[int]) -> None:
        """A request of SENT, for as many samples as it has letters; each makes just the tokens that are said there."""
        from vllm import SamplingParams

        letters, _, output_tokens = SENT[name]
        n = len(letters)
        sampling = SamplingParams(n=n, temperature=float(n > 1), seed=0, max_tokens=output_tokens, ignore_eos=True)
        self.llm.llm_engine.add_request(name, {"prompt_token_ids": prompt}, sampling)
        self.letters |= {name: letters} if n == 1 else {f"{i}_{name}": letter for i, letter in enumerate(letters)}

    def step(self, steps: int) -> None:
        """So many steps of the engine, or fewer if nothing is left to do."""
        for _ in range(steps):
            if self.llm.llm_engine.has_unfinished_requests():
                for output in self.llm.llm_engine.step():
                    self.output_tokens += sum(len(sample.token_ids) for sample in output.outputs if sample.finished())

    def play(self, ids: dict[str, list[int]]) -> Iterator[tuple[str, list[dict], str]]:
        """Send all of SENT, and B once more when all have ended; (moment, rows, drawing) at five moments."""
        for name, prompt in ids.items():
            self.send(name, prompt)
        for steps, moment in ((1, "prompts computed"), (20, "20 tokens later"), (10, "B has ended")):
            self.step(steps)
            yield moment, *self.look(moment)
        self.step(1000)
        yield "all have ended", *self.look("all have ended")
        self.send("question_1", ids["question_1"])
        self.step(1)
        yield "B asks again", *self.look("B asks again")
        self.step(1000)

    def look(self, moment: str) -> tuple[list[dict], str]:
        """(a row for each block table, a drawing of the pool) as they are now."""
        found = snapshot(self.llm)
        seen = [block for table in found.tables for block in table.blocks] + found.cached_free
        self.widest = max([self.widest, *seen])
        pool = {"blocks_in_use": found.in_use, "blocks_free": found.free, "blocks_cached_free": len(found.cached_free)}
        rows = []
        for table in found.tables or [Table("", 0, [], [])]:
            row = {"moment": moment, "request": f"{self.letters.get(table.request, '–')} {table.request}".strip()}
            row |= {"tokens_kept": table.tokens, "block_table": " ".join(map(str, table.blocks))}
            rows.append(row | {"ref_counts": " ".join(map(str, table.ref_counts))} | pool)
        return rows, drawing(found, self.letters, self.widest)


def drawing(found: Snapshot, letters: dict[str, str], blocks: int) -> str:
    """Blocks 0 to `blocks` and who has each: letters, or `cached` for a free one that keeps a prefix."""
    holders = {0: "null"} | dict.fromkeys(range(1, blocks + 1), "") | dict.fromkeys(found.cached_free, "cached")
    for table in found.tables:
        for number in table.blocks:
            holders[number] += letters[table.request]
    lines = []
    for start in range(0, blocks + 1, 14):
        part = range(start, min(start + 14, blocks + 1))
        lines.append("block " + "".join(f"{number:>7}" for number in part))
        lines.append("holds " + "".join(f"{holders[number] or '.':>7}" for number in part))
    return "\n".join(lines)


@dataclass(frozen=True)
class Served:
    """What came of serving a mix: output tokens/s, and means over the steps in which requests waited for a place."""

    output_tok_s: float
    requests_at_once: float
    tokens_kept: float
    steps: int
    preemptions: int


def serve(llm, requests: Sequence[Lengths], prompts: list[list[int]], max_num_seqs: int) -> Served:
    """Answer all requests as fast as the engine does it, with at most `max_num_seqs` of them at once."""
    from vllm import SamplingParams

    engine, scheduler = llm.llm_engine, core(llm).scheduler
    started_with = scheduler.max_num_active_reqs
    scheduler.max_num_active_reqs = max_num_seqs  # what --max-num-seqs sets at the start
    llm.reset_prefix_cache()
    preempted = _preemptions(llm)
    seen = []  # in each step: whether somebody waits, requests that run, tokens whose K and V they keep
    start = time.perf_counter()
    for number, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
        sampling = SamplingParams(temperature=0.0, max_tokens=request.output_tokens, ignore_eos=True)
        engine.add_request(str(number), {"prompt_token_ids": prompt}, sampling)
    while engine.has_unfinished_requests():
        engine.step()
        kept = sum(request.num_computed_tokens for request in scheduler.running)
        seen.append((bool(scheduler.waiting), len(scheduler.running), kept))
    seconds = time.perf_counter() - start
    scheduler.max_num_active_reqs = started_with
    fullest = max(seen, key=lambda step: step[2])
    full = [step for step in seen if step[0]] or [fullest]  # where nobody waited
    at_once, kept = (sum(step[place] for step in full) / len(full) for place in (1, 2))
    rate = sum(request.output_tokens for request in requests) / seconds
    return Served(rate, at_once, kept, len(seen), _preemptions(llm) - preempted)


def compare(
    llm, requests: Sequence[Lengths], limits: Sequence[int], repeats: int, say: Callable[[str], None]
) -> list[dict]:
    """A row for each limit on the requests at once, all in turn, after a warm-up with the same prompts."""
    questions = [random_prompts(1, request.input_tokens, seed)[0] for seed, request in enumerate(requests)]
    short = [Lengths(request.input_tokens, 4) for request in requests]
    say("warming up")
    serve(llm, short, questions, max(limits))
    served: dict[int, Served] = {}

    def measure(limit: int) -> float:
        say(f"{len(requests)} requests, at most {limit} at once")
        served[limit] = serve(llm, requests, questions, limit)
        return served[limit].output_tok_s

    rates = timing.alternate({limit: lambda limit=limit: measure(limit) for limit in limits}, repeats, warmups=0)
    first = rates[limits[0]].median
    return [
        {
            "max_num_seqs": limit,
            "requests_at_once": served[limit].requests_at_once,
            "tokens_kept": served[limit].tokens_kept,
            "steps": served[limit].steps,
            "output_tok_s": rate.median,
            "x_tok_s": rate.median / first,
            "preempted": served[limit].preemptions,
            "spread_pct": rate.spread_pct,
        }
        for limit, rate in rates.items()
    ]


def _preemptions(llm) -> int:
    return sum(int(metric.value) for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")
