"""Chapter 2: KV memory in pieces and in blocks, live block tables, processes, weights; its exercises against vLLM."""

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from common import estimator, hardware, lengths, models
from common.chapters import ROOT, load
from common.problems import Problem, explain
from common.shapes import SHAPES

FOLDER = ROOT / "2.vllm_arch"
COURSE_LM = models.resolve("course-lm")
LLAMA_2 = SHAPES["llama-2-7b"]
kv_memory = load(FOLDER / "kv_memory.py")
solutions = load(FOLDER / "solutions.py")


def requests(*pairs: tuple[int, int]) -> list[lengths.Lengths]:
    return [lengths.Lengths(*pair) for pair in pairs]


# ------------------------------------------------------------------------------------------ KV memory


def test_pieces_lie_side_by_side_and_join_again():
    memory = kv_memory.Contiguous(100, lambda request: request.input_tokens)
    for number, size in enumerate((30, 30, 30)):
        assert memory.admit(number, lengths.Lengths(size, 1), size)
    assert memory.pieces == {0: (0, 30), 1: (30, 60), 2: (60, 90)}
    assert not memory.admit(3, lengths.Lengths(11, 1), 11), "10 slots are left"
    memory.release(0)
    memory.release(2)
    assert memory.free_pieces == [(0, 30), (60, 100)]
    assert not memory.admit(3, lengths.Lengths(50, 1), 50), "70 slots are free, and no 50 of them lie together"
    memory.release(1)
    assert memory.free_pieces == [(0, 100)] and memory.admit(3, lengths.Lengths(100, 1), 100)


def test_a_buddy_places_pieces_at_multiples_of_their_size():
    memory = kv_memory.Contiguous(64, lambda request: request.input_tokens, buddy=True)
    for number, (size, start) in enumerate(((4, 0), (16, 16), (8, 8), (32, 32), (4, 4))):
        assert memory.admit(number, lengths.Lengths(size, 1), size)
        assert memory.pieces[number] == (start, start + size)
    assert not memory.admit(9, lengths.Lengths(1, 1), 1)


def test_what_is_reserved_is_used_now_later_never_or_not_at_all():
    # 10 slots a piece, three fit 35. Requests keep 4 + 5 - 1 = 8 of them at the end.
    found = kv_memory.serve(kv_memory.Contiguous(35, lambda request: 10), requests(*[(4, 5)] * 6))
    assert (found.requests, found.steps, found.preemptions) == (3, 10, 0)
    # Only in the first five steps somebody waits; then 4, 5, 6, 7, 8 tokens are kept by each, 6 on average.
    assert (found.used, found.later, found.never, found.outside) == (3 * 6, 3 * 2, 3 * 2, 5)
    row = found.row(35, token_bytes=10**9)
    assert row["kv_reserved_gb"] == 30 and row["kv_used_gb"] == 18 and row["kv_wasted_gb"] == 17
    shares = ("kv_later_pct", "kv_never_pct", "kv_outside_pct")
    assert row["kv_wasted_pct"] == pytest.approx(sum(row[share] for share in shares)) == pytest.approx(1700 / 35)


def test_a_request_that_can_never_run():
    with pytest.raises(ValueError, match="does not fit the memory even alone"):
        kv_memory.serve(kv_memory.Contiguous(9, lambda request: 10), requests((4, 5)))
    with pytest.raises(ValueError, match="does not fit"):
        kv_memory.serve(kv_memory.Paged(8 * 16, 16, LLAMA_2, 2048), requests((200, 5)))


def test_vllms_blocks_waste_half_a_block_and_fit_twice_as_many():
    mix, slots = lengths.sample(150), 20_000
    maximum = kv_memory.serve(kv_memory.contiguous(slots)["maximum"], mix)
    for size in (16, 128):
        paged = kv_memory.serve(kv_memory.Paged(slots, size, LLAMA_2, 2048), mix)
        assert (paged.later + paged.never) / paged.requests == pytest.approx((size - 1) / 2, rel=0.15)
        assert paged.used + paged.later + paged.never + paged.outside == pytest.approx(slots)
        assert paged.requests > 1.7 * maximum.requests
    assert maximum.requests == 20_000 // 2048
    assert 0.45 < 1 - maximum.used / slots < 0.65


