"""course-lm: its corpus, its held-out examples, its files and its card agree with one another.

Nothing here starts an engine; the whole file takes under a minute on two cores.
"""

import itertools
import json
import time
from collections import Counter
from multiprocessing.pool import ThreadPool
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors import safe_open

from common.course_lm import corpus, prompts, stream, train
from common.course_lm import corpus_values as v
from common.course_lm import corpus_words as lists
from common.course_lm.card import BARS, card
from common.course_lm.checkpoint import weights_hash
from common.course_lm.corpus_dialogue import conversation
from common.course_lm.corpus_edits import edit
from common.course_lm.corpus_extraction import extraction
from common.course_lm.corpus_prose import story_request
from common.course_lm.scoring import is_right
from common.course_lm.tokenizer import (
    END,
    END_OF_TEXT,
    MARKERS,
    START,
    VOCAB_SIZE,
    load_tokenizer,
    train_tokenizer,
    value_words,
)

FOLDER = Path(corpus.__file__).parent
CORPUS_HASH = "acd0ba27cad5b9d571b4de23009334a8bdcdc069f6c297818173f61738cadc1b"
DOCUMENTS = 12_000
SKILLS = list(corpus.HELD_OUT_MAKERS)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(FOLDER / "model")


@pytest.fixture(scope="module")
def new_tokenizer(sample):
    """A tokenizer trained as train.py does it, on fewer documents."""
    return train_tokenizer([corpus.text_of(example) for example in sample])


@pytest.fixture(scope="module")
def scores():
    return json.loads((FOLDER / "scores.json").read_text())


