"""5.offline_infer: batches without a server

The question: how does a file of prompts become a file of answers, quickly, and whatever happens meanwhile?

Background. Where nobody waits for a single answer (data sets, evaluations, embeddings, summaries) a server is in the
way. The engine runs in your program, always has more requests than slots, and only tokens per second count. Three
things decide about them: how many requests run at once, whether the KV cache holds them, and in which order they come.
A job of hours also has to live through a crash: here each answer is a line that says which prompt it belongs to, and
the same command again does what is missing. What such a job costs in throughput is measured against vLLM's own
benchmark. At the end the job goes to two workers, and the lessons of this course become a collection to search in.

Speed is measured on a published shape with random weights where there is a GPU, and answers on course-lm. To copy:

  make demo CH=5                                        all experiments
  make demo CH=5 ARGS='--only generate'                 a job that is killed and goes on
  make demo CH=5 ARGS='--only embed --present'          one experiment, step by step, for a room
"""

import importlib
import json
import math
import threading
from dataclasses import asdict, replace
from functools import partial

import killed_jobs
import lesson_tables
import offline_contests as contests
import offline_engines as engines
import offline_prompts
import pandas as pd
import scaled_out

from common import in_process, lengths, models, packages, prices, timing
from common.chapter import Chapter

chapter = Chapter(__file__, speed=True)
COURSE_LM = models.resolve("course-lm")  # for experiments whose answers have to mean something


@chapter.experiment(compact=True)
def generate(run):
    """Does a killed job go on with nothing lost and nothing done twice, and what memory does a job take?"""
    run.model, gpu = COURSE_LM, bool(run.machine.gpus)
    count, kills = run.size(full=5000 if gpu else 1000, smoke=300), 1  # the tests kill it ten times
    models.close_engine()  # the runner's engine, in its own process, gets the whole machine
    prompts, answers = run.logs / "questions.jsonl", run.logs / "answers.jsonl"
    offline_prompts.write_questions(prompts, offline_prompts.questions(count))
    run.setting(kills=kills, max_tokens=48, short_prompts_answered_with=1)
    run.predict("prompts lost or answered twice", 0, "prompts", because="each answer names its line, and is one write")
    because = "the engine holds as many prompts, and what is written is forgotten"
    run.predict("memory, the long file less the short one", 0, "MB", because=because)
    # The engine that is started last has the options of the next experiments, and stays.
    options = ["--max-tokens", "48", "--engine", json.dumps(engines.limits(run, run.model))]
    starts, cases = [], []
    # On a GPU the memory is measured beside the job. Engines on the same cores would slow each other tenfold.
    measuring = threading.Thread(target=killed_jobs.memory_cases, args=[run, cases], daemon=True)
    if gpu:
        measuring.start()
    else:  # what is needed next is imported meanwhile
        threading.Thread(target=importlib.import_module, args=["vllm.entrypoints.llm"], daemon=True).start()
    for number, kill_at in enumerate(killed_jobs.kill_points(count, kills), 1):
        run.step(f"start {number}, to be killed at {kill_at:,} of {count:,} answers")
        starts.append(killed_jobs.attempt(prompts, answers, run.logs / "runner.log", options, kill_at))
    if not gpu:
        run.step("memory: the runner on two files, and two lists")
        measuring.start()
        measuring.join()
    run.step(f"start {kills + 1}, to the end")
    starts.append(killed_jobs.finish(prompts, answers, options))
    measuring.join()
    run.count(lesson_tables.tokens_in(answers))
    counted = killed_jobs.account(prompts, answers)
    run.measured("prompts lost or answered twice", counted["lost"] + counted["twice"])
    rows = [{"case": f"start_{n}", "requests": count} | asdict(start) for n, start in enumerate(starts, 1)]
    rows[-1] |= {"lost": counted["lost"], "twice": counted["twice"]}
    rows += [case.row() for case in cases]
    table = pd.DataFrame(rows, columns=["case", "ended", "requests", "found_done", "done", "lost", "twice", "peak_mb",
                                        "seconds"])  # fmt: skip
    peak = table.set_index("case").peak_mb.to_dict()
    run.measured("memory, the long file less the short one", peak["runner_2"] - peak["runner_1"])
    run.reading(
        f"{count:,} prompts, killed at {starts[0].done:,}: {counted['once']:,} answered once, {counted['lost']} lost, "
        f"{counted['twice']} twice. The runner took {peak['runner_1']:.1f} MB for its short file and "
        f"{peak['runner_2']:.1f} for the long one; all at once took {peak['all_at_once_1']:.0f} and "
        f"{peak['all_at_once_2']:.0f}."
    )
    return table


