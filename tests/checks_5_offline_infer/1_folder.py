"""1. Summarise a folder within a token budget"""

import random

import pytest

from common.check import expect


def words(text):
    return len(text.split())


# ------------------------------------------------------------------------------------------------------------- split


@pytest.mark.parametrize(
    "text,limit,pieces,why,mistakes",
    [
        ("a b c", 5, ["a b c"], "", {}),
        ("a b\n\nc d\n\ne f", 4, ["a b\n\nc d", "e f"], "two paragraphs have four words, three have six", {
            "each paragraph is a piece of its own": ["a b", "c d", "e f"],
            "a piece that is full to the last token is closed too early": ["a b", "c d", "e f"],
            "the paragraph that does not fit is lost": ["a b\n\nc d"],
        }),
        ("  a b  \n\n\n\n\n\n c \n", 9, ["a b\n\nc"], "empty paragraphs are left out and the others stripped", {
            "paragraphs are not stripped": ["  a b  \n\n c \n"],
        }),
        ("a b c d e f g", 3, ["a b c", "d e f", "g"], "a long paragraph is cut into parts made of its words", {
            "a paragraph longer than the limit is not cut": ["a b c d e f g"],
            "the words that do not fit are lost": ["a b c"],
        }),
        ("x\n\na b c d e\n\ny", 3, ["x", "a b c", "d e\n\ny"], "the parts are then treated as paragraphs", {
            "a cut paragraph shares no piece with others": ["x", "a b c", "d e", "y"],
            "a long paragraph is cut from what is left in the piece before": ["x\n\na b", "c d e", "y"],
        }),
        ("a\nb\n\nc", 9, ["a\nb\n\nc"], "one line end does not end a paragraph", {
            "lines are taken for paragraphs": ["a\n\nb\n\nc"],
        }),
        ("", 5, [], "", {}),
        (" \n\n \n\n", 5, [], "there is nothing but blank lines", {"an empty piece is kept": [""]}),
    ],
    ids=range(8),
)  # fmt: skip
def test_split(exercises, text, limit, pieces, why, mistakes):
    expect(f"split({text!r}, count, {limit}) with words as tokens", exercises.split(text, words, limit), pieces, why,
           mistakes)  # fmt: skip


