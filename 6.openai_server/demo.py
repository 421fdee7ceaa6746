"""6.openai_server: serving the OpenAI API

The question: what does a client get from `vllm serve`, and what does the server do with everything that clients send?

Background. vLLM speaks the HTTP interface that OpenAI made common: an application that works with their service works
with yours after a change of its base URL. Behind it stand an API server, which turns JSON into tokens and tokens into
events, and the engine of chapters 2 and 4. This chapter calls every endpoint by its official clients, looks at the
bytes of a stream, forces answers into a form, runs tools, changes adapters in full service, puts load on the server and
holds the figures against vLLM's own benchmark, and sends it whatever clients send by mistake.

Experiments whose answers count run on course-lm; where speed counts, the model with a GPU is a published shape with
random weights. To copy:

  make demo CH=6                                        all experiments
  make demo CH=6 ARGS='--only endpoints --present'      one experiment, step by step, for a room
  make demo CH=6 ARGS='--only load'                     our load generator and `vllm bench serve`, on one server
"""

import adapters_under_load
import api_tour
import client_errors
import constraints
import kept_servers
import load_shapes
import pandas as pd
import sse_clients
import token_masks
import tool_loop
import vision

from common import lengths, models
from common import load as load_generator
from common.chapter import Chapter
from common.timing import Repeats

chapter = Chapter(__file__, speed=True)


@chapter.experiment(compact=True)
def endpoints(run):
    """Which endpoints does the server have, and what do the official clients get from them?"""
    server, pooling = kept_servers.kept(run, "features"), kept_servers.kept(run, "pooling")
    run.model = kept_servers.COURSE_LM  # its answers count, whatever the model for speed is
    tour = api_tour.Tour(run, server, run.model.name)
    api_tour.python_clients(tour)
    api_tour.embeddings(tour, pooling)
    api_tour.with_curl(tour)
    api_tour.with_node(tour, pooling)
    table = pd.DataFrame(tour.rows)
    run.reading(
        f"{table.endpoint.nunique()} endpoints answered {table.client.nunique()} clients in {len(table)} calls: "
        f"{', '.join(table.client.unique())}."
    )
    return table


@chapter.experiment(compact=True)
def tools(run):
    """How does a model call a function, and how often is the call right?"""
    server = kept_servers.kept(run, "features")
    run.model = kept_servers.COURSE_LM
    model = run.model.name
    question, rows = "What is 123 + 456?", []
    for who, text, tokens in [("user", question, 0), *tool_loop.converse(server, model, question)]:
        rows.append({"step": who, "answer": text, "output_tokens": run.count(tokens)})
        run.show(who, text)
    pieces, tokens = tool_loop.streamed_call(server, model, question)
    run.show("the same call, streamed", pieces)
    rows.append({"step": "the same call, streamed", "answer": pieces, "output_tokens": run.count(tokens)})
    count = run.size(full=100, smoke=4)
    run.setting(requests=count, temperature=0.0)
    for name, is_strict in (("free arguments", False), ("strict", True)):
        run.step(f"{count} held-out requests, {name}")
        rows.append({"step": name} | tool_loop.share_right(run, server, model, count, is_strict))
    table = pd.DataFrame(rows)
    shares = table.set_index("step")
    run.reading(
        f"Of {count} requests that need a function {shares.right_pct['strict']:.1f} % get the right call with strict "
        f"arguments and {shares.right_pct['free arguments']:.1f} % without; {shares.valid_pct['strict']:.1f} and "
        f"{shares.valid_pct['free arguments']:.1f} % can be parsed."
    )
    return table


