"""4.workflow: the life of a request

The question: between the moment a request arrives and its last token, who decides what happens when?

Background. vLLM's scheduler decides anew before every step of the model: each request that decodes gets one token,
then prompts are computed, whole or in chunks, until the step's budget of tokens (max_num_batched_tokens) is used up.
Requests join as soon as one of max_num_seqs slots and enough KV blocks are free, and leave with their last token; none
waits for the others of a batch. This demo drives the engine by hand, step by step, and records every step from inside
the scheduler, so that time, idle slots, chunks, preemptions and cache hits are counted and not guessed.

With a GPU the default model is a published shape with random weights; without one it is course-lm. To copy:

  make demo CH=4                                        all experiments
  make demo CH=4 ARGS='--only timeline'                 every step of a mix of requests, drawn
  make demo CH=4 ARGS='--only policies --present'       one experiment, step by step, for a room
"""

import math
import random
import statistics
from dataclasses import replace
from functools import partial

import contests
import pandas as pd
import stages
import transformers_batching
from drive import drive, in_batches
from request_mixes import Request, chat, constant, exponential, mean, of_lengths, poisson, random_ids, staggered
from traced_engines import SCALE, engine, limits, plain_engine, slots

from common import models, throughput, timeline_table, timing
from common import timeline as timelines
from common.chapter import Chapter
from common.in_process import changed
from common.lengths import Lengths
from common.problems import Problem

chapter = Chapter(__file__, speed=True)
chapter.option("--requests", type=int, default=12, metavar="N", help="how many the timeline shows (12)")


@chapter.experiment
def lifecycle(run):
    """Where does one request spend its time, alone and behind others?"""
    started = engine(run)
    text = "A request arrives, waits, is computed and answered. " * 60
    prompt_tokens, answer_tokens = len(started.llm.get_tokenizer().encode(text)), 32
    one = Request("one", text, answer_tokens, use_prefix_cache=False)
    run.setting(input_tokens=prompt_tokens, output_tokens=answer_tokens, others=slots(run) - 1)
    block_size, budget = started.recorded().block_size, limits(run)["max_num_batched_tokens"]
    steps = math.ceil(prompt_tokens / budget) + answer_tokens - 1
    blocks = math.ceil((prompt_tokens + answer_tokens - 1) / block_size)
    run.predict("steps, alone", steps, "steps", because="one for each chunk of the prompt, one for each further token")
    run.predict("KV blocks at the end", blocks, "blocks", because=f"all tokens but the last, {block_size} a block")
    rows = []
    for case, others in (("alone", 0), ("behind_others", slots(run) - 1)):
        requests = [*of_lengths(chat(others, 4 * SCALE), "chat"), one]
        rows += [{"case": case} | row for row in contests.life(run, started, requests)]
    table = pd.DataFrame(rows)
    alone, behind = (table[table.case == case].set_index("stage") for case in ("alone", "behind_others"))
    run.measured("steps, alone", alone.steps["sum"])
    run.measured("KV blocks at the end", alone.blocks["decode"])
    # What the next request's first step sees in use beside its own: what this one has not given back.
    after = started.steps_of(drive(started.llm, [Request("after", random_ids(4), 1)])).steps[0]
    left = after.blocks_used - sum(map(len, after.new_block_ids.values()))
    run.reading(
        f"Alone, {alone.share_pct['prefill'] + alone.share_pct['decode']:.0f} % of the time is the model's. Behind "
        f"others it waits {behind.ms['queue']:.0f} ms and decodes for {behind.ms['decode'] / alone.ms['decode']:.1f} "
        f"times as long. Of its {alone.blocks['decode']} blocks {left} were still in use after the last token."
    )
    return table