@chapter.experiment
def evaluate(run):
    """How does one score a model on thousands of examples?"""
    run.model = COURSE_LM
    llm = run.engine(**engines.limits(run, run.model))
    return lesson_tables.evaluate(run, llm, each=run.size(full=100 if run.machine.gpus else 60, smoke=4))


@chapter.experiment
def scale_out(run):
    """What do two workers bring, with Ray Data, and what is `vllm run-batch`?"""
    run.step("installing what Ray needs, once")
    packages.ensure(chapter.folder)
    run.model = COURSE_LM
    llm = run.engine(**engines.limits(run, run.model))
    return scaled_out.compare(run, llm, count=run.size(full=2000 if run.machine.gpus else 400, smoke=12))


@chapter.experiment
def embed(run):
    """Can the course's lessons be searched with the vectors of a small model?"""
    run.model, options = COURSE_LM, engines.SMALL_ON_A_GPU if run.machine.gpus else {}
    llm = engines.fresh_engine(run, **options, runner="pooling", convert="embed",
                               pooler_config={"seq_pooling_type": "MEAN"})  # fmt: skip
    return lesson_tables.search(run, llm)


@chapter.experiment
def max_model_len(run):
    """What does a larger max_model_len cost?"""
    limit = run.model.config["max_position_embeddings"]
    gpu = bool(run.machine.gpus)
    values = (engines.limits(run)["max_model_len"], limit) if gpu else run.size((256, 2048), (512, 2048))
    # In turn, where a machine is restless and an engine starts in seconds: the first again at the end.
    visits = values if gpu or run.smoke else (*values, *reversed(values))
    scale, count = (0.25, run.size(256, 64)) if gpu else (0.125, run.size(48, 8))
    drawn = lengths.sample(10_000, limit=100_000)
    run.setting(requests=count, scale=scale, repeats=len(visits) // 2 * run.repeats, refused_of=len(drawn))
    because = "blocks are handed out as tokens come: the limit reserves nothing"
    run.predict("tokens/s at the largest over the smallest", 1.0, "x", because=because)
    rounds, blocks, requests = {value: [] for value in values}, {}, []
    eager = {"enforce_eager": True} if gpu else {}  # on both sides: compiled, each would start a minute later
    for value in visits:
        llm = None  # an engine that is still named here would keep its memory
        llm = engines.fresh_engine(run, **engines.limits(run) | eager | {"max_model_len": value})
        requests = requests or offline_prompts.chat(llm.get_tokenizer(), count, min(values), scale)
        cache = llm.llm_engine.vllm_config.cache_config
        blocks[value] = cache.num_gpu_blocks
        run.step(f"max_model_len {value:,}: warming up")
        engines.serve(llm, requests[: run.size(count, 1)])
        rounds[value] += engines.in_turn(run, {value: partial(engines.serve, llm, requests)})[value]
    run.count(sum(served.output_tokens for taken in rounds.values() for served in taken))
    rows = []
    for value, taken in rounds.items():
        tokens = blocks[value] * cache.block_size
        refused = sum(size.input_tokens >= value for size in drawn) / len(drawn) * 100
        cut = sum(size.input_tokens < value < size.input_tokens + size.output_tokens for size in drawn)
        rows.append({"max_model_len": value, "blocks": blocks[value], "kv_tokens": tokens,
                     "full_requests": tokens / value, "output_tok_s": engines.median(taken, "output_tok_s"),
                     "spread_pct": engines.spread_pct(taken), "refused_pct": refused,
                     "cut_pct": cut / len(drawn) * 100})  # fmt: skip
    table = pd.DataFrame(rows)
    first, last = table.iloc[0], table.iloc[-1]
    run.measured("tokens/s at the largest over the smallest", last.output_tok_s / first.output_tok_s)
    run.reading(
        f"From {first.max_model_len:,.0f} to {last.max_model_len:,.0f} the KV cache keeps "
        f"{last.blocks / first.blocks * 100:.0f} % of its blocks and the batch "
        f"{last.output_tok_s / first.output_tok_s * 100:.0f} % of its tokens per second. At the smallest "
        f"{first.refused_pct:.0f} % of a chat service's prompts would be refused."
    )
    return table


@chapter.experiment
def throughput(run):
    """Is the runner as fast as vLLM's own benchmark on the same prompts?"""
    from transformers import AutoTokenizer

    options = engines.limits(run)
    scale, count = (0.25, run.size(256, 64)) if run.machine.gpus else (0.125, run.size(128, 24))
    warmups, tokenizer = run.size(1, 0), AutoTokenizer.from_pretrained(run.model.path)
    drawn = offline_prompts.chat(tokenizer, 2 * count, 1000, scale)
    # The benchmark leaves out what has less than four tokens in or out.
    requests = [r for r in drawn if min(r.prompt_tokens, r.output_tokens) >= 4][:count]
    tokens = sum(request.output_tokens for request in requests)
    run.setting(requests=count, output_tokens=tokens, scale=scale, temperature=1.0, repeats=run.repeats,
                warmups=warmups)  # fmt: skip
    because = "the same steps of the same engine; a file is little work beside them"
    run.predict("tokens/s of the runner over the benchmark", 1.0, "x", because=because)
    if not run.smoke:
        models.close_engine()  # the command's engine is another one, and comes first: then nothing is in its way
        run.step("vllm bench throughput, the command")
        rate = contests.of_benchmark_command(run, requests, tokenizer, **options, enable_prefix_caching=False)
    llm = engines.in_process_engine(run, **options)
    run.step(f"{count} requests, one way after the other, {warmups} warm-up and {run.repeats} rounds")
    benchmark, runner = contests.of_benchmark(llm, requests), contests.of_runner(llm, requests, run.logs)
    contestants = {"benchmark": benchmark, "batch_runner": runner}
    found = timing.alternate(contestants, run.repeats, warmups)
    run.count(2 * (run.repeats + warmups) * tokens)
    rows = [
        {"tool": name, "output_tok_s": r.median, "spread_pct": r.spread_pct, "steps": contestants[name].steps,
         "outside_steps_pct": contestants[name].outside_steps_pct}
        for name, r in found.items()
    ]  # fmt: skip
    if not run.smoke:
        rows.insert(1, {"tool": "benchmark_command", "output_tok_s": rate})
    table = pd.DataFrame(rows)
    table["difference_pct"] = (table.output_tok_s / table.output_tok_s[0] - 1) * 100
    ratio = table.output_tok_s.iloc[-1] / table.output_tok_s[0]
    run.measured("tokens/s of the runner over the benchmark", ratio)
    run.reading(
        f"From file to file the runner makes {ratio * 100:.1f} % of the tokens per second that vLLM's benchmark makes "
        f"of the same prompts in memory. Outside the engine's steps it spends {table.outside_steps_pct.iloc[-1]:.1f} % "
        f"of its time, the benchmark {table.outside_steps_pct[0]:.1f} %."
    )
    return table


@chapter.experiment
def sampling(run):
    """What does each way of sampling cost, against taking the likeliest token?"""
    llm = engines.in_process_engine(run, **engines.limits(run))
    count, answer = run.size(64 if run.machine.gpus else 32, 8), run.size(64 if run.machine.gpus else 16, 6)
    requests = offline_prompts.of_lengths(llm.get_tokenizer(), [lengths.Lengths(100, answer)] * count)
    few = requests[: count // contests.BEAMS]  # with its beams as many sequences as the others
    short = [replace(request, output_tokens=min(16, answer)) for request in few]  # beam search: a call for each token
    run.setting(requests=count, input_tokens=100, output_tokens=answer, few_requests=len(few),
                few_output_tokens=short[0].output_tokens, repeats=run.repeats)  # fmt: skip
    contestants = {name: contests.of_sampler(llm, requests, how) for name, how in contests.SAMPLERS.items()}
    contestants["n_4"] = contests.of_sampler(llm, few, {"temperature": 1.0, "n": contests.BEAMS})
    contestants["greedy_few"] = contests.of_sampler(llm, short, {"temperature": 0.0})
    contestants["beam_search_few"] = contests.of_beam_search(llm, short)
    because = "to find the cut in the logits is little work beside reading the weights"
    run.predict("top_k and top_p over greedy", 1.0, "x", because=because)
    warmups = run.size(full=1, smoke=0)
    run.step(f"{len(contestants)} ways in turn, {warmups} warm-ups and {run.repeats} rounds")
    found = timing.alternate(contestants, run.repeats, warmups)
    tokens = answer * (len(contests.SAMPLERS) + 1) * count + 2 * sum(request.output_tokens for request in short)
    run.count((run.repeats + warmups) * tokens)
    table = pd.DataFrame(
        {"sampler": name, "requests": count if name in contests.SAMPLERS else len(few), "output_tok_s": rates.median,
         "spread_pct": rates.spread_pct,
         "x_greedy": rates.median / found["greedy_few" if name.endswith("few") else "greedy"].median}
        for name, rates in found.items()
    )  # fmt: skip
    x = table.set_index("sampler").x_greedy
    run.measured("top_k and top_p over greedy", x["top_k_and_top_p"])
    others = x[list(contests.SAMPLERS)].drop("greedy")
    run.reading(
        f"The other ways of sampling one answer make {others.min():.2f} to {others.max():.2f} times the tokens per "
        f"second of greedy, top-k and top-p together {x['top_k_and_top_p']:.2f} times, beam search with "
        f"{contests.BEAMS} beams {x['beam_search_few']:.2f} times."
    )
    return table


@chapter.experiment
def batch_size(run):
    """How many requests should run at once?"""
    llm = engines.in_process_engine(run, **engines.limits(run))
    largest, answer = engines.slots(run), run.size(full=32, smoke=16)
    sizes = [size for size in run.size((1, 4, 16, 64, 256, 512), (1, 16)) if size <= largest]
    count = {size: max(8, 2 * size) if size < 256 else size for size in sizes}
    requests = offline_prompts.of_lengths(llm.get_tokenizer(), [lengths.Lengths(128, answer)] * max(count.values()))
    run.setting(input_tokens=128, output_tokens=answer, repeats=run.repeats)
    cache = llm.llm_engine.vllm_config.cache_config
    run.step("warming up")
    engines.serve(llm, requests[:largest])

    def at(size: int) -> engines.Served:
        with engines.running_at_most(llm, size):
            return engines.serve(llm, requests[: count[size]])

    for size in sizes[1:]:
        blocks = math.ceil((max(r.prompt_tokens for r in requests[: count[size]]) + answer - 1) / cache.block_size)
        share = size * blocks / cache.num_gpu_blocks * 100
        run.predict(f"KV cache in use, {size} at once", share, "%", because="their blocks at the end, over all blocks")
    found = engines.in_turn(run, {size: partial(at, size) for size in sizes})
    run.count(sum(served.output_tokens for rounds in found.values() for served in rounds))
    price, source = prices.per_hour(run.machine, run.options.gpu_price)
    run.setting(price_source=source)
    columns = ("tpot_p50_ms", "mean_s", "kv_peak_pct", "gpu_util_pct", "joules_per_token")
    table = pd.DataFrame(
        {
            "slots": size,
            "output_tok_s": engines.median(rounds, "output_tok_s"),
            "x_tok_s": None,
            "usd_per_million_tokens": None,
        }
        | {column: engines.median(rounds, column) for column in columns}
        | {"price_usd_per_hour": price, "spread_pct": engines.spread_pct(rounds)}
        for size, rounds in found.items()
    )
    table["x_tok_s"] = table.output_tok_s / table.output_tok_s[0]
    if price is not None:
        table["usd_per_million_tokens"] = price / 3600 / table.output_tok_s * 1e6
    for row in table.iloc[1:].itertuples():
        run.measured(f"KV cache in use, {row.slots} at once", row.kv_peak_pct)
    last, before = table.iloc[-1], table.iloc[-2]
    run.reading(
        f"{last.slots:.0f} at once make {last.x_tok_s:.1f} times the tokens per second of one at a time; from "
        f"{before.slots:.0f} on it is {last.output_tok_s / before.output_tok_s:.2f} times for "
        f"{last.slots / before.slots:.0f} times the requests, at {last.tpot_p50_ms:.1f} ms for each token "
        f"instead of {before.tpot_p50_ms:.1f}."
    )
    return table


@chapter.experiment
def sorted_or_not(run):
    """Does the order of a batch matter?"""
    llm = engines.in_process_engine(run, **engines.limits(run))
    tokenizer, places = llm.get_tokenizer(), 64 if run.machine.gpus else 16
    scale = 0.25 if run.machine.gpus else run.size(0.125, 0.05)
    count = run.size(4 if run.machine.gpus else 2, 1) * places
    orders = contests.orders(offline_prompts.chat(tokenizer, count, 2000, scale))
    steps = {name: contests.steps_of([r.output_tokens for r in order], places) for name, order in orders.items()}
    because = f"steps of {places} slots, each refilled at once, over those of the order in which they come"
    for name in list(orders)[1:]:
        run.predict(f"time, {name}", steps[name] / steps["as_they_come"], "x", because=because)
    groups, prefix, each = (6, 2000, 4) if run.machine.gpus else run.size((4, 640, 4), (3, 256, 2))
    grouped = contests.shared_prefixes(tokenizer, offline_prompts.lesson_tokens(tokenizer), groups, each, prefix, 24)
    orders |= {"texts_in_turn": contests.interleaved(grouped, each), "text_by_text": grouped}
    block_size = llm.llm_engine.vllm_config.cache_config.block_size
    room = (groups // 3 + 1) * (prefix + 60 + block_size)  # a third of the texts, and the question that runs
    longest = max(request.prompt_tokens + request.output_tokens for request in grouped)
    reused = groups * (each - 1) * (prefix // block_size * block_size)
    because = f"whole blocks of {block_size} of a text, for all of its questions but the first"
    share = reused / sum(request.prompt_tokens for request in grouped) * 100
    run.predict("from the cache, text_by_text", share, "%", because=because)
    run.setting(requests=len(orders["as_they_come"]), scale=scale, slots=places, texts=groups, questions_on_each=each,
                prefix_tokens=prefix, kv_tokens_for_texts=room, repeats=run.repeats)  # fmt: skip

    def serve(name: str) -> engines.Served:
        if not name.startswith("text"):
            with engines.running_at_most(llm, places):
                return engines.serve(llm, orders[name])
        llm.reset_prefix_cache()
        blocks = math.ceil(room / block_size)
        with in_process.small_cache(in_process.scheduler_of(llm), blocks, longest), engines.running_at_most(llm, 1):
            return engines.serve(llm, orders[name])

    found = engines.in_turn(run, {name: partial(serve, name) for name in orders})
    run.count(sum(served.output_tokens for rounds in found.values() for served in rounds))
    table = pd.DataFrame(
        {"order": name, "requests": len(orders[name]), "seconds": engines.median(rounds, "seconds"), "x_order": None}
        | {column: engines.median(rounds, column) for column in ("output_tok_s", "cached_pct", "steps")}
        | {"spread_pct": engines.spread_pct(rounds)}
        for name, rounds in found.items()
    )
    seconds = table.set_index("order").seconds
    base = {name: "texts_in_turn" if name.startswith("text") else "as_they_come" for name in orders}
    table["x_order"] = [seconds[name] / seconds[base[name]] for name in table.order]
    x = table.set_index("order").x_order
    for name in list(steps)[1:]:
        run.measured(f"time, {name}", x[name])
    run.measured("from the cache, text_by_text", table.set_index("order").cached_pct["text_by_text"])
    run.reading(
        f"Longest answer first takes {x['longest_answer_first']:.2f} times the time of the order in which they come, "
        f"shortest first {x['shortest_answer_first']:.2f} times. Questions text by text take {x['text_by_text']:.2f} "
        "times the time of the texts in turn."
    )
    return table


chapter.figure(
    name="batch_size", experiment="batch_size", x="slots", y="output_tok_s", log_x=True, log_y=True,
    title="Tokens per second by requests at once",
)  # fmt: skip
chapter.figure(
    name="samplers", experiment="sampling", x="sampler", y="x_greedy", kind="bar", title="Throughput over greedy",
)  # fmt: skip
chapter.figure(
    name="search", experiment="embed", x="method", y="top5_pct", kind="bar", title="Section among the first five",
)  # fmt: skip

if __name__ == "__main__":
    chapter.main()
