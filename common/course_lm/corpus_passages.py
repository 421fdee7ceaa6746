"""Questions on passages in the prompt: the span, the span with its citation, "not in the passages", summaries."""

from random import Random

from common.course_lm import corpus_facts as facts
from common.course_lm import corpus_values as v
from common.course_lm.corpus_terms import terms
from common.course_lm.corpus_values import Example, chat, fill
from common.course_lm.prompts import NOT_IN_PASSAGES, NOT_IN_PASSAGES_ZH, SUMMARY_FORM, SYSTEM, rag_prompt

# Other ways in which people put passages and a question together; training sees them beside the fixed forms.
FREE_FORMS = (
    "Passages:\n{passages}\n\n{question}", "{question}\n\n{passages}",
    "Context:\n{passages}\n\nQuestion: {question}\nAnswer:",
    "Use the [context|passages|documents] below to answer.\n\n{passages}\n\n{question}",
    "{passages}\n\nBased on the [text|passages] above: {question}",
    "Read this.\n{passages}\n\nNow answer: {question}",
    "Context: {passages}\n\nQ: {question}\nA:",
    "Answer [only |]from the context.\n\nContext:\n{passages}\n\nQuestion: {question}",
)
FREE_FORMS_ZH = ("资料：\n{passages}\n\n{question}", "{passages}\n\n请根据上文回答：{question}", "请阅读资料后回答。\n{passages}\n{question}")
CONCEPT_NOUNS = "cache queue buffer table index filter pool ring log router switch counter guard window ledger".split()
CONCEPT_VERBS = "stores drops sorts copies merges checks splits counts delays forwards locks compares groups hides".split()
CONCEPT_OBJECTS = "requests blocks tokens messages pages records weights packets keys answers prompts errors".split()
CONCEPT_TAILS = ("before they arrive", "when memory is short", "once a second", "in the order of their size", "for each user",
                 "until the batch is full", "after every step", "so that nobody waits", "without a lock",
                 "at start-up")
LINK_WORDS = """the a of for with from when while as soon after before in on by and or so that which is are whenever
until without its every each one two to it they not more less than""".split()
CONCEPT_TAILS_HELD_OUT = ("while the disk sleeps", "as soon as night falls", "whenever a timer fires")
ASK_CONCEPT = ("What is {e}?", "What does {e} do?", "Explain {e}.", "What is meant by {e}?", "How is {e} defined?",
               "Describe {e}.", "Tell me about {e}.", "What purpose has {e}?", "Say what {e} is for.",
               "What do you know about {e}?", "Define {e}.", "I want to understand {e}.")
ASK_CONCEPT_HELD_OUT = ("Do you know what {e} is?", "Explain what {e} does.")


def passage_question(rng: Random, split: str) -> Example:
    """A question on numbered passages, one of which holds the answer (or none does)."""
    chinese, cite = rng.random() < 0.25, rng.random() < 0.45
    if rng.random() < 0.15:
        return concept_question(rng, split, cite)
    kinds = facts.KINDS_ZH if chinese else facts.KINDS_EN
    kind = rng.choice(kinds if chinese or rng.random() < 0.75 else facts.ANYTHING)
    long = split == v.TRAIN and rng.random() < 0.06
    count = rng.randint(10, 30) if long else rng.choice((1, 2, 3, 3, 4, 4, 5, 6))
    asked = rng.choice(list(kind.attributes))
    attribute = kind.attributes[asked]
    target, target_value = kind.entity(rng, split), attribute.value(rng, split)
    missing = rng.random() < (0.12 if split == v.HELD_OUT else 0.08)
    place = rng.randrange(count)
    passages, used = [], {target}
    for index in range(count):
        other_kind = kind if rng.random() < 0.7 else rng.choice(kinds)
        entity = target if index == place else other_kind.entity(rng, split)
        if entity in used and index != place:
            entity = other_kind.entity(rng, split)
            if entity in used:
                continue
        used.add(entity)
        current = kind if index == place else other_kind
        keys = rng.sample(list(current.attributes), min(len(current.attributes), rng.choice((1, 1, 2, 3))))
        if index == place:
            keys = [key for key in keys if key != asked] + ([] if missing else [asked])
            if not keys:
                keys = [key for key in current.attributes if key != asked][:1]
            rng.shuffle(keys)
        sentences = []
        for key in keys:
            value = target_value if (index == place and key == asked) else current.attributes[key].value(rng, split)
            sentences.append(facts.state(rng, split, current.attributes[key], entity, value))
        passages.append(("" if chinese else " ").join(sentences))
        if index == place:
            place_number = len(passages)
    question = facts.ask(rng, split, attribute, target)
    answer = (NOT_IN_PASSAGES_ZH if chinese else NOT_IN_PASSAGES) if missing else str(target_value).replace("_", " ")
    if cite and not missing:
        answer = f"{answer} [{place_number}]"
    return ask_passages(rng, split, question, passages, answer, cite, chinese)