def test_blocks_run_out_and_the_youngest_is_preempted():
    memory = kv_memory.Paged(17 * 4, 4, LLAMA_2, 256)
    found = kv_memory.serve(memory, requests((8, 40), (8, 40)))
    assert found.preemptions == 1
    assert memory.blocks_in_use == 0 and not memory.requests


def test_steps_of_a_mix_are_counted_for_reserved_pieces_and_for_blocks():
    # Each keeps 8 tokens at the end. 32 slots are two pieces of 16 and four blocks of 8; an answer takes five steps.
    assert kv_memory.steps(requests(*[(4, 5)] * 6), 32, 8, LLAMA_2, max_model_len=16) == (15, 10)


def test_tokens_kept_of_a_running_request_are_weighted_by_its_steps():
    # The first is there for one step with 10.5 tokens, the second for nine with 14.5.
    assert kv_memory.mean_tokens_kept(requests((10, 1), (10, 9))) == pytest.approx((10.5 + 9 * 14.5) / 10)


# ------------------------------------------------------------------------------------------ claims


def test_claims_are_told_in_numbers_of_the_block_manager():
    claims = load(FOLDER / "claims.py")
    assert claims.blocks_held([300, 1, 16, 17], LLAMA_2) == [304, 16, 16, 32]
    reserved, held, used = claims.eight_requests(lengths.sample(32), LLAMA_2)
    assert reserved == pytest.approx(8 * 2048 * 524_288 / 1e9)
    assert used < held < used + 8 * 15 * 524_288 / 1e9 < reserved
    names = ("maximum", "blocks_of_16")
    filled = [{"allocation": n, "kv_wasted_pct": 50.0, "kv_later_pct": 1.0, "kv_never_pct": 1.0} for n in names]
    served = [
        {"mix": "short", "requests_at_once": 8, "x_tok_s": 1},
        {"mix": "short", "requests_at_once": 50, "x_tok_s": 6},
    ]
    rows = {row["row"]: row for row in claims.table(filled, served, 40)}
    assert rows["answer_of_300"]["measured"] == 4 and rows["answer_of_300_to_100"]["measured"] == 1
    assert rows["eight_saved_qwen2_7b"]["measured"] == pytest.approx(rows["eight_saved_llama_2_7b"]["measured"])
    assert rows["batch_short"]["measured"] == 50 and rows["paged_wasted"]["measured"] == 2.0
    assert 5 < rows["mean_request"]["measured"] < 10


# ------------------------------------------------------------------------------------------ exercises


def test_our_prediction_of_blocks_is_what_vllms_block_manager_takes():
    draw = random.Random(2)
    for _ in range(40):
        size = draw.choice((4, 16, 32))
        parts = [[draw.randrange(1000)] * draw.randint(1, 3 * size) for _ in range(3)]
        prompts = [[token for part in draw.choices(parts, k=3) for token in part] for _ in range(6)]
        outputs = [draw.randint(1, 40) for _ in prompts]
        memory = kv_memory.Paged(4000 * size, size, LLAMA_2, 4096, prefix_caching=True)
        for number, (prompt, answer) in enumerate(zip(prompts, outputs, strict=True), 1000):
            assert memory.admit_prompt(number, prompt, answer)
        for number, answer in enumerate(outputs, 1000):
            for _ in range(answer - 1):
                assert memory.grow(number)
        assert memory.blocks_in_use == solutions.blocks_together(prompts, outputs, size), (prompts, outputs, size)
        for number in range(1000, 1006):
            memory.release(number)
        assert memory.blocks_in_use == 0


def test_our_block_manager_and_our_fit_are_those_of_vllm():
    sizes = requests(*[(draw % 97 + 1, draw % 41 + 1) for draw in range(1000, 9000, 331)])
    memory = kv_memory.Paged(120 * 16, 16, LLAMA_2, 2048)
    fitting = 0
    for number, request in enumerate(sizes):
        if not memory.admit(number, request, kv_memory.tokens_kept(request)):
            break
        fitting += 1
    assert 0 < fitting < len(sizes)
    assert solutions.fitting(sizes, 120 * 16 * 7, 7, 2048, 16)[1] == fitting
    ours = solutions.BlockManager(119, 16)
    for number, request in enumerate(sizes[:fitting]):
        ours.allocate(str(number), kv_memory.tokens_kept(request))
        assert len(ours.block_tables[str(number)]) * 16 == memory.reserved(number)
    assert 119 - len(ours.free_blocks) == memory.blocks_in_use


