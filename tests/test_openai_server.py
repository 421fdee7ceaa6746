"""Chapter 6: its tasks and their judges, tools, servers that are kept, shapes with images, exercises, a real server."""

import json
import math
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from tokenizers import Tokenizer

from common import estimator, hardware, models, serving
from common import load as load_generator
from common.chapters import ROOT, load
from common.course_lm import corpus
from common.load import Load, Outcome

FOLDER = ROOT / "6.openai_server"
sys.path.insert(0, str(FOLDER))
try:
    import adapters_under_load
    import api_tour
    import bench_client
    import client_errors
    import constraints
    import load_shapes
    import sse_clients
    import token_masks
    import tool_loop
    import vision
finally:
    sys.path.remove(str(FOLDER))


# ---------------------------------------------------------------------------------------------------- constraints


def accepts(constraint: dict, text: str) -> bool:
    """Whether xgrammar, compiled from what a request would send, lets this text through."""
    import xgrammar
    from vllm.v1.structured_output.utils import choice_as_grammar
    from xgrammar.testing import _is_grammar_accept_string as accepted

    if "response_format" in constraint:
        schema = constraint["response_format"]["json_schema"]["schema"]
        return accepted(xgrammar.Grammar.from_json_schema(json.dumps(schema)), text)
    wanted = constraint["structured_outputs"]
    if "choice" in wanted:
        return accepted(choice_as_grammar(wanted["choice"]), text)
    if "regex" in wanted:
        return accepted(xgrammar.Grammar.from_regex(wanted["regex"]), text)
    return accepted(wanted["grammar"], text)


def gold(kind: str, index: int) -> str:
    """The right answer to a task, as course-lm was taught to write it."""
    skills = {"json_schema": "json", "json_spaced": "json", "regex": "arithmetic", "regex_told": "arithmetic"}
    if kind == "json_compact":
        example = corpus.held_out("json", index + 1)[index]
        return json.dumps(json.loads(example.keys[0]), separators=constraints.COMPACT, ensure_ascii=False)
    if kind == "choice":
        question = constraints.tasks(kind, index + 1)[index].messages[0]["content"]
        return next(day for day in constraints.WEEKDAYS if day in question)
    return corpus.held_out(skills.get(kind, "sql"), index + 1)[index].keys[0]


@pytest.mark.parametrize("kind", constraints.MAKERS)
def test_the_right_answer_is_valid_right_and_allowed(kind):
    for index, task in enumerate(constraints.tasks(kind, 12)):
        answer = gold(kind, index)
        assert task.valid(answer) and task.right(answer), answer
        assert accepts(task.constraint, answer), f"the constraint forbids {answer}: {task.constraint}"


@pytest.mark.parametrize(
    "kind,answer",
    [
        ("json_schema", "{}"),
        ("json_schema", "The city is Oslo."),
        ("choice", "It is on Monday."),
        ("regex", "1 + 2 = 3"),
        ("regex", "007"),
        ("grammar", "SELECT mood FROM nowhere WHERE mood = 'good';"),
        ("grammar", "SELECT"),
    ],
)
def test_what_is_not_valid_is_not_allowed_either(kind, answer):
    for task in constraints.tasks(kind, 6):
        assert not task.valid(answer)
        assert not accepts(task.constraint, answer)


def test_blanks_are_where_the_separators_have_them():
    fields = {"name": "string", "age": "integer"}
    record = {"name": "Ada", "age": 36}
    for separators, other in (
        (constraints.COMPACT, constraints.SPACED),
        (constraints.SPACED, constraints.COMPACT),
    ):
        grammar = {"structured_outputs": {"grammar": constraints.object_grammar(fields, *separators)}}
        assert accepts(grammar, json.dumps(record, separators=separators))
        assert not accepts(grammar, json.dumps(record, separators=other))
        assert not accepts(grammar, json.dumps({"name": "Ada"}, separators=separators))


def test_a_second_statement_is_no_valid_query():
    task = constraints.tasks("grammar", 1)[0]
    assert not task.valid(gold("grammar", 0) + " DROP TABLE orders;")
    assert not any(map(task.valid, ("", "-- nothing", "VACUUM", "DROP TABLE IF EXISTS x;"))), "no query, no answer"


