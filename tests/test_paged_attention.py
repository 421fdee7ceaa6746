"""Chapter 2's decoder with paged attention, and its block tables: shared, copied when written to, given back."""

import json
import random

import pytest
import torch

from common import models
from common.chapters import ROOT, load
from common.problems import Problem

COURSE_LM = models.resolve("course-lm")
DRAW = random.Random(0)
LENGTHS = (1, 5, 8, 15, 16, 17, 33, 70)
PROMPTS = [[DRAW.randrange(300, 10_000) for _ in range(length)] for length in LENGTHS]


@pytest.fixture(scope="module")
def paged():
    return load(ROOT / "2.vllm_arch" / "paged_attention.py")


@pytest.fixture
def decoder(paged):
    return paged.PagedDecoder(COURSE_LM.path, num_blocks=64)


@pytest.fixture(scope="module")
def reference():
    """Logits of the token after a list of tokens, by Transformers in float32."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(COURSE_LM.path, dtype=torch.float32).eval()

    @torch.inference_mode()
    def logits(tokens: list[int]) -> torch.Tensor:
        return network(torch.tensor([tokens])).logits[0, -1]

    return logits


def close(mine: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(mine, theirs, atol=1e-3)


@pytest.mark.parametrize("block_size", [1, 16, 128])
def test_unequal_prompts_together_have_the_logits_of_transformers(paged, reference, block_size):
    decoder = paged.PagedDecoder(COURSE_LM.path, num_blocks=300, block_size=block_size)
    sequences = [paged.Sequence(list(prompt)) for prompt in PROMPTS]
    for mine, prompt in zip(decoder.step(sequences), PROMPTS, strict=True):
        assert close(mine, reference(prompt))
    # Some go on with a token, some with several, and a new one joins: prefill and decode in one step.
    sequences.append(paged.Sequence(list(range(400, 420))))
    for number, sequence in enumerate(sequences[:-1]):
        sequence.tokens += range(500, 501 + number % 3)
    for mine, sequence in zip(decoder.step(sequences), sequences, strict=True):
        assert close(mine, reference(sequence.tokens))
        assert len(sequence.block_table) == -(-len(sequence.tokens) // block_size)


def test_a_fork_shares_blocks_and_copies_the_one_that_it_writes_to(paged, decoder, reference):
    parent = paged.Sequence(list(PROMPTS[6]))  # 33 tokens: two full blocks and a third with one
    decoder.step([parent])
    children = [decoder.fork(parent) for _ in range(2)]
    assert [child.block_table for child in children] == [parent.block_table] * 2
    assert [decoder.pool.ref_count[block] for block in parent.block_table] == [3, 3, 3]
    before, free = list(parent.block_table), len(decoder.pool.free)
    family = [parent, *children]
    for number, sequence in enumerate(family):
        sequence.tokens.append(1000 + number)
    for mine, sequence in zip(decoder.step(family), family, strict=True):
        assert close(mine, reference(sequence.tokens))
    assert {tuple(sequence.block_table[:2]) for sequence in family} == {tuple(before[:2])}
    assert len({sequence.block_table[2] for sequence in family}) == 3
    assert before[2] in [sequence.block_table[2] for sequence in family], "the last one to write needs no copy"
    assert free - len(decoder.pool.free) == 2
    assert [decoder.pool.ref_count[block] for block in before] == [3, 3, 1]
    decoder.free(parent)
    for child in children:
        child.tokens.append(2000)
    for mine, child in zip(decoder.step(children), children, strict=True):
        assert close(mine, reference(child.tokens)), "what the parent gave back must not be what a child reads"


def test_a_fork_at_the_end_of_a_block_copies_nothing(paged, decoder):
    parent = paged.Sequence(list(PROMPTS[4]))  # 16 tokens: one full block
    decoder.step([parent])
    child = decoder.fork(parent)
    child.tokens.append(7)
    decoder.step([child])
    assert child.block_table[0] == parent.block_table[0] and len(child.block_table) == 2
    assert decoder.pool.ref_count[parent.block_table[0]] == 2


def test_blocks_come_back_and_block_0_is_never_given_out(paged, decoder):
    answers = decoder.generate(PROMPTS, max_tokens=6)
    assert [len(answer) for answer in answers] == [6] * len(PROMPTS)
    assert sorted(decoder.pool.free) == list(range(1, 64)) and not any(decoder.pool.ref_count)
    alone = [decoder.generate([prompt], max_tokens=6)[0] for prompt in PROMPTS]
    assert alone == answers, "who else is in the batch must not change an answer"


def test_an_answer_ends_with_its_stop_token(decoder):
    (answer,) = decoder.generate([PROMPTS[7]], max_tokens=6)
    (stopped,) = decoder.generate([PROMPTS[7]], max_tokens=6, stop=(answer[2],))
    assert stopped == answer[: answer.index(answer[2]) + 1]


def test_too_few_blocks(paged):
    decoder = paged.PagedDecoder(COURSE_LM.path, num_blocks=3)
    with pytest.raises(paged.OutOfBlocks, match="all 2 blocks"):
        decoder.step([paged.Sequence(list(PROMPTS[6]))])  # needs three


@pytest.mark.parametrize("tokens", [0, 2049])
def test_a_prompt_over_the_context_and_an_empty_one(paged, decoder, tokens):
    with pytest.raises(Problem, match="1 to 2,048 tokens"):
        decoder.generate([[5] * tokens], max_tokens=1)


def test_nothing_to_do_and_another_architecture(paged, decoder, tmp_path):
    assert decoder.generate([], max_tokens=4) == []
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(Problem, match="Qwen3 models only"):
        paged.PagedDecoder(tmp_path)