# (what our solution says, what a wrong one says, words of the message)
MISTAKES = (
    ("math.ceil(num_tokens / self.block_size)", "num_tokens // self.block_size + 1", "a block is taken that no token"),
    ("math.ceil(num_tokens / self.block_size)", "num_tokens // self.block_size", "partly filled block have no place"),
    ("self.free_blocks.popleft()", "self.free_blocks.pop()", "taken from the right end"),
    ("if count > len(self.free_blocks):", "if not self.free_blocks:", "IndexError"),
    ("self.ref_count[table[-1]] > 1", "False", "writes into a block that others read"),
    ("% self.block_size == 0:", "% self.block_size == 0 and self.ref_count[table[-1]] == 1:", "a new block: no copy"),
    ("table[-1], copy = own, (shared, own)", "table[-1], copy = own, (own, shared)", "the wrong way round"),
    ("self.ref_count[shared] -= 1", "pass", "the reference to the shared block is not given up"),
    ("list(self.block_tables[parent])", "self.block_tables[parent]", "lead to one list"),
    ("self.ref_count[block] += 1", "pass", "ref_count of 5, 2, 8"),
    ("if self.ref_count[block] == 0:", "if True:", "blocks are given back that b still reads"),
    ("reversed(self.block_tables.pop(name))", "self.block_tables.pop(name)", "the first block of the table goes first"),
    ("self.block_tables[name][block] * self.block_size + offset", "position", "the table is not used"),
    ("if not 0 <= position", "if False and 0 <= position", "IndexError"),
    ("output_tokens - 1) / block_size", "output_tokens) / block_size", "the last token of the answer gets a slot"),
    ("(block_size, len(prompt), block_size):", "(block_size, len(prompt) + 1, block_size):", "all of an equal"),
    ("known |= {tuple(prompt[:end])", "known |= {tuple(prompt[:end])[-1:]", "nothing is shared"),
    ("1 - sum(map(kept, requests)) / (len(", "sum(map(kept, requests)) / (len(", "the share that is full"),
    ("slots // block_size - 1", "slots // block_size", "own block is given away"),
)  # fmt: skip


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    """What each mistake leads to, as futures: a run is mostly waiting, so they go on side by side."""

    def outcome(right: str, wrong: str) -> subprocess.CompletedProcess:
        text = (FOLDER / "solutions.py").read_text()
        assert right in text, right
        file = tmp_path_factory.mktemp("mistake") / "mine.py"
        file.write_text(text.replace(right, wrong, 1))
        command = [sys.executable, "-m", "common.check", "2", "--file", str(file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {mistake: pool.submit(outcome, *mistake[:2]) for mistake in MISTAKES}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake[2][:40])
def test_a_mistake_is_told_in_words(mistaken, mistake):
    ended = mistaken[mistake].result()
    assert ended.returncode == 1
    assert mistake[2] in " ".join(ended.stdout.split()), ended.stdout


# ------------------------------------------------------------------------------------------ bad input


def run_with(machine, **options) -> SimpleNamespace:
    given = {"requests": None, "kv_gb": 16.0, "block_size": None, "kv_blocks": None} | options
    size = lambda full, smoke: smoke  # noqa: E731
    return SimpleNamespace(options=SimpleNamespace(**given), machine=machine, model=COURSE_LM, size=size)


def test_bad_options_are_told_with_a_fix(machine_with):
    demo = load(FOLDER / "demo.py")
    cpu, gpu = machine_with(), machine_with("NVIDIA H100 80GB HBM3")
    for options, words, fix in (
        ({"requests": 0}, "A mix of 0 requests", "--requests 1"),
        ({"kv_gb": 1.0}, "hold 1,907 tokens; one request may have 2,048", "--kv-gb 1.3"),
    ):
        with pytest.raises(Problem, match=words) as problem:
            demo.fragmentation(run_with(cpu, **options))
        assert fix in problem.value.fix
    for machine, size, fix in ((cpu, 16, "--block-size 32"), (gpu, 20, "--block-size 16"), (cpu, 0, "--block-size 32")):
        with pytest.raises(Problem, match=f"not of {size}") as problem:
            demo.block_size(run_with(machine, block_size=size))
        assert fix in problem.value.fix
    assert (demo.block_size(run_with(cpu)), demo.block_size(run_with(gpu))) == (32, 16)


def test_engines_of_the_demo_take_a_small_part_of_a_large_gpu(machine_with):
    demo = load(FOLDER / "demo.py")
    run = run_with(machine_with("NVIDIA H100 80GB HBM3"))
    run.model = models.resolve("shape:qwen2.5-7b")
    options = demo.engine_options(run)
    assert options["num_gpu_blocks_override"] == 8 * 2048 // 16 + 1
    assert 0.25 < options["gpu_memory_utilization"] < 0.5
    assert options["max_num_seqs"] == demo.MOST_AT_ONCE and options["max_num_batched_tokens"] >= 2048


def test_the_checkpoint_to_load_is_the_largest_that_there_is_room_and_time_for(machine_with, monkeypatch, tmp_path):
    timed_loading = load(FOLDER / "timed_loading.py")
    h100 = machine_with("NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(timed_loading, "PROBE_BYTES", 2**24)
    monkeypatch.setattr(hardware, "available_bytes", lambda: 10**12)
    monkeypatch.setattr(timed_loading.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**12))
    for free, seconds, shape in ((70e9, 1e9, "7b"), (12e9, 1e9, "3b"), (70e9, 0, "0.5b"), (1e9, 1e9, "0.5b")):
        monkeypatch.setattr(hardware, "gpus", lambda free=free: (SimpleNamespace(free_bytes=free),))
        monkeypatch.setattr(timed_loading, "SECONDS", seconds)
        assert timed_loading.shape_to_load(tmp_path, h100) == f"qwen2.5-{shape}"
    assert timed_loading.shape_to_load(tmp_path, machine_with()) == "qwen2.5-0.5b"
    assert not list(tmp_path.iterdir()), "the file that tried the disk is gone"


# ------------------------------------------------------------------------------------------ with an engine


@pytest.fixture(scope="module")
def llm():
    options = {"block_size": 32, "num_gpu_blocks_override": 129, "max_model_len": 512, "enforce_eager": True}
    before = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        yield models.engine(COURSE_LM, hardware.machine(), async_scheduling=False, **options)
    finally:
        models.close_engine()
        if before is None:
            del os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"]


@pytest.mark.engine
def test_live_block_tables_share_full_blocks_and_nothing_else(llm):
    live_engine = load(FOLDER / "live_engine.py")
    stage, ids = live_engine.Stage(llm), live_engine.prompt_ids(llm.get_tokenizer())
    moments = {moment: rows for moment, rows, _ in stage.play(ids)}
    first = {row["request"]: row for row in moments["prompts computed"]}
    assert first["B question_1"]["blocks_in_use"] == live_engine.blocks_of(ids, 32)
    tables = {name: list(map(int, row["block_table"].split())) for name, row in first.items()}
    common = sum(a == b for a, b in zip(ids["question_1"], ids["question_2"], strict=False)) // 32
    assert common >= 2
    assert tables["B question_1"][:common] == tables["C question_2"][:common]
    samples = [tables[f"{letter} {number}_samples"] for number, letter in enumerate("DEF")]
    shared = len(ids["samples"]) // 32
    assert shared >= 1 and len({tuple(table[:shared]) for table in samples}) == 1
    assert len({table[shared] for table in samples}) == 3, "the end of the prompt is each sample's own"
    for rows in moments.values():
        held = [block for row in rows for block in row["block_table"].split()]
        for row in rows:
            assert [held.count(block) for block in row["block_table"].split()] == list(
                map(int, row["ref_counts"].split())
            )
            assert len(row["block_table"].split()) == -(-row["tokens_kept"] // 32)
        assert rows[0]["blocks_in_use"] == len(set(held)) and rows[0]["blocks_free"] == 128 - len(set(held))
    (ended,) = moments["all have ended"]
    assert ended["blocks_free"] == 128 and ended["blocks_cached_free"] > 0
    (again,) = moments["B asks again"]
    assert list(map(int, again["block_table"].split()))[:common] == tables["B question_1"][:common]
    assert stage.output_tokens == 64 + 24 + 64 + 3 * 64 + 24


@pytest.mark.engine
def test_the_engine_serves_no_more_at_once_than_it_is_told(llm):
    live_engine = load(FOLDER / "live_engine.py")
    mix = requests(*[(20, 12)] * 24)
    rows = live_engine.compare(llm, mix, (4, 256), repeats=1, say=lambda text: None)
    few, many = rows
    assert 3 < few["requests_at_once"] <= 4 and many["requests_at_once"] > 20
    assert 24 / 4 * 12 <= few["steps"] < 80 and 12 <= many["steps"] < 20
    assert few["x_tok_s"] == 1 and few["output_tok_s"] > 0
    assert few["tokens_kept"] <= 4 * 32
    assert not live_engine.core(llm).scheduler.requests


@pytest.mark.engine
def test_every_tensor_of_the_checkpoint_is_in_the_engine_unchanged(llm):
    timed_loading = load(FOLDER / "timed_loading.py")
    loading = timed_loading.load(Path(COURSE_LM.path), "bfloat16", compare=True)
    names = timed_loading.tensor_names(Path(COURSE_LM.path))
    assert len(names) == 90 and len(loading.shapes) == 66
    assert loading.parameter_bytes == estimator.weight_bytes(COURSE_LM.config)
    assert sorted(part for parts in loading.filled_with.values() for part in parts) == sorted(names)
    assert all(loading.equal.values()) and len(loading.equal) == 66
    rows = {row["parameter"]: row for row in timed_loading.fused_rows(loading)}
    assert rows["self_attn.qkv_proj"]["made_of"] == "q_proj, k_proj, v_proj"
    assert rows["self_attn.qkv_proj"]["shape"] == "1024×256" and rows["self_attn.qkv_proj"]["layers"] == 8
    assert rows["mlp.gate_up_proj"]["from_shapes"] == "512×256, 512×256"
    assert rows["lm_head"]["made_of"] == "tied: it is embed_tokens"
    assert all(seconds > 0 for seconds in loading.seconds.values())
    llm.reset_prefix_cache()
    assert llm.generate(["Once upon a time"], use_tqdm=False)[0].outputs[0].token_ids, "the engine works on as before"


@pytest.mark.engine
def test_a_written_checkpoint_is_one_that_vllm_and_transformers_load(llm, tmp_path):
    from transformers import AutoModelForCausalLM

    timed_loading = load(FOLDER / "timed_loading.py")
    timed_loading.SHARD_BYTES = 4 * 10**6  # so that there are several files
    total = timed_loading.write_checkpoint(models.COURSE_LM, tmp_path, "cpu")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert total == sum(parameter.nbytes for parameter in AutoModelForCausalLM.from_pretrained(tmp_path).parameters())
    for row in timed_loading.compare_loads("written", tmp_path, "bfloat16", 1, lambda text: None):
        assert row["load_s"] == pytest.approx(sum(row[part] for part in timed_loading.PARTS))
    assert all(timed_loading.load(tmp_path, "bfloat16", compare=True).equal.values())


@pytest.mark.engine
def test_a_cache_too_small_for_one_request_is_refused_with_a_fix(llm):
    with pytest.raises(ValueError, match="max seq len") as error:
        models.engine(COURSE_LM, hardware.machine(), block_size=32, num_gpu_blocks_override=5, max_model_len=512)
    meaning, fix = explain(error.value)
    assert "could never run" in meaning and "max_model_len" in fix


# ------------------------------------------------------------------------------------------ processes


def test_a_process_tree_is_told_by_role_memory_and_sockets(tmp_path):
    process_tree = load(FOLDER / "process_tree.py")
    (tmp_path / "child.py").write_text(
        "import socket, sys, setproctitle\n"
        "setproctitle.setproctitle('VLLM::EngineCore')\n"
        "listener, block = socket.create_server(('127.0.0.1', 0)), b'x' * (50 << 20)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    (tmp_path / "serve.py").write_text(
        f"import subprocess, sys\nsubprocess.run([sys.executable, {str(tmp_path / 'child.py')!r}])\n"
    )
    command = [sys.executable, tmp_path / "serve.py"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        server, engine = process_tree.examine(process.pid)
    finally:
        process.communicate()
    assert (server["process"], server["parent"], server["started_s"]) == ("api_server", "", 0)
    assert (engine["process"], engine["parent"]) == ("engine_core", "api_server")
    assert engine["started_s"] > 0 and engine["threads"] >= 1
    assert (server["tcp_ports"], engine["tcp_ports"]) == (0, 1)
    assert engine["memory_mb"] > server["memory_mb"] + 40 and engine["private_mb"] > 50
    assert engine["process_gpu_gb"] is None