# ---------------------------------------------------------------------------------------------------- tools


@pytest.mark.parametrize("text,value", [("123 + 456", "579"), ("2*(3-1)", "4"), ("7/2", "3.5")])
def test_calculator(text, value):
    assert tool_loop.calculator(text) == value


@pytest.mark.parametrize("text", ["__import__('os').getcwd()", "2**999999", "1 +", "[1]", "'a' + 'b'", "True + 1"])
def test_calculator_refuses_what_is_no_sum(text):
    with pytest.raises(ValueError):
        tool_loop.calculator(text)


@pytest.mark.parametrize("text", ["1/0", "9" * 400 + "/3"])
def test_a_sum_without_a_value_is_an_error_that_the_tool_loop_hears(text):
    with pytest.raises(ArithmeticError):
        tool_loop.calculator(text)


def test_strict_leaves_the_definitions_alone():
    given = [tool_loop.TOOL_CALCULATOR]
    assert tool_loop.strict(given)[0]["function"]["strict"] is True
    assert "strict" not in given[0]["function"]


# ---------------------------------------------------------------------------------------------------- loads, metrics


def test_a_mixed_target_asks_each_model_in_turn():
    target = load_shapes.MixedTarget("http://server", "a", ["x"], 4, models=("a", "b", "c"))
    assert [target.body(index)["model"] for index in range(4)] == ["a", "b", "c", "a"]
    assert target.body(0)["max_tokens"] == 4 and target.body(0)["stream"] is True


def test_the_length_of_a_text_of_random_tokens_is_what_the_server_reads(monkeypatch):
    tokenizer = Tokenizer.from_file(str(models.COURSE_LM / "tokenizer.json"))

    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        if request.url.path == "/detokenize":
            return httpx.Response(200, json={"prompt": tokenizer.decode(asked["tokens"])})
        return httpx.Response(200, json={"count": len(tokenizer.encode(asked["prompt"]).ids)})

    client = partial(httpx.Client, transport=httpx.MockTransport(answer))
    monkeypatch.setattr(load_shapes.httpx, "Client", client)
    texts, tokens = load_shapes.texts(SimpleNamespace(url="http://server"), "m", 30, 100)
    lengths = [len(tokenizer.encode(text).ids) for text in texts]
    assert len(set(texts)) == 30 and tokens == round(sum(lengths) / 30) > 110


def test_tools_are_compared_by_the_medians_of_their_rounds():
    assert load_shapes.difference_pct((100.0, 60.0, 40.0), (90.0, 50.0, 45.0))[0] == pytest.approx(20)
    difference, margin = load_shapes.difference_pct((110.0, 55.0, 77.0), (100.0, 50.0, 70.0))
    assert difference == pytest.approx(10)
    assert margin == pytest.approx(0), "in each round alike: how fast the server was in it does not matter"


def test_the_margin_of_error_is_two_standard_errors():
    """That of a median of normal figures is the root of π / 2, or 1.25, times that of their mean."""
    draw = random.Random(1)
    ours, theirs = ([draw.gauss(1.0, 0.05) for _ in range(400)] for _ in range(2))
    difference, margin = load_shapes.difference_pct(ours, theirs)
    expected = 1.96 * math.sqrt(math.pi / 2) * 100 * math.sqrt((0.05**2 + 0.05**2) / 400)
    assert margin == pytest.approx(expected, rel=0.25) and abs(difference) < 2 * margin


class SteadyClients:
    """Clients of a server that answers ten requests a second for each user, every one after 0.1 s."""

    def __init__(self):
        self.asked = []

    def closed_loop(self, target, users, seconds):
        dues = [number / 10 for number in range(round(10 * seconds)) for _ in range(users)]
        # Those that begin together at the start fail, as they may while a server warms up.
        error = {0.0: "503"}
        answers = (Outcome(due, due + 0.1, 4, (due + 0.05,), error.get(due, ""), due) for due in dues)
        return Load(tuple(answers), seconds)

    def open_loop(self, target, requests, rate, seed):
        self.asked.append((requests, rate, seed))
        dues = [number / rate for number in range(requests)]
        return Load(tuple(Outcome(due, due + 0.1, 4, (due + 0.05,), "", due) for due in dues), requests / rate)


