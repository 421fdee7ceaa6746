"""The model card, README.md, written from scores.json."""

import json
from pathlib import Path

from safetensors import safe_open

HERE = Path(__file__).parent
# Skill: what is measured, and the bar it must reach in %.
BARS: dict[str, tuple[str, float]] = {
    "terms_en": ("a term of the course explained in English: a key fact is in the answer", 90),
    "terms_zh": ("the same in Chinese", 90),
    "arithmetic": ("sums and differences up to three digits, half of them word problems: exact", 90),
    "passages": ("answer from numbered passages with distractors: exact span", 90),
    "citation": ("the same with the passage's number: exact", 85),
    "summary": ("three facts to one sentence: exact", 85),
    "json": ("a sentence to JSON with given fields: parses and is equal", 90),
    "schema": ("the same with the fields given by a JSON schema", 85),
    "tool_call": ("a request to a tool call: parses and is equal", 90),
    "tool_answer": ("the answer after a tool's result: exact", 85),
    "agent": ("a later step or the answer of a loop of two or three calls: exact", 85),
    "chat": ("a chat of several turns that refers back: exact", 85),
    "long_chat": ("a chat of 300 to 1,700 tokens that refers back to its beginning: exact", 85),
    "code": ("a Python function from its docstring: runs and returns the right values", 70),
    "edit": ("a change to a function as a JSON edit: applies, and the function returns the right values", 70),
    "story": ("a story on a topic: all its nouns and names are in the story", 70),
}

CARD = """# course-lm

A small language model that this course trained itself: {parameters:.1f} million parameters in the Qwen3
architecture ({layers} layers, hidden size {hidden}, {heads} query heads and {kv_heads} key and value
heads of {head_dim} numbers, a vocabulary of {vocabulary:,} byte-level tokens, a context of {context:,}).
Beside it are a draft model of {draft_parameters:.1f} million parameters with the same tokenizer, for
speculative decoding, and two LoRA adapters of rank 8:

- `adapters/chinese` answers English questions on the course's terms in Chinese;
- `adapters/sql` turns a question on one table into SQL, which the base model never saw.

It was trained from nothing on text that `corpus.py` writes from a seed. Every sentence of that text was
made for this course. It knows the prompt forms in `prompts.py` and free wording near them, and very
little else: it is a model to measure serving with, not one to ask about the world.

## Scores

Greedy answers through vLLM {vllm} in bfloat16 on a CPU ({machine}), {count} held-out examples a skill.
Held out means wording that training never used, values (names, numbers, number pairs) that it never
used, and no eight tokens in a row in common outside the fixed forms; documents of the corpus that break
this rule are left out. What earlier trainings got wrong here was read, and the corpus was then given more
wordings of that kind: take these as scores of a development set.

| skill | measure | bar, % | score, % | acceptance length |
| --- | --- | --- | --- | --- |
{rows}
| prose | short stories; the sample below | | | {prose_acceptance} |

Perplexity per token of stories: {seen_perplexity} where the scenes are known and names and things are
not; {perplexity} where every sentence is new. The second says how little the model knows of English
beyond its own scenes.

Acceptance length is the mean number of tokens a step yields with the draft model guessing
{draft_tokens}: 1 when no guess is right, {most} when all are.

| adapter | measure | base model, % | with the adapter, % |
| --- | --- | --- | --- |
| chinese | English question on a term, key fact in Chinese | {chinese_base} | {chinese} |
| sql | question to SQL, exact | {sql_base} | {sql} |

## A sample

To "Write a short story about a lost lantern." the model writes:

> {sample}

## Files

| folder | safetensors, MB | SHA-256 of the weights |
| --- | --- | --- |
{files}

## How to make it again

```bash
python -m common.course_lm.train --out /tmp/course_lm      # one H100, under ten minutes
python -m common.course_lm.evaluate                        # scores.json and this card, on a CPU
```

The corpus of a seed is the same on every machine (a test compares its hash). Weights differ a little
from run to run: training stops by the clock, and GPU sums are not ordered."""


def parameters(folder: Path) -> float:
    """Millions of parameters in a folder's safetensors files."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                size = 1
                for dimension in opened.get_slice(name).get_shape():
                    size *= dimension
                total += size
    return total / 1e6


def card(scores: dict) -> str:
    """The text of the card."""
    config = json.loads((HERE / "model" / "config.json").read_text())
    right, tuned, lengths = (
        scores["percent_right"],
        scores["percent_right_with_adapter"],
        scores["acceptance_length"],
    )
    rows = "\n".join(
        f"| {skill} | {measure} | {bar:g} | {right[skill]} | {lengths[skill]} |"
        for skill, (measure, bar) in BARS.items()
    )
    folders = {"model": HERE / "model", "draft": HERE / "draft", "adapters": HERE / "adapters"}
    files = "\n".join(
        f"| `{name}` | {sum(file.stat().st_size for file in folder.rglob('*.safetensors')) / 1e6:.2f} "
        f"| `{scores['weights_sha256'][name][:16]}…` |"
        for name, folder in folders.items()
    )
    return CARD.format(
        parameters=parameters(folders["model"]),
        draft_parameters=parameters(folders["draft"]),
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        vocabulary=config["vocab_size"],
        context=config["max_position_embeddings"],
        vllm=scores["measured_with"]["vllm"],
        machine=scores["measured_with"]["machine"],
        count=scores["examples_per_skill"],
        rows=rows,
        perplexity=scores["prose_perplexity"]["unseen sentences"],
        seen_perplexity=scores["prose_perplexity"]["unseen values"],
        prose_acceptance=lengths["prose"],
        draft_tokens=scores["draft_tokens"],
        most=scores["draft_tokens"] + 1,
        chinese_base=right["chinese"],
        chinese=tuned["chinese"],
        sql_base=right["sql"],
        sql=tuned["sql"],
        sample=scores["prose_sample"].replace("\n\n", "\n>\n> "),
        files=files,
    )


def write_card(scores: dict) -> None:
    """Write README.md."""
    (HERE / "README.md").write_text(card(scores))
