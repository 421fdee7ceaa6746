"""The greedy answers of several programs to the same prompts, and how far ahead the best token was where they part."""

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

from paged_attention import PagedDecoder

from common import chapters, models
from common.course_lm import corpus, prompts
from common.hardware import Machine

MAX_TOKENS = 32
BATCH = 10
# What a user may ask of course-lm; prose has no question, so the story form stands for it.
SKILLS = ("terms_en", "terms_zh", "arithmetic", "passages", "citation", "summary", "json", "tool_call", "chat", "code")
STORIES = ("a fox", "a lighthouse", "an old clock", "a small robot", "a storm at sea")

SIGNIFICANT_BITS = {"bfloat16": 8, "float16": 11}

Answers = list[list[int]]


def course_prompts(tokenizer, count: int) -> Answers:
    """`count` prompts as token ids, the skills in turn: the course's forms, filled with held-out examples."""
    rounds = math.ceil(count / (len(SKILLS) + 1))
    by_skill = [[corpus.prompt_of(example) for example in corpus.held_out(skill, rounds)] for skill in SKILLS]
    stories = [prompts.STORY_FORM.format(topic=STORIES[number % len(STORIES)]) for number in range(rounds)]
    chats = [prompts.render([{"role": "user", "content": story}]) for story in stories]
    by_skill.append(["".join(text for text, _ in chat) + "<|im_start|>assistant\n" for chat in chats])
    texts = [text for turn in zip(*by_skill, strict=True) for text in turn][:count]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def stop_tokens(folder: str | Path) -> tuple[int, ...]:
    """The tokens that end an answer, from generation_config.json, where vLLM and Transformers find them too."""
    stop = json.loads((Path(folder) / "generation_config.json").read_text())["eos_token_id"]
    return tuple(stop) if isinstance(stop, list) else (stop,)


def in_batches(answer: Callable[[Answers], Answers], questions: Answers) -> Answers:
    """Answers in batches of prompts of like length, so that little of a batch is padding; in the order of asking."""
    order = sorted(range(len(questions)), key=lambda number: len(questions[number]))
    answers: Answers = [[]] * len(questions)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        for number, tokens in zip(batch, answer([questions[number] for number in batch]), strict=True):
            answers[number] = tokens
    return answers


def of_vllm(llm, questions: Answers) -> Answers:
    """Greedy answers of a running engine."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in questions], sampling, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def of_transformers(network, tokenizer, questions: Answers, stop: tuple[int, ...]) -> Answers:
    """Greedy answers of `generate`, whose shorter answers are padded behind the token that ended them."""
    import torch

    @torch.inference_mode()
    def answer(batch: Answers) -> Answers:
        padded = tokenizer.pad({"input_ids": batch}, return_tensors="pt", padding_side="left").to(network.device)
        tokens = network.generate(**padded, max_new_tokens=MAX_TOKENS, do_sample=False)
        return [up_to(stop, row) for row in tokens[:, padded["input_ids"].shape[1] :].tolist()]

    return in_batches(answer, questions)


def without_vllm(model: models.Model, machine: Machine, questions: Answers, half: str):
    """(a Transformers model in float32, the answers of all programs but vLLM by (dtype, program))."""
    network, tokenizer = models.transformers_model(model, machine)
    stop, answers = stop_tokens(model.path), {}
    for dtype in (half, "float32"):
        network = network.float() if dtype == "float32" else network
        answers[dtype, "transformers"] = of_transformers(network, tokenizer, questions, stop)
        for program, given in by_hand(model.path, dtype, questions, stop).items():
            answers[dtype, program] = given
    return network, answers


def by_hand(folder: str, dtype: str, questions: Answers, stop: tuple[int, ...]) -> dict[str, Answers]:
    """Greedy answers of paged_attention.py, all of a batch together, and of chapter 1's kv_cache.py, one at a time."""
    import torch

    paged = PagedDecoder(folder, num_blocks=512, dtype=getattr(torch, dtype))
    kv_cache = chapters.load(chapters.ROOT / "1.inference_basics" / "kv_cache.py")
    decoder = kv_cache.Decoder(paged.config, paged.weights)

    def alone(question: list[int]) -> list[int]:
        cache = kv_cache.KVCache(paged.config, len(question) + MAX_TOKENS, like=decoder.head)
        answer, new = [], question
        while len(answer) < MAX_TOKENS and not (answer and answer[-1] in stop):
            new = [decoder.forward(torch.tensor(new), cache).argmax().item()]
            answer += new
        return answer

    return {
        "paged_attention": in_batches(lambda batch: paged.generate(batch, MAX_TOKENS, stop), questions),
        "kv_cache": [alone(question) for question in questions],
    }


def up_to(stop: tuple[int, ...], tokens: list[int]) -> list[int]:
    """The tokens to the first that ends an answer, that one included."""
    end = next((place + 1 for place, token in enumerate(tokens) if token in stop), len(tokens))
    return tokens[:end]


def first_difference(one: list[int], other: list[int]) -> int | None:
    """The place of the first token in which two answers differ; None if they are the same."""
    if one == other:
        return None
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def leads(network, question: list[int], answer: list[int]) -> list[tuple[float, float]]:
    """For each token of an answer the best logit and its lead over the second, as a `network` in float32 sees them."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([question + answer], device=network.device)
        best = network(ids).logits[0, len(question) - 1 : -1].float().topk(2).values
    return [(first, first - second) for first, second in best.tolist()]


def step_between(value: float, dtype: str) -> float:
    """The distance from `value` to the next number that `dtype` can hold."""
    return 2.0 ** (math.frexp(abs(value))[1] - SIGNIFICANT_BITS[dtype])


def rows(network, questions: Answers, answers: dict[tuple[str, str], Answers], half: str) -> list[dict]:
    """How far the answers of each (dtype, program) agree with those of vLLM in float32, a row for each.

    Where they part, the lead of the best logit is that of `network`, in float32, in logits and in steps of `half`.
    """
    reference, found = answers["float32", "vllm"], []
    all_leads = [leads(network, *pair) for pair in zip(questions, reference, strict=True)]
    usual = statistics.median(lead for of_answer in all_leads for _, lead in of_answer)
    for dtype, program in sorted(answers, key=lambda key: key[0] != "float32"):
        mine, places, logits = answers[dtype, program], [], []
        for number, right in enumerate(reference):
            place = first_difference(mine[number], right)
            if place is not None:
                places.append(place)
                logits.append(all_leads[number][min(place, len(right) - 1)])
        found.append(
            {
                "program": program,
                "dtype": dtype,
                "same_pct": 100 * (1 - len(places) / len(reference)),
                "as_vllm_pct": agreement(mine, answers[dtype, "vllm"]),
                "parts_at": " ".join(map(str, sorted(places))),
                "largest_lead": max((lead for _, lead in logits), default=None),
                "lead_steps": max((lead / step_between(best, half) for best, lead in logits), default=None),
                "usual_lead": usual,
            }
        )
    return found


def agreement(answers: Answers, others: Answers) -> float:
    """Percent of the answers that are the same to the last token."""
    return 100 * sum(one == other for one, other in zip(answers, others, strict=True)) / len(answers)