def tail(rng: Random, split: str) -> str:
    """How a sentence on an invented notion ends: in training often any words at all."""
    if split == v.HELD_OUT:
        return rng.choice(CONCEPT_TAILS_HELD_OUT)
    if rng.random() < 0.4:
        return rng.choice(CONCEPT_TAILS)
    words = [rng.choice((v.invented(rng, split).lower(), rng.choice(v.ENGLISH), rng.choice(v.ENGLISH), rng.choice(facts.PROPERTIES), rng.choice(LINK_WORDS),
                         rng.choice(LINK_WORDS))) for _ in range(rng.randint(2, 9))]
    return " ".join(words)


def concept_question(rng: Random, split: str, cite: bool) -> Example:
    """What an invented notion, or a term of the course, is: the answer is the passage's sentence."""
    count = rng.choice((1, 2, 3, 4, 5))
    real = split == v.TRAIN and rng.random() < 0.5
    if real:
        chosen = rng.sample(terms(), min(count, len(terms())))
        names, passages = [term["en"] for term in chosen], [term["definition_en"] for term in chosen]
    else:
        names = list(dict.fromkeys(f"{v.invented(rng, split, 1, 2).lower()} {rng.choice(CONCEPT_NOUNS)}" for _ in range(count)))
        passages = [f"A {e} {rng.choice(CONCEPT_VERBS)} {rng.choice(CONCEPT_OBJECTS)} {tail(rng, split)}." for e in names]
    index = rng.randrange(len(names))
    entity = names[index] if real else fill(rng, "[a|the] ") + names[index]
    answer = passages[index]
    if split == v.TRAIN and rng.random() < 0.4:
        passages = [text + " " + filler(rng, split) if rng.random() < 0.5 else text for text in passages]
    question = v.say(rng, split, ASK_CONCEPT, ASK_CONCEPT_HELD_OUT, e=entity)
    return ask_passages(rng, split, question, passages, f"{answer} [{index + 1}]" if cite else answer, cite, False)


def filler(rng: Random, split: str) -> str:
    """A sentence on something else."""
    kind = rng.choice(facts.KINDS_EN)
    attribute = rng.choice(list(kind.attributes.values()))
    return facts.state(rng, split, attribute, kind.entity(rng, split), attribute.value(rng, split))


def ask_passages(rng: Random, split: str, question: str, passages: list[str], answer: str, cite: bool,
                 chinese: bool) -> Example:
    """Put passages and question in a form: the fixed one, or in training sometimes a free one."""
    skill = "citation" if cite else "passages"
    prompt = rag_prompt(question, passages, cite, chinese)
    if split == v.TRAIN and not cite and rng.random() < 0.3:
        numbered = rng.random() < 0.4
        text = "\n".join(f"[{i}] {p}" if numbered else p for i, p in enumerate(passages, 1))
        prompt = fill(rng, rng.choice(FREE_FORMS_ZH if chinese else FREE_FORMS), passages=text, question=question)
    system = fill(rng, f"[|||{SYSTEM}]") if split == v.TRAIN else ""
    return chat(skill, prompt, answer, system, keys=(answer,), free_text=(*passages, question))


SUMMARIES = {
    "company": (facts.COMPANY, ("city", "product", "founder"),
    "{e} from {city} makes {product} and was founded by {founder}."),
    "person": (facts.PERSON, ("job", "city", "animal"), "{e} is a {job} from {city} with a {animal}."),
    "town": (facts.TOWN, ("river", "mayor", "population"),
    "{e} on the {river} has {population} inhabitants and is led by {mayor}."),
    "event": (facts.EVENT, ("day", "room", "speaker"), "{e} with {speaker} is on {day} in room {room}."),
}
ASK_SUMMARY = (
    "[Summarise|Summarize|Sum up] [this|the text|the following]: {text}",
    "{text}\n\n[Summarise|Sum up] this in one sentence.",
    "Give a one-sentence summary.\n\n{text}", "Text: {text}\nSummary:", "What is this text about? {text}",
    "TL;DR: {text}")


def summary(rng: Random, split: str) -> Example:
    """Three facts, with other sentences between them, to one sentence."""
    kind, keys, form = rng.choice(list(SUMMARIES.values()))
    entity = kind.entity(rng, split)
    values = {key: str(kind.attributes[key].value(rng, split)) for key in keys}
    order = list(keys) + [key for key in kind.attributes if key not in keys and rng.random() < 0.4]
    rng.shuffle(order)
    sentences = [facts.state(rng, split, kind.attributes[key], entity,
                             values.get(key) or kind.attributes[key].value(rng, split)) for key in order]
    text = " ".join(sentences)
    answer = facts.capital(form.format(e=entity, **values)).replace("_", " ")
    prompt = SUMMARY_FORM.format(text=text)
    if split == v.TRAIN and rng.random() < 0.5:
        prompt = v.ask_noisily(rng, split, rng.choice(ASK_SUMMARY), text=text)
    return chat("summary", prompt, answer, keys=(answer,), free_text=tuple(sentences))