@chapter.experiment
def static_against_continuous(run):
    """How much is lost by waiting for whole batches?"""
    places, count = slots(run), run.size(full=3 if run.machine.gpus else 4, smoke=2) * slots(run)
    usual = mean(chat(1000, SCALE))
    mixes = {"constant": constant(count, usual), "chat": chat(count, SCALE), "exponential": exponential(count, usual)}
    because = "steps of the batches, each as long as its longest answer, over those with each slot refilled at once"
    for mix, sizes in mixes.items():
        answers = [size.output_tokens for size in sizes]
        bound = stages.batch_steps(answers, places) / max(stages.end_steps(answers, places))
        run.predict(f"{mix}: continuous over static", bound, "x", because=because)
    few = run.size(full=2 * places, smoke=4)  # a step of Transformers takes long
    theirs = {mix: mixes[mix][:few] for mix in ("constant", "exponential")}
    run.setting(requests=count, transformers_requests=few, scale=SCALE, warmups=1)
    if limits(run).get("gpu_memory_utilization", 0) > 0.5:
        models.close_engine()  # this GPU has no room for both
    run.step("Transformers, in a process of its own")
    cells = transformers_batching.apart(run, theirs, places, limit_s=150)
    started = engine(run)
    batchings = {"vllm_static": partial(in_batches, size=places), "vllm_continuous": drive}
    for mix, sizes in mixes.items():
        contestants = {
            (mix, name): partial(contests.batches, run, started, batching, sizes)
            for name, batching in batchings.items()
        }
        cells |= contests.in_turn(run, contestants)
    table = contests.batching_table(cells, mixes)
    x, idle = (table.pivot(index="mix", columns="batching", values=column) for column in ("x_static", "idle_slots_pct"))
    for mix in mixes:
        run.measured(f"{mix}: continuous over static", x.vllm_continuous[mix])
    run.reading(
        f"Continuous over static on the same engine: {x.vllm_continuous['constant']:.2f} times for equal lengths, "
        f"{x.vllm_continuous['chat']:.2f} for a chat service's, {x.vllm_continuous['exponential']:.2f} for exponential "
        f"ones. Static batches of chat leave {idle.vllm_static['chat']:.0f} % of the slots idle."
    )
    return table


@chapter.experiment
def trace_overhead(run):
    """What does recording every step cost?"""
    batch, repeats = slots(run), run.size(full=5, smoke=1)
    tokens = (100, run.size(full=200, smoke=20))
    started = engine(run)
    with plain_engine(run) as plain:
        engines = {"vllm_own": plain, "recording": started.llm}
        run.step(f"one after the other, a warm-up and {repeats} rounds")
        rates = timing.alternate({n: throughput.of_vllm(llm, batch, *tokens) for n, llm in engines.items()}, repeats)
    run.setting(input_tokens=tokens[0], output_tokens=tokens[1], repeats=repeats, warmups=1)
    run.count(len(rates) * (repeats + 1) * batch * tokens[1])
    own = rates["vllm_own"].median
    table = pd.DataFrame(
        {
            "scheduler": name,
            "batch": batch,
            "output_tok_s": found.median,
            "spread_pct": found.spread_pct,
            "difference_pct": (found.median / own - 1) * 100,
        }
        for name, found in rates.items()
    )
    run.reading(
        f"While it records, the engine makes {table.difference_pct[1]:+.1f} % tokens per second at batch {batch}; the "
        f"repeats differ by {table.spread_pct.max():.1f} %."
    )
    return table