@chapter.experiment
def structured(run):
    """How many answers can a program use, with and without a constraint?"""
    server = kept_servers.kept(run, "features")
    run.model = kept_servers.COURSE_LM
    model = run.model.name
    each = run.size(full=50, smoke=2)
    run.setting(requests=each * len(constraints.MAKERS), temperature=0.0, max_tokens=100)
    run.predict("valid with a constraint", 100.0, "%", because="tokens that the grammar forbids cannot be chosen")
    rows = []
    for kind in constraints.MAKERS:
        asked = constraints.tasks(kind, each)
        for constrained in (False, True) if kind not in ("json_compact", "json_spaced") else (True,):
            run.step(f"{kind}, {each} requests, {'with' if constrained else 'without'} the constraint")
            found = constraints.ask_all(run, server, model, asked, constrained)
            rows.append({"kind": kind, "constrained": constrained, "requests": each} | found)
    table = pd.DataFrame(rows)
    both_ways = table[table.kind.isin(table[~table.constrained].kind)].groupby("constrained").valid_pct.mean()
    right = table[table.constrained].set_index("kind").right_pct
    run.measured("valid with a constraint", table[table.constrained].valid_pct.mean())
    run.reading(
        f"Where both were asked, {both_ways[False]:.1f} % of the answers are valid without a constraint and "
        f"{both_ways[True]:.1f} % with one. Valid is not right: the same JSON is right in {right['json_schema']:.0f}, "
        f"{right['json_compact']:.0f} or {right['json_spaced']:.0f} %, as a schema or a grammar says where blanks are."
    )
    return table


@chapter.experiment
def lora(run):
    """Do three models in one batch each answer as themselves, and does changing adapters disturb anybody?"""
    server = kept_servers.kept(run, "features")
    run.model = kept_servers.COURSE_LM
    questions, changes = run.size(full=24, smoke=1), run.size(full=8, smoke=1)
    crowd = adapters_under_load.Crowd(run, server, run.model.name, questions)
    run.setting(questions_each=questions, users_each=adapters_under_load.USERS_EACH, changes=changes)
    run.predict("failed requests while adapters change", 0, "requests", because="loading happens between two steps")
    run.step("base, chinese and sql, in one batch")
    with crowd.asking():
        pass  # each of the questions once
    run.setting(adapters_in_one_batch=adapters_under_load.batched_together(server))
    rows = crowd.rows("in_one_batch")
    run.step(f"the same, while an adapter is loaded and unloaded {changes} times")
    with crowd.asking():
        seconds = adapters_under_load.change(server, changes)
    rows += crowd.rows("while_adapters_change")
    run.step("the same, after an adapter was loaded into every slot")
    adapters_under_load.fill(server, kept_servers.slots(run) - len(kept_servers.ADAPTERS) - changes)
    with crowd.asking():
        pass
    rows += crowd.rows("every_slot_taken")
    table = pd.DataFrame(rows)
    base = table[table.adapter == "base"].set_index("case")
    disturbed = table[table.case == "while_adapters_change"]
    run.measured("failed requests while adapters change", disturbed.failed.sum())
    load_ms = Repeats(tuple(seconds)).median * 1e3
    run.setting(load_ms=load_ms)
    run.reading(
        f"{changes} adapters came and went; of {disturbed.requests.sum()} requests meanwhile {disturbed.failed.sum()} "
        f"failed, and a load took {load_ms:.0f} ms. With every slot taken the base model "
        f"answers {base.right_pct['every_slot_taken']:.0f} % right, before {base.right_pct['in_one_batch']:.0f}."
    )
    return table


@chapter.experiment(compact=True)
def bad_requests(run):
    """What does the server say to every mistake of a client, and does it go on afterwards?"""
    server = kept_servers.kept(run, "features")
    run.model = model = kept_servers.COURSE_LM
    count, leaving = run.size(full=1000, smoke=50), run.size(full=20, smoke=4)
    run.setting(connections=count, hang_ups=leaving)
    rows = client_errors.send_all(server, model.name, model.config["max_position_embeddings"])
    run.step("clients that hang up")
    rows.append(client_errors.hang_ups(server, model.name, leaving))
    run.step(f"{count:,} connections")
    rows.append(client_errors.silent(server, model.name, count))
    rows.append(client_errors.many_at_once(server, model.name, count))
    run.count(4 * len(rows))  # the good request after each, which is checked to have four tokens
    rows += client_errors.keys(kept_servers.kept(run, "pooling"), model.name)
    table = pd.DataFrame(rows)
    tested = table[table.good_after.notna()]
    run.reading(
        f"After each of {len(tested)} mistakes the next good request was "
        f"{'answered' if tested.good_after.all() else 'NOT always answered'}, and at most "
        f"{tested.kv_usage_pct.max():.1f} % of the KV blocks were still held."
    )
    return table