def test_open_loops_have_the_rate_that_the_closed_one_reached():
    clients, run = SteadyClients(), SimpleNamespace(step=lambda _: None, count=lambda tokens: tokens, repeats=2)
    rows = load_shapes.loops(run, clients, None, [1, 4], window_s=8.0)
    requests, rates, seeds = zip(*clients.asked, strict=True)
    assert rates == pytest.approx((10, 10, 40, 40, 52, 52), rel=0.05) and seeds == (0, 1) * 3
    assert requests == pytest.approx((80, 80, 320, 320, 416, 416), rel=0.05)
    assert [row["loop"] for row in rows] == ["closed", "open", "closed", "open", "open, 1.3 times"]
    assert [row["failed"] for row in rows] == [0] * 5, "the first quarter is not what a row tells of"
    assert rows[2]["in_flight"] == pytest.approx(4, rel=0.05) and rows[2]["requests"] < 2 * 320


def test_a_stream_is_counted_in_bytes_whoever_reads_it():
    events = ['data: {"choices":[{"text":"早上好"}]}', "", 'data: {"choices":[],"usage":{}}', "", "data: [DONE]", ""]
    text, size = sse_clients.of_lines(iter(events), 0.0)
    raw, raw_size = sse_clients.of_lines((line.encode() for line in events), 0.0)
    assert size == raw_size == len("\n".join(events).encode()) + 1
    assert len(text.token_s) == len(raw.token_s) == 1


def test_the_benchmark_gets_the_prompts_and_lengths_of_the_target_in_their_order(tmp_path):
    from vllm.benchmarks import serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    target = load_generator.Target("http://server", "m", ["one", "two"], (5, 7, 9))
    bench = SimpleNamespace(run=lambda words: words)
    words = bench_client.closed_list(bench, target, "tokenizer", tmp_path, users=2, requests=4)
    lines = Path(words[words.index("--dataset-path") + 1]).read_text().splitlines()
    asked = [(line["prompt"], line["output_tokens"]) for line in map(json.loads, lines)]
    assert asked == [("one", 5), ("two", 7), ("one", 9), ("two", 5)]
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    options = parser.parse_args(words)
    assert options.disable_shuffle and options.custom_output_len == -1, "or lengths are its own, and in another order"
    assert (options.num_prompts, options.max_concurrency, options.ignore_eos) == (4, 2, True)


def test_what_is_measured_of_a_server_that_answers_at_once_is_the_load_generator(tmp_path):
    port = serving.free_port()
    url, command = f"http://127.0.0.1:{port}", [sys.executable, FOLDER / "instant_server.py", str(port)]
    with serving.child_server(command, url, tmp_path / "log"), load_generator.Clients(1) as clients:
        target = load_generator.Target(url, "none", ["x"], 8)
        found = clients.closed_loop(target, users=2, seconds=0.0, at_least=10)
    assert (found.failed, found.output_tokens) == (0, 160)
    assert found.latencies_ms()["ttft_p50_ms"] < 8, "an answer takes 8 ms; the first token counts when it comes"


def test_the_steady_part_of_a_run():
    """Two users, a second for each answer, a window of 8 s: begun and answered in the last six of them."""
    ends = [start + 1.0 for start in range(9)]
    outcomes = tuple(
        Outcome(start, end, 10, (start + 0.5,), sent_s=start) for _ in range(2) for start, end in enumerate(ends)
    )
    kept, reached = load_shapes.steady(Load(outcomes, 9.0), window_s=8.0)
    assert sorted({outcome.start_s for outcome in kept.outcomes}) == [2, 3, 4, 5, 6, 7, 8] and kept.seconds == 6
    assert reached == 2 * 7 / 6  # those that end at 2, 3 … 8 s
    row = load_shapes.loop_figures(SimpleNamespace(count=lambda tokens: tokens), Load(outcomes, 9.0), 8.0)
    assert row["in_flight"] == 2 and row["mean_s"] == 1.0 and row["ttft_p50_ms"] == 500
    assert row["requests"] == 14 and row["failed"] == 0