@chapter.experiment
def timeline(run):
    """What does every step of a mix of requests look like?"""
    context = limits(run)["max_model_len"]
    requests, budget, started = staggered(context, run.options.requests), context // 4, engine(run, in_process=True)
    total = sum(len(request.prompt) + request.output_tokens - 1 for request in requests)
    run.predict("tokens scheduled", total, "tokens", because="each of a prompt and of an answer once, but the last one")
    long, streams = max(requests, key=lambda request: len(request.prompt)), len(requests) // 2
    chunks = math.ceil(len(long.prompt) / (budget - min(streams, slots(run) - 1)))
    because = f"a budget of {budget:,} tokens, less one for each of the {streams} before it, as long as they decode"
    run.predict(f"steps for the prompt of {long.name}", chunks, "steps", because=because)
    with changed(started.scheduler, max_num_scheduled_tokens=budget):
        served = drive(started.llm, requests)
    run.count(served.output_tokens)
    trace = replace(started.steps_of(served), max_num_batched_tokens=budget)
    run.setting(block_size=trace.block_size, num_blocks=trace.num_blocks, max_num_batched_tokens=budget)
    picture, perfetto = (started.file.with_name(f"timeline.{kind}") for kind in ("png", "json"))
    timelines.draw(trace, picture, f"{run.model.name} on {run.machine.describe()}")
    timelines.chrome(trace, perfetto)
    run.show("Drawn from every step", f"{picture}\n{perfetto}  for https://ui.perfetto.dev (it stays on this machine)")
    run.measured("tokens scheduled", sum(sum(step.num_scheduled_tokens.values()) for step in trace.steps))
    names = {answer.id: answer.request.name for answer in served.answers}
    computing = sum(long.name in map(names.get, step.prefill) for step in trace.steps)
    run.measured(f"steps for the prompt of {long.name}", computing)
    full = sum(sum(step.num_scheduled_tokens.values()) == budget for step in trace.steps)
    longest = max(trace.steps, key=lambda step: step.duration_ms)
    streams = len(longest.num_scheduled_tokens) - len(longest.prefill)
    run.reading(
        f"{len(requests)} requests took {len(trace.steps)} steps; {full} of them used up the budget of {budget:,} "
        f"tokens. The {len(long.prompt):,} tokens of {long.name} took {computing} steps. The longest step lasted "
        f"{longest.duration_ms:.0f} ms, and {streams} streams waited for it."
    )
    return pd.DataFrame(timeline_table.table(trace, names))