@chapter.experiment
def streaming(run):
    """What does a stream look like on the wire, and what does each client see of it?"""
    server, tokens = kept_servers.kept(run, "plain"), run.size(full=100, smoke=20)
    body = sse_clients.body_of(run.model.name, "Once upon a time", tokens)
    rounds = run.size(full=5, smoke=1)
    short = sse_clients.raw_events(server, body | {"max_tokens": 3})
    run.setting(input_tokens=sse_clients.prompt_tokens(short), output_tokens=tokens, warmups=1, repeats=rounds)
    run.show("the bytes, as they came", "\n".join(f"{ms:7.1f} ms  {piece.decode()!r}" for ms, piece in short))
    run.step("one request after the other, through each client in turn")
    table = pd.DataFrame(sse_clients.compare(run, server, body, rounds))
    first = table.iloc[0]
    run.reading(
        f"The first token is there after {first.ttft_ms:.1f} ms and each further one {first.itl_p50_ms:.2f} ms later; "
        f"a token travels in {first.bytes_per_token:.0f} bytes."
    )
    return table


@chapter.experiment(compare="output_tok_s")
def load(run):
    """Do our load generator and `vllm bench serve` see the same server, from 1 to 256 users?"""
    gpu = bool(run.machine.gpus)
    # A prompt that takes the GPU longer than the host: what is compared are two tools, not two moments of a busy host.
    random_tokens, output_tokens = (500, 32) if gpu else (32, 16)
    # By users: requests in a round, and rounds; these are even, so that each tool begins in half of them.
    full = {1: (20, 16), 8: (80, 16), 64: (320 if gpu else 192, 16), 256: (512, 6)}
    sizes = run.size(full=full, smoke={1: (2, 2), 4: (8, 2)})
    levels, server, bench = list(sizes), kept_servers.kept(run, "plain"), kept_servers.bench()
    prompts, input_tokens = load_shapes.texts(server, run.model.name, run.size(full=512, smoke=16), random_tokens)
    answers = lengths.unequal(output_tokens, len(prompts))
    target = load_generator.Target(server.url, run.model.name, prompts, answers)
    run.setting(input_tokens=input_tokens, output_tokens=f"{min(answers)} to {max(answers)}")
    run.setting(client_processes=1, seed=0)
    with load_generator.ListClient() as clients:
        apart = load_shapes.predict_apart(run, clients, bench, target, run.size(full=40, smoke=5))
        clients.closed_list(target, max(levels), max(levels))  # warm-up
        rows = [
            load_shapes.agreement(run, clients, bench, target, users, requests, max(run.repeats, rounds))
            for users, (requests, rounds) in sizes.items()
        ]
    table = pd.DataFrame(rows)
    run.measured(apart, table.ttft_p50_ms.iloc[0] - table.bench_ttft_p50_ms.iloc[0])
    rate, ttft = (table.loc[table[f"{of}_difference_pct"].abs().idxmax()] for of in ("tok_s", "ttft"))
    run.reading(
        f"The two differ by at most {abs(rate.tok_s_difference_pct):.1f} % in throughput (give or take "
        f"{rate.tok_s_margin_pct:.1f}) and {abs(ttft.ttft_difference_pct):.1f} % in median TTFT (give or take "
        f"{ttft.ttft_margin_pct:.1f}); {levels[-1]} users get "
        f"{table.output_tok_s.iloc[-1] / table.output_tok_s.iloc[0]:.0f} times the tokens of one, and wait "
        f"{table.ttft_p50_ms.iloc[-1] / table.ttft_p50_ms.iloc[0]:.0f} times as long for the first."
    )
    return table


