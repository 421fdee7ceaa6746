"""Four programs, one model: vLLM, Transformers and the decoders of chapters 1 and 2 give the same tokens in float32."""

import os

import pytest

from common import hardware, models
from common.chapters import ROOT, load

COURSE_LM = models.resolve("course-lm")
same_tokens = load(ROOT / "2.vllm_arch" / "same_tokens.py")


@pytest.fixture(scope="module")
def questions():
    from transformers import AutoTokenizer

    return same_tokens.course_prompts(AutoTokenizer.from_pretrained(COURSE_LM.path), 50)


def test_the_prompts_are_of_every_form_and_all_differ(questions):
    assert len(questions) == len({tuple(question) for question in questions}) == 50
    assert min(map(len, questions)) > 10
    assert max(map(len, questions)) + same_tokens.MAX_TOKENS <= 512  # what the engines of the demo take on a CPU
    assert len({len(question) for question in questions}) > 20, "programs must agree on unequal lengths"


@pytest.mark.engine
def test_four_programs_give_the_same_tokens_in_float32(questions, monkeypatch):
    monkeypatch.setenv("TRITON_F32_DEFAULT", "ieee")  # on a GPU: full float32 products in vLLM's attention
    machine = hardware.machine()
    try:
        options = {"block_size": 32, "max_model_len": 512, "enforce_eager": True, "kv_cache_memory_bytes": 2**27}
        answers = {
            "vllm": same_tokens.of_vllm(models.engine(COURSE_LM, machine, dtype="float32", **options), questions)
        }
    finally:
        models.close_engine()
    network, tokenizer = models.transformers_model(COURSE_LM, machine)
    stop = same_tokens.stop_tokens(COURSE_LM.path)
    answers["transformers"] = same_tokens.of_transformers(network.float(), tokenizer, questions, stop)
    answers |= same_tokens.by_hand(COURSE_LM.path, "float32", questions, stop)
    assert set(answers) == {"vllm", "transformers", "paged_attention", "kv_cache"}
    assert sum(map(len, answers["vllm"])) > 500, "there must be something to compare"
    for program, given in answers.items():
        for number, (mine, theirs) in enumerate(zip(given, answers["vllm"], strict=True)):
            place = same_tokens.first_difference(mine, theirs)
            assert place is None, f"{program} leaves vLLM at token {place} of prompt {number}"
    assert os.environ["TRITON_F32_DEFAULT"] == "ieee"


def test_where_two_answers_part():
    assert same_tokens.first_difference([1, 2, 3], [1, 2, 3]) is None
    assert same_tokens.first_difference([1, 2, 3], [1, 5, 3]) == 1
    assert same_tokens.first_difference([1, 2], [1, 2, 3]) == 2
    assert same_tokens.first_difference([], [4]) == 0


def test_an_answer_ends_with_the_first_stop_token():
    assert same_tokens.up_to((7, 9), [1, 9, 7, 0]) == [1, 9]
    assert same_tokens.up_to((7, 9), [1, 2]) == [1, 2]
    assert set(same_tokens.stop_tokens(COURSE_LM.path)) == {10233, 10234}


def test_batches_keep_the_order_of_the_questions():
    asked = [[length] * length for length in (5, 1, 9, 3, 3, 7, 2, 8, 6, 4, 11, 10)]
    sizes = []

    def answer(batch):
        sizes.append([len(question) for question in batch])
        return [[question[0] + 1] for question in batch]

    assert same_tokens.in_batches(answer, asked) == [[question[0] + 1] for question in asked]
    assert sizes == [[1, 2, 3, 3, 4, 5, 6, 7, 8, 9], [10, 11]]


@pytest.mark.parametrize("dtype,value", [("bfloat16", 1.0), ("bfloat16", 23.4), ("bfloat16", -0.7), ("float16", 23.4)])
def test_the_step_between_two_numbers_is_that_of_torch(dtype, value):
    import torch

    number = torch.tensor(value, dtype=getattr(torch, dtype)).abs()
    following = torch.nextafter(number, torch.tensor(float("inf"), dtype=number.dtype))
    assert same_tokens.step_between(value, dtype) == (following.double() - number.double()).item()


def test_agreement_and_the_lead_where_answers_part():
    """A network of one token: its logits are those of a table, so that leads are known."""
    import torch

    table = torch.tensor([[4.0, 3.5, 0.0], [0.0, 9.0, 2.0], [1.0, 2.0, 2.25]])

    class Network:
        device = "cpu"

        def __call__(self, ids):
            return type("Output", (), {"logits": table[ids]})

    questions = [[0], [1], [2]]
    right = [[0, 0], [1, 1], [2, 2]]
    answers = {
        ("float32", "vllm"): right,
        ("bfloat16", "vllm"): [[0, 0], [1, 1], [1]],
        ("bfloat16", "other"): [[0, 1], [1, 1], [1]],
    }
    full, half, other = same_tokens.rows(Network(), questions, answers, "bfloat16")
    assert (full["same_pct"], full["parts_at"], full["largest_lead"]) == (100, "", None)
    assert (half["same_pct"], half["as_vllm_pct"], half["parts_at"]) == (pytest.approx(66.7, abs=0.1), 100, "0")
    assert half["largest_lead"] == 0.25 and half["lead_steps"] == 0.25 / 2**-6  # 2.25 lies between 2 and 4
    assert (other["as_vllm_pct"], other["parts_at"]) == (pytest.approx(66.7, abs=0.1), "0 1")
    assert other["largest_lead"] == 0.5
    assert full["usual_lead"] == 0.5  # leads at the six tokens: 0.5 0.5 7 7 0.25 0.25