METRICS = """# HELP vllm:num_requests_running …
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 7.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 1.0
vllm:lora_requests_info{max_lora="3",running_lora_adapters="sql,chinese",waiting_lora_adapters=""} 1.7e+09
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 1.5
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 10.0
vllm:inter_token_latency_seconds_sum{engine="0",model_name="m"} 2.0
vllm:inter_token_latency_seconds_count{engine="0",model_name="m"} 400.0
"""


def test_metrics_are_read(monkeypatch):
    for module in (client_errors, adapters_under_load, sse_clients):
        monkeypatch.setattr(module.httpx, "get", lambda *_, **__: SimpleNamespace(text=METRICS))
    server = SimpleNamespace(url="http://server", log="log")
    assert client_errors.state(server) == {"running": 3, "waiting": 2, "kv_usage": 0.25, "aborted": 1}
    assert adapters_under_load.batched_together(server)
    found = sse_clients.server_side(server)
    assert found == {"time_to_first_token_seconds": (1.5, 10), "inter_token_latency_seconds": (2.0, 400)}
    with pytest.raises(client_errors.Problem, match="still running"):
        client_errors.settle(server, limit_s=0.1)


def test_only_events_with_text_are_counted():
    lines = [
        'data: {"choices":[{"text":"a"}]}', "", ": keep-alive", 'data: {"choices":[{"text":"b"}]}', "",
        'data: {"choices":[],"usage":{"completion_tokens":2}}', "", "data: [DONE]",
    ]  # fmt: skip
    stream, size = sse_clients.of_lines(lines, begin=0.0)
    assert len(stream.token_s) == 2 and size == sum(len(line) + 1 for line in lines)
    assert len(sse_clients.of_lines([line.encode() for line in lines], begin=0.0)[0].token_s) == 2


def test_the_length_of_the_prompt_is_read_from_the_usage_even_where_pieces_break_it():
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":17,"total_tokens":20}}\n\ndata: [DONE]\n\n'
    text = b'data: {"choices":[{"text":"a"}]}\n\n'
    pieces = [(1.0, b"date: today"), (2.0, text), (3.0, usage[:40]), (4.0, usage[40:])]
    assert sse_clients.prompt_tokens(pieces) == 17


# ---------------------------------------------------------------------------------------------------- shapes


