"""A search over the course's own lessons: sections cut into pieces, BM25, vectors, and forty questions to score them.

`questions.jsonl` beside this file holds the questions. Each names the sections that answer it, and was written before
there was anything to try it on.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.chapters import chapters
from common.problems import Problem

QUESTIONS = Path(__file__).with_name("questions.jsonl")
PIECE = 1200  # most characters of a piece: some 400 tokens, so that the longest fits the model with room to spare
HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """A part of a section, with the heading it stands under."""

    chapter: str
    section: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """The section, the same in both languages where it has a number."""
        return section_key(self.chapter, self.section)


def section_key(chapter: str, section: str) -> tuple[str, str]:
    numbered = re.match(r"\d+\.\d+", section)
    return chapter, numbered[0] if numbered else section


def pieces(folders: Iterable[Path] | None = None) -> list[Piece]:
    """The lessons of all chapters that exist, in both languages, cut at headings and then at paragraphs."""
    found = []
    for folder in folders or chapters():
        for page in sorted(folder.glob("lesson*.md")):
            text = MARK.sub("", page.read_text())
            # A line in a code block may look like a heading: it is hidden while the headings are looked for.
            hidden = FENCE.sub(lambda block: block[0].replace("#", "\0"), text)
            parts = HEADING.split(hidden.replace("\r", ""))
            for heading, body in zip(parts[1::2], parts[2::2], strict=True):
                for part in cut(body.replace("\0", "#")):
                    found.append(Piece(folder.name, heading.strip(), part))
    return found


def cut(body: str, limit: int = PIECE) -> list[str]:
    """Paragraphs put together up to `limit` characters; a longer paragraph is cut where it has to be."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", body.strip()):
        for start in range(0, len(paragraph), limit):
            part = paragraph[start : start + limit]
            if found and len(found[-1]) + len(part) + 2 <= limit:
                found[-1] += f"\n\n{part}"
            elif part.strip():
                found.append(part)
    return found


# ------------------------------------------------------------------------------------------------------------ BM25


def terms(text: str) -> list[str]:
    """Words of a text in lower case without a plural's s; of Chinese, which has no spaces, each pair of characters."""
    found = []
    for word in re.findall(r"[a-z0-9_]+|[\u4e00-\u9fff]+", text.lower()):
        if word[0] >= "\u4e00":
            found += [word[place : place + 2] for place in range(max(1, len(word) - 1))]
        else:
            found.append(word[:-1] if len(word) > 3 and word.endswith("s") else word)
    return found


class Bm25:
    """Robertson's ranking by words: rare ones count more, repeated ones less and less, long texts a little less."""

    def __init__(self, texts: Sequence[str], k1: float = 1.2, b: float = 0.75):
        counts = [Counter(terms(text)) for text in texts]
        lengths = [sum(count.values()) for count in counts]
        mean = sum(lengths) / len(lengths)
        self.documents = len(texts)
        self.weights: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for place, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            for term, times in count.items():
                saturated = times * (k1 + 1) / (times + k1 * (1 - b + b * length / mean))
                self.weights[term].append((place, saturated))

    def scores(self, question: str) -> np.ndarray:
        """A score for each text, 0 where no word is shared."""
        found = np.zeros(self.documents)
        for term in set(terms(question)):
            postings = self.weights.get(term, [])
            rarity = math.log(1 + (self.documents - len(postings) + 0.5) / (len(postings) + 0.5))
            for place, weight in postings:
                found[place] += rarity * weight
        return found


# --------------------------------------------------------------------------------------------------------- vectors


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, so that a product is a cosine."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def train_head(
    left: np.ndarray, right: np.ndarray, groups: Sequence[object], steps: int = 300, batch: int = 96, seed: int = 0
) -> np.ndarray:
    """A matrix [width, width] that brings `left[i]` near `right[i]` and away from the others of a batch (InfoNCE).

    `groups` says which pairs are about the same thing: a batch has one of each, so no right answer counts as wrong.
    """
    import torch

    draw = np.random.default_rng(seed)
    members = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    head = torch.eye(left.shape[1], requires_grad=True)
    scale = torch.tensor(10.0, requires_grad=True)
    optimiser = torch.optim.Adam([head, scale], lr=2e-3)
    pairs = torch.tensor(left, dtype=torch.float32), torch.tensor(right, dtype=torch.float32)
    names = list(members)
    for _ in range(steps):
        chosen = draw.choice(len(names), size=min(batch, len(names)), replace=False)
        rows = torch.tensor([draw.choice(members[names[index]]) for index in chosen])
        a, b = (torch.nn.functional.normalize(side[rows] @ head, dim=-1) for side in pairs)
        logits, target = scale * a @ b.T, torch.arange(len(rows))
        loss = torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return head.detach().numpy()


def fused(rankings: Sequence[np.ndarray], k: int = 60) -> np.ndarray:
    """Reciprocal rank fusion (Cormack et al. 2009): the sum of 1 / (k + rank) over several scores of the same texts."""
    total = np.zeros(len(rankings[0]))
    for scores in rankings:
        order = np.argsort(-scores, kind="stable")
        ranks = np.empty(len(order))
        ranks[order] = np.arange(1, len(order) + 1)
        total += 1 / (k + ranks)
    return total


# ----------------------------------------------------------------------------------------------------------- score


@dataclass(frozen=True)
class Question:
    text: str
    language: str
    answers: frozenset[tuple[str, str]]  # keys of the sections, any of which is right


def questions(file: Path = QUESTIONS) -> list[Question]:
    """The questions. Raises Problem if one names a section that no lesson has."""
    headings = {(piece.chapter, piece.section) for piece in pieces()}
    found = []
    for line in file.read_text().splitlines():
        asked = json.loads(line)
        answers = [(answer["chapter"], answer["section"]) for answer in asked["answers"]]
        for answer in answers:
            if answer not in headings:
                raise Problem(f"{file.name}: no lesson has the section {answer}.", "Write it as the lesson does.")
        keys = frozenset(section_key(*answer) for answer in answers)
        found.append(Question(asked["question"], asked["language"], keys))
    return found


def rank(scores: np.ndarray, documents: Sequence[Piece], wanted: frozenset) -> int:
    """Place of the first wanted section among the sections, each of which has the score of its best piece."""
    seen: dict[tuple[str, str], None] = {}
    for place in np.argsort(-scores, kind="stable"):
        key = documents[place].key
        seen.setdefault(key)
        if key in wanted:
            return len(seen)
    raise ValueError("no document is of a wanted section")


def summary(ranks: Sequence[int]) -> dict[str, float]:
    """Share of the questions whose section is first, and among the first five; and the mean of 1 / place (MRR)."""
    return {
        "first_pct": sum(place == 1 for place in ranks) / len(ranks) * 100,
        "top5_pct": sum(place <= 5 for place in ranks) / len(ranks) * 100,
        "mrr": sum(1 / place for place in ranks) / len(ranks),
    }