@chapter.experiment
def open_and_closed(run):
    """Why do users who wait for their answer and users who just come see two different servers?"""
    server = kept_servers.kept(run, "plain")
    # Answers of unequal length, as a chat service has them, so that no two requests stay in step.
    sizes = lengths.sample(512, limit=512, scale=1 / run.size(full=4 if run.machine.gpus else 8, smoke=32))
    answers = [max(4, size.output_tokens) for size in sizes]
    random_tokens = load_shapes.prompt_tokens(run)
    prompts, input_tokens = load_shapes.texts(server, run.model.name, run.size(full=256, smoke=8), random_tokens)
    target = load_generator.Target(server.url, run.model.name, prompts, answers, deadline_s=120)
    window_s = run.size(full=8.0, smoke=0.3)  # a tail of some hundred requests, and a queue needs time to grow
    levels = run.size(full=[16, 64, 256] if run.machine.gpus else [4, 16, 64], smoke=[2])
    run.setting(window_s=window_s, repeats=run.repeats, seed=0)
    run.setting(input_tokens=input_tokens, mean_output_tokens=sum(answers) / 512)
    rate = run.size(full=500 if run.machine.gpus else 60, smoke=20)
    clients = kept_servers.clients(users=max(levels), requests_per_s=rate)
    clients.closed_loop(target, users=2, seconds=run.size(full=0.5, smoke=0.0))  # warm-up
    table = pd.DataFrame(load_shapes.loops(run, clients, target, levels, window_s))
    spread = table.pop("ttft_spread_pct")
    table.insert(table.columns.get_loc("mean_s"), spread.name, spread)  # a screen shows eight columns
    closed, opened, over = table.iloc[-3], table.iloc[-2], table.iloc[-1]
    run.reading(
        f"At {closed.requests_per_s:.0f} requests a second {closed.users:.0f} users have a P99 TTFT of "
        f"{closed.ttft_p99_ms:.0f} ms; arrivals at the same rate have {opened.ttft_p99_ms:.0f}, and at "
        f"{over.requests_per_s:.0f} a second {over.ttft_p99_ms:.0f}."
    )
    return table


@chapter.experiment
def structured_cost(run):
    """What does a constraint cost in tokens per second?"""
    server = kept_servers.kept(run, "plain")
    random_tokens, tokens = load_shapes.prompt_tokens(run), run.size(full=48 if run.machine.gpus else 40, smoke=10)
    levels = run.size(full=[1, 64] if run.machine.gpus else [1, 16], smoke=[4])
    prompts, input_tokens = load_shapes.texts(server, run.model.name, run.size(full=128, smoke=8), random_tokens)
    run.setting(input_tokens=input_tokens, output_tokens=tokens, warmups=run.size(full=1, smoke=0))
    walks = run.size(full=8, smoke=1)
    run.setting(repeats=run.repeats, backend="xgrammar", masks=f"{walks} answers of {tokens} random tokens")
    rows, clients = [], kept_servers.clients(users=max(levels))
    targets = {
        kind: load_generator.Target(server.url, run.model.name, prompts, tokens, extra=extra)
        for kind, extra in constraints.ENDLESS.items()
    }
    run.step("masks, made alone")
    mask_ms = token_masks.mean_ms(run.model, constraints.ENDLESS, tokens, walks)
    run.step(f"{levels[-1]} users, free text")
    free = load_shapes.rates(run, clients, {"none": targets["none"]}, levels[-1], "kind", "x_free")[0]["output_tok_s"]
    regex = f"regex with {levels[-1]} users over free text"
    where = "while the GPU computes" if run.machine.gpus else "on top of the model's work"
    because = f"a mask takes {mask_ms['regex']:.2g} ms; those of a step are made one after the other, {where}"
    kept = token_masks.kept_share(free, mask_ms["regex"], gpu=bool(run.machine.gpus))
    run.predict(regex, kept, "x", because=because)
    for users in levels:
        run.step(f"{users} users, each kind of constraint in turn")
        rows += load_shapes.rates(run, clients, targets, users, "kind", "x_free")
    table = pd.DataFrame(rows)
    table.insert(5, "mask_ms", table.kind.map(mask_ms))
    most = table[(table.users == levels[-1]) & (table.kind != "none")].set_index("kind").x_free
    run.measured(regex, most["regex"])
    run.reading(
        f"With {levels[-1]} users a constraint leaves {most.min():.2f} ({most.idxmin()}) to {most.max():.2f} "
        f"({most.idxmax()}) of the tokens per second of free text."
    )
    return table