def test_split_counts_with_the_given_function(exercises):
    expect(
        "split('aa bb\\n\\ncc', count, 7) with characters as tokens", exercises.split("aa bb\n\ncc", len, 7),
        ["aa bb", "cc"], "together they have nine characters: what is put between them counts too",
        {"the tokens of the paragraphs are added, without what stands between": ["aa bb\n\ncc"]},
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------- most_tokens


@pytest.mark.parametrize(
    "pieces,group,summary,tokens,why,mistakes",
    [
        ([], 3, 10, 0, "no pieces cost nothing", {}),
        ([100], 3, 10, 110, "one piece in, one summary out", {
            "the answer is not counted": 100, "a single summary is summarised once more": 130,
        }),
        ([100, 50], 2, 10, 200, "150 + 2 x 10 for the pieces, 2 x 10 + 10 for the two summaries", {
            "the last level is missing": 170, "the prompts of the later levels are not counted": 180,
        }),
        ([10] * 5, 2, 1, 50 + 5 + (5 + 3) + (3 + 2) + (2 + 1), "5 summaries, then 3, 2 and 1", {
            "the last group is left out if it is smaller": 50 + 5 + (5 + 2) + (2 + 1),
            "one level is enough": 50 + 5 + 5 + 3,
        }),
        ([7, 8, 9], 8, 5, 24 + 15 + 15 + 5, "all three in one group", {}),
    ],
    ids=range(5),
)  # fmt: skip
def test_most_tokens(exercises, pieces, group, summary, tokens, why, mistakes):
    call = f"most_tokens({pieces}, group={group}, summary={summary})"
    expect(call, exercises.most_tokens(pieces, group, summary), tokens, why, mistakes)


# -------------------------------------------------------------------------------------------------- summarise_folder


class Model:
    """Answers a prompt with its first and last word; remembers the batches and what they cost."""

    def __init__(self):
        self.batches, self.spent = [], 0

    def answer(self, prompts):
        assert isinstance(prompts, list), f"answer takes a list of prompts; yours is a {type(prompts).__name__}."
        self.batches.append(list(prompts))
        answers = [f"{prompt.split()[0]} {prompt.split()[-1]}" for prompt in prompts]
        self.spent += sum(map(words, prompts)) + 2 * len(prompts)
        return answers


def summarised(exercises, documents, budget, limit=4, group=2):
    model = Model()
    found = exercises.summarise_folder(documents, words, model.answer, limit, group, 2, budget)
    return found, model


def test_one_short_document(exercises):
    found, model = summarised(exercises, {"a": "one two three"}, 100)
    expect("summarise_folder of one short document", found, {"a": "one three"})
    expect("the batches of it", model.batches, [["one two three"]], "one piece, one call", {
        "a single summary is summarised again": [["one two three"], ["one three"]],
    })  # fmt: skip


def test_batches_go_across_documents(exercises):
    documents = {"a": "a1 a2 a3 a4 a5 a6", "b": "b1 b2", "c": "c1 c2 c3 c4 c5 c6 c7 c8 c9 c10"}
    found, model = summarised(exercises, documents, 1000)
    batches = [
        ["a1 a2 a3 a4", "a5 a6", "b1 b2", "c1 c2 c3 c4", "c5 c6 c7 c8", "c9 c10"],
        ["a1 a4\na5 a6", "c1 c4\nc5 c8", "c9 c10"],
        ["c1 c8\nc9 c10"],
    ]
    expect("the number of batches for three documents of 2, 1 and 3 pieces", len(model.batches), 3,
           "one for each level, with the pieces of all documents", {"each document has its own": 6})  # fmt: skip
    expect("the batches for three documents", model.batches, batches, "b has its summary after the first")
    expect("summarise_folder of them", found, {"a": "a1 a6", "b": "b1 b2", "c": "c1 c10"})


def test_the_budget_chooses_the_cheapest(exercises):
    documents = {"long": "l " * 8, "short": "s1 s2", "middle": "m1 m2 m3 m4"}
    # most_tokens: short 2 + 2, middle 4 + 2, long 8 + 4 + 4 + 2
    for budget, names in ((3, []), (4, ["short"]), (9, ["short"]), (10, ["short", "middle"]), (27, ["short", "middle"]),
                          (28, ["long", "short", "middle"])):  # fmt: skip
        found, model = summarised(exercises, documents, budget)
        expect(
            f"the names that summarise_folder gives for documents of 18, 4 and 6 tokens and a budget of {budget}",
            list(found), names, "the cheapest first, and the result in the order of the documents",
            {"a budget that is met exactly counts as exceeded": names[:-1], "the first that come are taken": ["long"]},
        )  # fmt: skip
        assert model.spent <= budget, f"With a budget of {budget} you spent {model.spent} tokens."


def test_of_equals_the_first_and_no_further(exercises):
    documents = {"a": "a1 a2", "b": "b1 b2", "c": "c1 c2"}
    found, _ = summarised(exercises, documents, 9)
    expect("the names for three equal documents and a budget for two", list(found), ["a", "b"], "of equals the first")


def test_empty_documents_are_left_out(exercises):
    found, model = summarised(exercises, {"none": " \n\n ", "a": "a1 a2"}, 100)
    expect("summarise_folder of an empty document and another", found, {"a": "a1 a2"})
    found, model = summarised(exercises, {"none": ""}, 100)
    expect("summarise_folder of an empty document", found, {})
    expect("its batches", model.batches, [], "there is nothing to ask", {"an empty batch is sent": [[]]})


def test_many(exercises):
    draw = random.Random(0)
    for _ in range(20):
        documents = {
            f"d{n}": "\n\n".join(
                " ".join(f"w{draw.randrange(99)}" for _ in range(draw.randint(1, 9))) for _ in range(5)
            )
            for n in range(draw.randint(1, 8))
        }
        costs = {
            name: exercises.most_tokens([words(piece) for piece in exercises.split(text, words, 6)], 3, 2)
            for name, text in documents.items()
        }
        budget = draw.randint(10, 400)
        names, left = set(), budget
        for name in sorted(costs, key=costs.get):
            left -= costs[name]
            if left < 0:
                break
            names.add(name)
        found, model = summarised(exercises, documents, budget, limit=6, group=3)
        expect(f"the names for costs of {list(costs.values())} and a budget of {budget}", sorted(found), sorted(names))
        for name, text in found.items():
            ends = f"{documents[name].split()[0]} {documents[name].split()[-1]}"
            expect(f"the summary of {documents[name]!r} by a model that keeps the first and last word", text, ends,
                   "the order of the pieces is kept")  # fmt: skip
        assert model.spent <= budget, f"With a budget of {budget} you spent {model.spent} tokens."