@chapter.experiment(compare="itl_p99_ms")
def chunked_prefill(run):
    """What does a budget of tokens cost the long prompts, and buy the streams?"""
    started, context = engine(run, in_process=True), limits(run)["max_num_batched_tokens"]
    long, streams, count = Lengths(context - 64, 4), 8, run.size(full=2, smoke=1)
    stream = Lengths(32, run.size(full=300 if run.machine.gpus else 150, smoke=60))
    run.setting(long_tokens=long.input_tokens, long_requests=count, streams=streams, stream_tokens=stream.output_tokens)
    budgets = (context // 32, context // 8, context)
    alone = {tokens: contests.alone_ms(started, tokens) for tokens in (*budgets[:2], long.input_tokens)}
    because = "a prompt of as many tokens takes that long alone, and the last chunk looks back over those before it"
    for budget in budgets:
        gap = stages.longest_gap_ms(budget, streams, long.input_tokens, alone)
        run.predict(f"longest gap at a budget of {budget}", gap, "ms", because=because)
    settings = {str(budget): (budget, True) for budget in budgets}
    settings["not_chunked"] = (context, False)
    requests = of_lengths([stream] * streams, "short")
    # From one long prompt to the next takes twice the time of its prefill.
    due_s = [0.1 + place * 2e-3 * alone[long.input_tokens] for place in range(count)]
    requests += of_lengths([long] * count, "long", due_s)
    found = contests.in_turn(
        run, {name: partial(contests.budgets, run, started, requests, *setting) for name, setting in settings.items()}
    )
    for name, (budget, chunked) in settings.items():
        if found[name]["most_tokens"] > budget:
            raise Problem(f"A step held more than {budget} tokens: the limit had no effect.", "Record with vLLM 0.32.")
        if chunked:
            run.measured(f"longest gap at a budget of {name}", found[name]["itl_max_ms"])
    table = pd.DataFrame({"chunks": name, "budget": settings[name][0]} | row for name, row in found.items())
    table = table[[column for column in table if " " not in column]]  # not the spread of every figure
    small, large = table.iloc[0], table.iloc[2]
    run.reading(
        f"With a budget of {small.budget:,} instead of {large.budget:,} the longest gap of a stream falls from "
        f"{large.itl_max_ms:.0f} to {small.itl_max_ms:.0f} ms, and a long prompt's first token comes after "
        f"{small.ttft_ms:.0f} ms instead of {large.ttft_ms:.0f}."
    )
    return table


@chapter.experiment
def policies(run):
    """Who gains and who pays when the order changes?"""
    started, count = engine(run, in_process=True), run.size(full=3, smoke=2) * slots(run)
    requests = of_lengths(chat(count * 3 // 4, SCALE), "interactive")
    requests += of_lengths([Lengths(64, 120)] * (count // 4), "batch")
    random.Random(0).shuffle(requests)
    run.setting(requests=count, all_due_at_once=True, scale=SCALE)
    answers = [request.output_tokens for request in requests]
    first, shortest = (statistics.mean(stages.end_steps(order, slots(run))) for order in (answers, sorted(answers)))
    because = "mean step in which a request ends, if each takes a free slot in this order for the steps of its answer"
    run.predict("mean latency, shortest answer first over first come", shortest / first, "x", because=because)
    found = contests.in_turn(
        run, {name: partial(contests.orders, run, started, requests, order) for name, order in contests.ORDERS.items()}
    )
    table = contests.policy_table(found, "first_come")
    x_first = table[table.kind == "all"].set_index("policy").x_first
    run.measured("mean latency, shortest answer first over first come", x_first.shortest_answer_first)
    run.reading(
        "Against first come first served the mean latency changes by "
        f"{x_first.shortest_answer_first * 100 - 100:+.0f} % with the shortest answer first, which nobody knows "
        f"beforehand, and by {x_first.shortest_prompt_first * 100 - 100:+.0f} % with the shortest prompt first."
    )
    return table


@chapter.experiment
def preemption(run):
    """What does a KV cache cost that is too small for all who run?"""
    started, count = engine(run, in_process=True), slots(run)
    size, block_size = Lengths(100, run.size(full=200, smoke=60)), started.scheduler.block_size
    each = math.ceil((size.input_tokens + size.output_tokens - 1) / block_size)
    fit = count // 2
    run.setting(requests=count, input_tokens=size.input_tokens, output_tokens=size.output_tokens, block_size=block_size)
    because = f"{count} requests start, {fit} of them fit with all of their {each} blocks: the others have to go once"
    run.predict("preemptions with half the blocks, at least", count - fit, "times", because=because)
    requests = of_lengths([size] * count, "equal")
    settings = {"enough": (each * count, count), "half": (each * fit, count)}
    settings["half_and_half_the_slots"] = (each * fit, fit)
    found = contests.in_turn(
        run, {name: partial(contests.caches, run, started, requests, *setting) for name, setting in settings.items()}
    )
    columns = ("most_running", "preempted", "recomputed_tokens", "seconds", "spread_pct", "p99_s")
    table = pd.DataFrame(
        {"kv_cache": name, "blocks": settings[name][0]} | {column: row[column] for column in columns}
        for name, row in found.items()
    )
    table.insert(6, "x_time", table.seconds / table.seconds[0])
    run.measured("preemptions with half the blocks, at least", table.preempted[1])
    run.reading(
        f"Half the blocks cost {table.preempted[1]:.0f} preemptions, {table.recomputed_tokens[1]:,.0f} tokens computed "
        f"again, and {table.x_time[1]:.2f} times the time; with half the slots, where nobody is evicted, "
        f"{table.x_time[2]:.2f} times."
    )
    return table


@chapter.experiment
def prefix_cache(run):
    """What does a shared system prompt save?"""
    started, context = engine(run, in_process=True), limits(run)["max_model_len"]
    user, count, block_size = Lengths(64, 16), run.size(full=6, smoke=3), started.scheduler.block_size
    run.setting(requests=count, user_tokens=user.input_tokens, output_tokens=user.output_tokens, one_at_a_time=True)
    lengths = [0, context // 10, context * 8 // 10]
    because = f"whole blocks of {block_size} of the system prompt, for all but the first of {count} requests"
    for length in lengths:
        rate = (count - 1) / count * (length // block_size * block_size) / (length + user.input_tokens)
        run.predict(f"hit rate at {length:,} tokens", rate * 100, "%", because=because)
    found = contests.in_turn(
        run,
        {
            (length, cached): partial(contests.prefixes, run, started, length, user, count, cached)
            for length in lengths
            for cached in (True, False)
        },
    )
    table = contests.prefix_table(found, user.input_tokens)
    for row in table.itertuples():
        run.measured(f"hit rate at {row.system_tokens:,} tokens", row.hit_rate_pct)
    long, nothing = table.iloc[-1], table.iloc[0]
    run.reading(
        f"With a system prompt of {long.system_tokens:,.0f} tokens {long.hit_rate_pct:.0f} % of the prompt tokens come "
        f"from the cache, and the first token after {long.ttft_ms:.1f} ms instead of {long.uncached_ttft_ms:.1f}. With "
        f"nothing shared the two differ by {nothing.x_ttft * 100 - 100:+.0f} %."
    )
    return table


@chapter.experiment
def mixed_load(run):
    """What do chat, batch and long prompts do to each other?"""
    started, context = engine(run, in_process=True), limits(run)["max_model_len"]
    window_s = run.size(full=2.0, smoke=0.6)
    # Batch takes all slots three times over, and its answers end at different steps: most of the time others queue.
    batch, size = 3 * slots(run), Lengths(64, run.size(full=75, smoke=15))
    chat_per_s, long_per_s = (20.0, 1.5) if run.machine.gpus else (8.0, 1.0)
    scale = 4 * SCALE if run.machine.gpus else SCALE
    run.setting(window_s=window_s, chat_per_s=chat_per_s, chat_scale=scale, long_per_s=long_per_s)
    run.setting(batch_mean_output_tokens=size.output_tokens)
    long = Lengths(context * 8 // 10, 16)
    due_s = {"chat": poisson(chat_per_s, window_s), "long": poisson(long_per_s, window_s, seed=1)}
    loads = {
        "chat": of_lengths(chat(len(due_s["chat"]), scale), "chat", due_s["chat"]),
        "batch": of_lengths(exponential(batch, size), "batch"),
        "long": of_lengths([long] * len(due_s["long"]), "long", due_s["long"]),
    }
    long_ms = contests.alone_ms(started, long.input_tokens)
    because = f"a budget of {context:,} takes a long prompt in one step, measured alone, and all streams wait"
    run.predict("longest gap of batch, together", long_ms, "ms", because=because)
    contestants = {f"{kind}_alone": partial(contests.classes, run, started, {kind: loads[kind]}) for kind in loads}
    contestants["together"] = partial(contests.classes, run, started, loads)
    contestants["together_chat_first"] = partial(contests.classes, run, started, loads, {"long": 1, "batch": 2})
    contestants["together_small_budget"] = partial(contests.classes, run, started, loads, budget=context // 8)
    table = contests.class_table(contests.in_turn(run, contestants), loads)
    of_chat, of_batch = (table[table.kind == kind].set_index("load") for kind in ("chat", "batch"))
    run.measured("longest gap of batch, together", of_batch.itl_max_ms["together"])
    ttft, gap, rate = of_chat.ttft_p99_ms, of_batch.itl_max_ms, of_batch.output_tok_s
    run.reading(
        f"Together, up to {of_chat.most_waiting['together']:.0f} requests waited. The P99 TTFT of chat is "
        f"{ttft['alone']:.0f} ms alone, {ttft['together']:.0f} together, {ttft['together_chat_first']:.0f} with chat "
        f"first. The longest gap of batch grows from {gap['alone']:.0f} to {gap['together']:.0f} ms "
        f"({gap['together_small_budget']:.0f} with a budget of {context // 8:,}). Batch keeps "
        f"{rate['together'] / rate['alone'] * 100:.0f} % of its throughput, "
        f"{rate['together_chat_first'] / rate['alone'] * 100:.0f} % with chat first."
    )
    return table


chapter.figure(name="timeline", experiment="timeline", kind="timeline", title="Every step of a mix of requests")
chapter.figure(
    name="gap_by_budget", experiment="chunked_prefill", x="chunks", y="itl_max_ms", kind="bar",
    title="Longest gap in a stream, by the budget of a step",
)  # fmt: skip

if __name__ == "__main__":
    chapter.main()