def test_random_adapters_fit_the_shape(tmp_path):
    from safetensors.torch import load_file

    config = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2}  # fmt: skip
    named = adapters_under_load.random_adapters(config, tmp_path, 2)
    assert [name.split("=")[0] for name in named] == ["random-0", "random-1"]
    tensors = load_file(tmp_path / "random-0" / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2
    prefix = "base_model.model.model.layers.1."
    assert tensors[prefix + "self_attn.k_proj.lora_B.weight"].shape == (32, 8)
    assert tensors[prefix + "mlp.down_proj.lora_A.weight"].shape == (8, 128)
    settings = json.loads((tmp_path / "random-1" / "adapter_config.json").read_text())
    assert settings["r"] == 8 and len(settings["target_modules"]) == 7


def test_the_files_of_the_vision_shape(tmp_path):
    from tokenizers import Tokenizer

    folder = tmp_path / "vl"
    vision.write_files(folder, vision.config("qwen2.5-0.5b"), "qwen2.5-0.5b")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, number in vision.SPECIAL.items():
        assert tokenizer.token_to_id(text) == number
        assert tokenizer.encode(text, add_special_tokens=False).ids == [number]
    config = json.loads((folder / "config.json").read_text())
    assert config["vision_config"]["out_hidden_size"] == config["hidden_size"] == 896
    assert config["image_token_id"] == vision.SPECIAL["<|image_pad|>"]
    assert {"preprocessor_config.json", "video_preprocessor_config.json", "chat_template.jinja"} <= {
        file.name for file in folder.iterdir()
    }


def test_the_kv_cache_of_the_vision_shapes_holds_what_the_engine_may_run():
    machine = SimpleNamespace(gpus=(SimpleNamespace(total_bytes=80 * hardware.GIB),))
    options = vision.engine_options(SimpleNamespace(machine=machine), most_images=8, context=8192)
    for _, shape in vision.TIERS:
        needed = options["max_num_seqs"] * 8192 * estimator.kv_bytes_per_token(vision.config(shape))
        assert needed <= options["kv_cache_memory_bytes"]
    assert 16e9 <= options["gpu_memory_utilization"] * 80 * hardware.GIB < 17e9


def test_the_vision_template_marks_each_image():
    import jinja2

    parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
    text = jinja2.Template(vision.TEMPLATE).render(
        messages=[{"role": "user", "content": parts}, {"role": "assistant", "content": "A fox."}],
        add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n"
        "<|im_start|>assistant\nA fox.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_images_have_the_size_that_was_asked_for():
    import base64
    import io

    from PIL import Image

    first, other = vision.image_url(224, 1), vision.image_url(224, 2)
    picture = Image.open(io.BytesIO(base64.b64decode(first.split(",")[1])))
    assert picture.size == (224, 224) and first != other and first == vision.image_url(224, 1)


# ---------------------------------------------------------------------------------------------------- Node


def test_the_node_package_is_pinned():
    package = json.loads((FOLDER / "node" / "package.json").read_text())
    lock = json.loads((FOLDER / "node" / "package-lock.json").read_text())
    ((name, version),) = package["dependencies"].items()
    assert name == "openai" and re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert lock["packages"]["node_modules/openai"]["version"] == version
    assert lock["packages"]["node_modules/openai"]["integrity"].startswith("sha512-")
    assert "resolved" not in (FOLDER / "node" / "package-lock.json").read_text(), "a registry's address is in the lock"


@pytest.mark.parametrize(
    "says,reason",
    [
        (None, "there is no node on the PATH; install Node 20"),
        ("v18.20.4", "needs Node 20, and this is v18.20.4; install"),
        ("", "this is no Node"),
        ("v20.0.0", "^there is no npm"),
    ],
)
def test_why_node_can_not_run_is_told(says, reason, tmp_path, monkeypatch):
    if says is not None:
        node = tmp_path / "node"
        node.write_text(f"#!/bin/sh\necho {says}\n")
        node.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(api_tour, "NODE", tmp_path)
    assert re.search(reason, api_tour.node_missing())


# ---------------------------------------------------------------------------------------------------- exercises

# (what our solution says, what a wrong one says, words of the message)
MISTAKES = (
    ("if chunk.choices else", "if True else", "IndexError in text_of"),
    ("self.count(self.messages) + self.max_tokens >", "self.count(self.messages) >", "22 are one too many"),
    ("first : first + 2", "first : first + 1", "a turn goes whole"),
    (
        "pieces.append(piece)\n                        yield piece",
        "pieces.append(piece)\n                yield from pieces",
        "it waits instead of streaming",
    ),
    ("            self.messages.pop()\n", "            pass\n", "the question stays"),
    ("self._answered(pieces)\n            raise", "raise", "nothing of the answer is kept"),
    (r"(?![\d]|[.,]\d)", "", "124 is another number"),
    ("min(2 * tokens, self.most_tokens)", "2 * tokens", "most_tokens is 50"),
    ('choice.finish_reason != "length"', "True", "ExtractionError in extract"),
)


def test_mistakes_in_the_exercises_are_told_in_words(tmp_path):
    solutions = (FOLDER / "solutions.py").read_text()

    def outcome(mistake: tuple[str, str, str]) -> tuple[int, str]:
        right, wrong, _ = mistake
        assert right in solutions, right
        file = tmp_path / f"mine-{MISTAKES.index(mistake)}.py"
        file.write_text(solutions.replace(right, wrong))
        command = [sys.executable, "-m", "common.check", "6", "--file", str(file)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
        return ended.returncode, " ".join((ended.stdout + ended.stderr).split())

    with ThreadPoolExecutor(2) as pool:
        for mistake, (status, printed) in zip(MISTAKES, pool.map(outcome, MISTAKES), strict=True):
            assert status == 1, f"not caught: {mistake[1]!r}"
            assert re.search(mistake[2], printed), f"{mistake}: {printed}"


# ---------------------------------------------------------------------------------------------------- a real server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("chapter-6") / "server.log"
    with serving.serve(models.resolve("course-lm"), hardware.machine(), log, enforce_eager=True) as started:
        yield started


@pytest.mark.engine
def test_node(server):
    """The client for Node against a real server; without Node, or without its package, the reason is the skip's."""
    reason = api_tour.node_missing()
    if reason:
        pytest.skip(reason)
    command = [shutil.which("node"), "client.mjs", server.url, "course-lm"]
    ended = subprocess.run(command, cwd=FOLDER / "node", capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    found = {row["endpoint"]: row for row in map(json.loads, ended.stdout.splitlines())}
    assert found["GET /v1/models"]["answer"] == "course-lm"
    whole, streamed = found["POST /v1/chat/completions"], found["POST /v1/chat/completions, streamed"]
    assert whole["answer"] == streamed["answer"] != "" and whole["tokens"] == streamed["tokens"] > 1
    assert found["POST /v1/completions"]["tokens"] == 20
    assert found["POST /v1/responses"]["answer"]
    assert found["POST /v1/chat/completions, refused"]["answer"].startswith("BadRequestError: 400")


@pytest.mark.engine
def test_our_solutions_against_a_real_server(server):
    from openai import OpenAI

    solutions = load(FOLDER / "solutions.py")
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)
    extractor = solutions.Extractor(client, "course-lm", {"name": str, "age": int, "level": ["low", "high"]}, 8)
    for text in ("Marta is 44, has a home in Oslo and a job as a baker.", "There is nobody here."):
        record = extractor.extract(text)
        assert list(record) == ["name", "age", "level"] and isinstance(record["age"], int)
        assert record["level"] in ("low", "high")
    assert solutions.unfounded({"name": "Zyx"}, "There is nobody here.") == ["name"]

    chat = solutions.Chat(client, "course-lm", solutions.counter(server.url, "course-lm"), context=2048, max_tokens=60)
    answer = "".join(chat.ask("What is TTFT?"))
    assert answer and chat.messages[-1] == {"role": "assistant", "content": answer}
    pieces = chat.ask("Write a long story about a fox.")
    next(pieces)
    pieces.close()
    assert client_errors.settle(server, limit_s=20)["running"] == 0
    question = {"role": "user", "content": "What is 20 + 30?"}
    chat.context = chat.count([question]) + chat.max_tokens  # now the turns before have to go
    assert "".join(chat.ask(question["content"])) and chat.messages[:-1] == [question]


@pytest.mark.engine
def test_hang_ups_and_a_crowd_leave_nothing_behind(server):
    hung_up = client_errors.hang_ups(server, "course-lm", 3)
    assert hung_up["good_after"] and hung_up["kv_usage_pct"] == 0
    crowd = client_errors.many_at_once(server, "course-lm", 40)
    assert crowd["status"] == "40 × 200" and crowd["good_after"] and crowd["kv_usage_pct"] == 0


# ----------------------------------------------------------------------------------------------------- masks


def test_a_mask_of_counted_repetitions_costs_most():
    found = token_masks.mean_ms(models.resolve("course-lm"), constraints.ENDLESS, tokens=24, walks=2)
    assert list(found) == [kind for kind in constraints.ENDLESS if kind != "none"]
    assert all(0 < ms < 50 for ms in found.values())
    assert found["regex"] > 5 * found["grammar_words"]  # some hundred times in a quiet moment


def test_masks_hide_behind_a_gpu_and_add_up_on_a_cpu():
    assert token_masks.kept_share(free_tok_s=5000, mask_ms=0.1, gpu=True) == 1.0
    assert token_masks.kept_share(free_tok_s=5000, mask_ms=0.8, gpu=True) == pytest.approx(0.25)
    assert token_masks.kept_share(free_tok_s=500, mask_ms=2.0, gpu=False) == pytest.approx(0.5)
