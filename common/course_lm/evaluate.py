"""Score course-lm on its held-out skills through vLLM, and write scores.json and the model card.

    python -m common.course_lm.evaluate         all skills, adapters, acceptance: three minutes on two cores
    python -m common.course_lm.evaluate --only json --failures 5

Greedy answers to examples whose wording and values training never used (corpus.py). vLLM runs in this
process.
"""

import argparse
import gc
import json
import math
import os
import platform
import time
from pathlib import Path

HERE = Path(__file__).parent
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
}
for _name, _value in SETTINGS.items():  # read when vLLM is imported
    os.environ.setdefault(_name, _value)

import torch  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402
from vllm.lora.request import LoRARequest  # noqa: E402

from common.course_lm import corpus  # noqa: E402
from common.course_lm.card import write_card  # noqa: E402
from common.course_lm.checkpoint import weights_hash  # noqa: E402
from common.course_lm.corpus_prose import stories_with_unseen_values  # noqa: E402
from common.course_lm.corpus_values import Example  # noqa: E402
from common.course_lm.scoring import is_right  # noqa: E402

BASE_SKILLS = [skill for skill in corpus.HELD_OUT_MAKERS if skill not in ("prose", *corpus.ADAPTERS)]
ENGINE = {
    "dtype": "bfloat16",
    "enforce_eager": True,
    "max_model_len": 2048,
    "kv_cache_memory_bytes": 256 * 2**20,
    "max_num_seqs": 64,
    "seed": 0,
    "use_tqdm_on_load": False,
    "disable_log_stats": False,
}
DRAFT_TOKENS = 3
STORY = corpus.Example(
    "prose",
    (
        {"role": "user", "content": "Write a short story about a lost lantern."},
        {"role": "assistant", "content": ""},
    ),
)


def answers(llm: LLM, examples: list[Example], adapter: LoRARequest | None = None, max_tokens: int = 200) -> list[str]:
    """Greedy answers; tool calls keep their markers, other special tokens are left out."""
    prompts = [corpus.prompt_of(example) for example in examples]
    settings = SamplingParams(temperature=0, max_tokens=max_tokens)
    return [out.outputs[0].text for out in llm.generate(prompts, settings, lora_request=adapter, use_tqdm=False)]


def score(llm: LLM, skill: str, count: int, failures: int, adapter: LoRARequest | None = None) -> float:
    """Percentage of right answers; prints the first failures."""
    examples = corpus.held_out(skill, count)
    written = answers(llm, examples, adapter)
    wrong = [
        (example, answer) for example, answer in zip(examples, written, strict=True) if not is_right(example, answer)
    ]
    for example, answer in wrong[:failures]:
        print(f"  {skill}: {corpus.prompt_of(example)[-300:]!r}\n    got  {answer!r}\n    want {example.answer!r}")
    result = round(100 * (1 - len(wrong) / count), 1)
    print(f"{skill}{' with its adapter' if adapter else ''}: {result} %", flush=True)
    return result


def perplexity_of(llm: LLM, texts: list[str]) -> float:
    """Perplexity per token of texts, from vLLM's prompt log-probabilities."""
    outputs = llm.generate(texts, SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0), use_tqdm=False)
    values = [next(iter(position.values())).logprob for out in outputs for position in out.prompt_logprobs if position]
    return round(math.exp(-sum(values) / len(values)), 2)


def acceptance(count: int) -> dict[str, float]:
    """Mean tokens per step with the draft model guessing three, by skill: 1 is no use, 4 the best."""
    llm = LLM(
        model=str(HERE / "model"),
        **ENGINE,
        speculative_config={
            "model": str(HERE / "draft"),
            "num_speculative_tokens": DRAFT_TOKENS,
            "method": "draft_model",
        },
    )
    lengths, before = {}, (0.0, 0.0)
    for skill in [*BASE_SKILLS, "prose"]:
        examples = corpus.held_out(skill, count) if skill != "prose" else [STORY]
        answers(llm, examples)
        counted = {
            metric.name: metric.value
            for metric in llm.get_metrics()
            if metric.name.startswith("vllm:spec_decode_num") and hasattr(metric, "value")
        }
        now = (counted["vllm:spec_decode_num_drafts"], counted["vllm:spec_decode_num_accepted_tokens"])
        lengths[skill] = round(1 + (now[1] - before[1]) / (now[0] - before[0]), 2)
        before = now
        print(f"acceptance length {skill}: {lengths[skill]}", flush=True)
    return lengths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="examples of each skill")
    parser.add_argument("--only", nargs="*", help="these skills alone; writes nothing")
    parser.add_argument("--failures", type=int, default=0, help="wrong answers to print for each skill")
    options = parser.parse_args()
    begin = time.perf_counter()
    loras = {"enable_lora": True, "max_loras": len(corpus.ADAPTERS) + 1, "max_lora_rank": 8}
    llm = LLM(model=str(HERE / "model"), **ENGINE, **loras)
    base = {
        skill: score(llm, skill, options.count, options.failures)
        for skill in [*BASE_SKILLS, *corpus.ADAPTERS]
        if not options.only or skill in options.only
    }
    tuned = {
        task: score(
            llm,
            task,
            options.count,
            options.failures,
            LoRARequest(task, index, str(HERE / "adapters" / task)),
        )
        for index, task in enumerate(corpus.ADAPTERS, 1)
        if not options.only or task in options.only
    }
    if options.only:
        return
    sample = answers(llm, [STORY], max_tokens=400)[0]
    print(sample)
    del llm
    gc.collect()
    # Without LoRA: on a CPU vLLM 0.32 cannot give prompt log-probabilities in an engine that has it.
    llm = LLM(model=str(HERE / "model"), **ENGINE)
    perplexity = {
        "unseen values": perplexity_of(llm, stories_with_unseen_values(50)),
        "unseen sentences": perplexity_of(llm, [example.keys[0] for example in corpus.held_out("prose", 50)]),
    }
    print(f"prose perplexity: {perplexity}", flush=True)
    del llm
    gc.collect()
    lengths = acceptance(max(10, options.count // 8))
    scores = {
        "examples_per_skill": options.count,
        "seed": corpus.SEED,
        "percent_right": base,
        "percent_right_with_adapter": tuned,
        "prose_perplexity": perplexity,
        "prose_sample": sample,
        "draft_tokens": DRAFT_TOKENS,
        "acceptance_length": lengths,
        "weights_sha256": {name: weights_hash(HERE / name) for name in ("model", "draft", "adapters")},
        "measured_with": {
            "vllm": __import__("vllm").__version__,
            "torch": torch.__version__,
            "machine": platform.machine(),
            "dtype": "bfloat16",
        },
        "seconds": round(time.perf_counter() - begin),
    }
    (HERE / "scores.json").write_text(json.dumps(scores, indent=1, ensure_ascii=False) + "\n")
    write_card(scores)


if __name__ == "__main__":
    main()