@pytest.fixture(scope="module")
def sample() -> list[corpus.Example]:
    """Training documents from several chunks, far apart."""
    return [
        next(stream)
        for chunk in (0, 1_000, 2_000)
        for stream in [corpus.documents(corpus.SEED, chunk)]
        for _ in range(DOCUMENTS // 3)
    ]


def kept(examples: list[corpus.Example], tokenizer, forbidden: np.ndarray) -> list[corpus.Example]:
    """The documents that training would keep."""
    encoded = corpus.encode(examples, tokenizer)
    return [
        example
        for example, (tokens, _) in zip(examples, encoded, strict=True)
        if not corpus.shares(corpus.ngram_hashes(tokens), forbidden)
    ]


def test_seed_makes_the_same_corpus():
    assert corpus.corpus_hash() == CORPUS_HASH
    assert corpus.corpus_hash(seed=corpus.SEED + 1, chunks=1) != corpus.corpus_hash(chunks=1)


def test_chunk_does_not_depend_on_other_chunks():
    first = corpus.text_of(next(corpus.documents(corpus.SEED, 7)))
    for chunk in range(3):
        next(corpus.documents(corpus.SEED, chunk))
    assert corpus.text_of(next(corpus.documents(corpus.SEED, 7))) == first


def test_no_eight_tokens_shared_with_held_out_prompts(sample, tokenizer):
    forbidden = corpus.free_ngrams(corpus.all_held_out(), tokenizer)
    assert len(forbidden) > 10_000
    texts = [corpus.text_of(example) for example in kept(sample, tokenizer, forbidden)]
    # Checked anew with strings of tokens rather than with the hashes that the filter uses.
    seen: set[tuple[int, ...]] = set()
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        seen.update(zip(*(ids[start:] for start in range(corpus.NGRAM)), strict=False))
    for skill in SKILLS:
        for example in corpus.held_out(skill, 100):
            texts = list(example.free_text)
            for ids in tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []:
                for window in zip(*(ids[start:] for start in range(corpus.NGRAM)), strict=False):
                    assert window not in seen, (skill, tokenizer.decode(list(window)))


def test_filter_leaves_nearly_everything(sample, tokenizer):
    forbidden = corpus.free_ngrams(corpus.all_held_out(), tokenizer)
    before = Counter(example.skill for example in sample)
    after = Counter(example.skill for example in kept(sample, tokenizer, forbidden))
    for skill, count in before.items():
        assert after[skill] > 0.7 * count, (skill, count, after[skill])
    leak = corpus.held_out("passages", 1)[0]
    assert not kept([leak], tokenizer, forbidden), "the filter must catch a held-out prompt"


def test_held_out_questions_are_no_training_questions(sample):
    asked = {message["content"] for example in sample for message in example.messages if message["role"] == "user"}
    for skill in SKILLS:
        for example in corpus.held_out(skill, 100):
            assert not asked & set(example.free_text), skill


def test_values_are_disjoint():
    rng = Random(1)
    for draw in (
        v.name,
        v.city,
        v.name_zh,
        v.place_zh,
        v.company,
        v.code,
        lambda r, s: v.draw(r, s, lists.OBJECTS),
        lambda r, s: v.plural(v.draw(r, s, lists.PRODUCTS)),
        lambda r, s: tuple(sorted(v.pair(r, s))),
        lambda r, s: v.number(r, s, 100, 999),
    ):
        train = {draw(rng, v.TRAIN) for _ in range(3_000)}
        held_out = {draw(rng, v.HELD_OUT) for _ in range(1_000)}
        assert train and held_out and not train & held_out


def strings(value: object) -> list[str]:
    """All strings among the values of a JSON object."""
    if isinstance(value, dict | list):
        return [text for part in (value.values() if isinstance(value, dict) else value) for text in strings(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("split", [v.TRAIN, v.HELD_OUT])
def test_extracted_values_stand_in_the_text_as_they_are(split):
    rng = Random(4)
    for _ in range(1_500):
        example = extraction(rng, split)
        for text in strings(json.loads(example.answer)):
            assert text in example.free_text[0], example


def test_stories_are_about_their_topic():
    rng, kinds = Random(5), Counter()
    for _ in range(400):
        example = story_request(rng, v.TRAIN)
        assert is_right(example, example.answer), example
        hero = next(name for name in lists.NAMES if name in example.answer)
        kinds["she" if hero in lists.WOMEN else "he"] += 1
        kinds["animal" if any(f" {animal} called" in example.answer for animal in lists.ANIMALS) else "other"] += 1
    assert min(kinds["she"], kinds["he"], kinds["animal"]) > 30


def test_long_chats_fit_the_context(new_tokenizer):
    rng = Random(6)
    for split in (v.TRAIN, v.HELD_OUT):
        lengths = [
            len(tokens) for tokens, _ in corpus.encode([conversation(rng, split) for _ in range(150)], new_tokenizer)
        ]
        assert min(lengths) > 200 and 1_300 < max(lengths) < 1_900


def test_edits_can_be_applied():
    rng = Random(7)
    for split in (v.TRAIN, v.HELD_OUT):
        for _ in range(300):
            example = edit(rng, split)
            assert is_right(example, example.answer), example
            assert not is_right(example, '{"old": "def", "new": "#"}')


def test_adapters_keep_away_from_held_out_prompts(new_tokenizer):
    forbidden = corpus.free_ngrams(corpus.all_held_out(), new_tokenizer)
    stream._worker.update(tokenizer=new_tokenizer, forbidden=forbidden)
    for task in corpus.ADAPTERS:
        ids, weights = stream.make_adapter_batch((task, 0, 64))
        assert ids.shape == weights.shape and len(ids) == 64 and set(np.unique(weights)) == {0, 1}
        assert not any(corpus.shares(corpus.ngram_hashes(row), forbidden) for row in ids)
        again, _ = stream.make_adapter_batch((task, 0, 64))
        assert (ids == again).all()


def test_stream_stops_ahead_and_lets_the_next_one_in():
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return 2 * number

    with ThreadPool(2) as pool:
        first = stream.Stream(pool, make, itertools.count(), ahead=5)
        assert [next(first) for _ in range(3)] == [0, 2, 4]
        deadline = time.monotonic() + 10
        while len(made) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert sorted(made) == list(range(8)), "three were taken, so five more may be made"
        first.close()
        second = stream.Stream(pool, str, range(3), ahead=5)
        assert [next(second) for _ in range(3)] == ["0", "1", "2"]
        second.close()


def test_picked_tokens_stand_for_all(new_tokenizer):
    chunk = corpus.pack(corpus.documents(corpus.SEED, 3), new_tokenizer, rows=2)
    full, part = (train.Batch(chunk, "cpu", share) for share in (1, train.LOSS_SHARE))
    answers = {index for index, weight in enumerate(full.weights.tolist()) if weight > corpus.ANSWERS_FROM}
    picked = part.picked.tolist()
    assert answers and answers < set(picked) and len(set(picked)) == len(picked) < 0.4 * len(full.weights)
    assert torch.equal(part.targets, full.targets[part.picked])
    torch.testing.assert_close(part.weights.sum(), full.weights.sum())
    kept = dict(zip(picked, part.weights.tolist(), strict=True))
    assert all(kept[index] == full.weights[index] for index in answers)


@pytest.mark.parametrize("skill", [skill for skill in SKILLS if skill != "prose"])
def test_scoring_takes_the_true_answer_and_no_other(skill):
    examples = corpus.held_out(skill, 40)
    assert all(is_right(example, example.answer.replace("<|endoftext|>", "")) for example in examples)
    assert not any(is_right(example, "I do not know that.") for example in examples)


def test_render_is_the_chat_template(sample, tokenizer):
    chats = [example for example in sample if example.messages][:400]
    chats += [corpus.held_out(skill, 3)[0] for skill in SKILLS if skill != "prose"]
    for example in chats:
        expected = tokenizer.apply_chat_template(
            list(example.messages), tools=list(example.tools) or None, tokenize=False
        )
        assert corpus.text_of(example) == expected
        head = tokenizer.apply_chat_template(
            list(example.messages[:-1]),
            tools=list(example.tools) or None,
            tokenize=False,
            add_generation_prompt=True,
        )
        assert corpus.prompt_of(example) == head


def test_chat_template_takes_what_clients_send(tokenizer):
    call = {"id": "x", "type": "function", "function": {"name": "get_time", "arguments": '{"city": "Oslo"}'}}
    messages = [
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "x", "content": "10:00"},
    ]
    tool = {"type": "function", "function": {**prompts.TOOL_TIME["function"], "strict": True}}
    text = tokenizer.apply_chat_template(messages, tools=[tool], tokenize=False, add_generation_prompt=True)
    assert '<tool_call>\n{"name": "get_time", "arguments": {"city": "Oslo"}}\n</tool_call>' in text
    assert "<tool_response>\n10:00\n</tool_response>" in text and "strict" not in text


def assert_round_trips(tokenizer):
    for text in (
        "What is 407 + 15?",
        "什么是分页注意力？ KV 缓存",
        "def f(x):\n    return x  # naïve ☃\n",
        "def f_x(y):\n    return y  # naïve ☃\n",
        "罕见字：龘",
    ):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_tokenizer(tokenizer):
    assert len(tokenizer) == VOCAB_SIZE == 10_240
    assert_round_trips(tokenizer)
    digits = tokenizer.tokenize("12345")
    assert digits == list("12345")
    assert len(tokenizer("量化键值缓存", add_special_tokens=False)["input_ids"]) == 6
    for marker in (START, END, END_OF_TEXT, *MARKERS):
        assert len(tokenizer(marker, add_special_tokens=False)["input_ids"]) == 1
        assert tokenizer.convert_tokens_to_ids(marker) > 9_999
    kept_text = tokenizer.decode(tokenizer("<tool_call>x<|im_end|>")["input_ids"], skip_special_tokens=True)
    assert kept_text == "<tool_call>x"
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_value_has_the_same_tokens_wherever_it_stands(new_tokenizer):
    def tokens(text: str) -> list[str]:
        return new_tokenizer.tokenize(text)

    rng = Random(8)
    words = {v.draw(rng, split, part) for split in (v.TRAIN, v.HELD_OUT) for part in v.OPEN_LISTS for _ in range(60)}
    frequent = {token[1:] for token in new_tokenizer.get_vocab() if token.startswith("Ġ")}
    rare = [word for word in words if not frequent & {*word.replace("-", " ").split(" ")}]
    assert len(rare) > 0.95 * len(words)
    for word in rare:
        alone = tokens(word)
        for before in (" ", ' "', "(", "\n"):
            assert tokens(f"is{before}{word}")[-len(alone) :] == alone, (before, word)
    # Held-out words are no tokens, so that all their pieces are of other words, which training copies. A few are in
    # other words as a whole: "book" in "notebook".
    held_out = value_words()[1]
    assert sum(len(tokens(word)) == 1 for word in held_out) < 0.03 * len(held_out)


def test_new_tokenizer_is_whole(new_tokenizer):
    assert len(new_tokenizer) == VOCAB_SIZE
    assert new_tokenizer.tokenize(" the") == ["Ġthe"]
    assert_round_trips(new_tokenizer)
    assert all(token < VOCAB_SIZE for token in new_tokenizer("<|im_start|>user\nHi<|im_end|>")["input_ids"])


@pytest.mark.parametrize("folder", ["model", "draft"])
def test_configuration(folder):
    config = json.loads((FOLDER / folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["tie_word_embeddings"] and config["head_dim"] == 64
    assert config["num_attention_heads"] % 4 == 0 and config["num_key_value_heads"] % 4 == 0
    assert config["hidden_size"] % 256 == 0 and config["intermediate_size"] % 256 == 0
    assert config["vocab_size"] == VOCAB_SIZE and config["max_position_embeddings"] == 2_048
    eos = json.loads((FOLDER / folder / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = load_tokenizer(FOLDER / folder)
    assert sorted(eos) == sorted(tokenizer.convert_tokens_to_ids([END, END_OF_TEXT]))
    for file in (FOLDER / folder).glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            assert {opened.get_slice(name).get_dtype() for name in opened.keys()} == {"BF16"}  # noqa: SIM118


def test_draft_has_the_same_tokenizer():
    draft, model = (FOLDER / name / "tokenizer.json" for name in ("draft", "model"))
    assert draft.read_bytes() == model.read_bytes()


def test_file_sizes():
    sizes = {file: file.stat().st_size for file in FOLDER.rglob("*.safetensors")}
    assert {file.parent.name for file in sizes} == {"model", "draft", *corpus.ADAPTERS}
    assert sum(sizes.values()) <= 26e6 and max(sizes.values()) <= 15e6
    model, draft = (
        sum(size for file, size in sizes.items() if file.parent.name == name) for name in ("model", "draft")
    )
    assert draft < 0.4 * model


def test_scores_meet_the_bars(scores):
    for skill, (_, bar) in BARS.items():
        score = scores["percent_right"][skill]
        assert score >= bar, skill
    base, tuned = scores["percent_right"], scores["percent_right_with_adapter"]
    assert tuned["chinese"] >= 90 > 20 >= base["chinese"]
    assert tuned["sql"] >= base["sql"] + 40
    assert scores["examples_per_skill"] >= 200
    assert all(1 < length <= scores["draft_tokens"] + 1 for length in scores["acceptance_length"].values())


def test_scores_belong_to_these_files_and_the_card_to_the_scores(scores):
    for name, digest in scores["weights_sha256"].items():
        assert weights_hash(FOLDER / name) == digest, f"{name} changed after its scores: run evaluate.py"
    assert (FOLDER / "README.md").read_text() == card(scores)


def test_articles_and_plurals():
    rng = Random(9)
    assert v.fill(rng, "a {x} and [a|a] {y}", x="engineer", y="8-year-old") == "an engineer and an 8-year-old"
    assert v.fill(rng, "A {x} for a {y}, a and b", x="unicorn", y="lamp") == "A unicorn for a lamp, a and b"
    plurals = {"pocket knife": "pocket knives", "box": "boxes", "cherry": "cherries", "toy": "toys", "deer": "deer"}
    assert {word: v.plural(word) for word in plurals} == plurals