@chapter.experiment
def lora_cost(run):
    """What do adapters cost in tokens per second, against a server that knows of none?"""
    if not kept_servers.two_fit(run):
        kept_servers.close("plain")
        run.model = kept_servers.COURSE_LM
    plain = kept_servers.kept(run, "plain")
    adapted, names = kept_servers.kept(run, kept_servers.adapted_name(run)), kept_servers.adapter_names(run)
    gpu, random_tokens = bool(run.machine.gpus), load_shapes.prompt_tokens(run)
    users, tokens = run.size(full=64 if gpu else 8, smoke=3), run.size(full=60 if gpu else 30, smoke=4)
    prompts, input_tokens = load_shapes.texts(plain, run.model.name, run.size(full=128, smoke=8), random_tokens)
    run.setting(input_tokens=input_tokens, output_tokens=tokens, warmups=run.size(full=1, smoke=0))
    run.setting(repeats=run.repeats, users=users, rank=8)
    asked = {
        "no_lora": (plain, [run.model.name]),
        "base_alone": (adapted, [run.model.name]),
        "one_adapter": (adapted, names[:1]),
        "two_adapters": (adapted, names),
        "base_and_two_adapters": (adapted, [run.model.name, *names]),
    }
    targets = {
        case: load_shapes.MixedTarget(server.url, wanted[0], prompts, tokens, models=tuple(wanted))
        for case, (server, wanted) in asked.items()
    }
    run.step(f"{users} users, each mix in turn")
    table = pd.DataFrame(load_shapes.rates(run, kept_servers.clients(users=users), targets, users, "case", "x_none"))
    x = table.set_index("case").x_none
    run.reading(
        f"A server that can serve adapters makes {x['base_alone']:.2f} times the tokens of one that can't, for the "
        f"same base model; with base and two adapters in one batch it is {x['base_and_two_adapters']:.2f} times."
    )
    return table


@chapter.experiment(gpu=True)
def multimodal(run):
    """What does an image cost before the first token, and what do the caches save?"""
    kept_servers.close("plain", "adapted", "features", "pooling")
    run.model, context = vision.resolve(run), 8192
    sides, counts = run.size(full=[224, 448, 896, 1792], smoke=[224]), run.size(full=[2, 8], smoke=[2])
    mixes = [(1, side) for side in sides] + [(count, 448) for count in counts]
    questions, rows = vision.Questions(run, vision.engine(run, max(counts), context)), []
    run.setting(warmups=1, repeats=run.repeats, output_tokens=1, max_model_len=context)
    passes = "matrix products: four patches of each token through the encoder, one token through the language model"
    run.predict(
        "the encoder's share of encoder and prefill", vision.encoder_share(run.model) * 100, "%", because=passes
    )
    for images, side in mixes:
        run.step(f"{images} of {side} x {side} pixels: new images, the same again, and as much text")
        rows.append(vision.measure(questions, images, side, run.repeats))
    models.close_engine()
    table = pd.DataFrame(rows)
    largest = table.loc[table.image_tokens.idxmax()]
    # Sent again, an image needs no encoder: what is left is the prefill.
    share = largest.encoder_ms / (largest.encoder_ms + largest.cached_ttft_ms)
    run.measured("the encoder's share of encoder and prefill", share * 100)
    run.reading(
        f"The largest question, {largest.image_tokens:,.0f} tokens of images, takes {largest.ttft_ms:.0f} ms to its "
        f"first token, {largest.encoder_pct:.0f} % of it in the encoder, and {largest.x_text:.1f} times as long as "
        f"text; sent again it takes {largest.x_cached:.2f} of that."
    )
    return table


chapter.figure(
    name="ttft_by_users", experiment="load", x="users", y="ttft_p50_ms", log_x=True, log_y=True,
    title="Median time to first token by concurrent users",
)  # fmt: skip
chapter.figure(
    name="open_and_closed", experiment="open_and_closed", x="requests_per_s", y="ttft_p99_ms", by="loop", log_y=True,
    title="P99 time to first token by requests per second",
)  # fmt: skip

if __name__ == "__main__":
    with kept_servers.closing():
        chapter.main()
