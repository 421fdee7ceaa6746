"""Questions on the course's terms, in both languages, and the switch from one to the other."""

import json
from functools import lru_cache
from pathlib import Path
from random import Random

from common.course_lm import corpus_values as v
from common.course_lm.corpus_values import Example, chat, fill, say
from common.course_lm.prompts import SYSTEM, SYSTEM_CHINESE, SYSTEM_ENGLISH

TERMS_FILE = Path(__file__).with_name("terms.json")

ASK_EN = (
    "What is {term}?", "What's {term}?", "What does {term} mean?", "Explain {term}.", "Define {term}.",
    "{term}?",
    "[Can|Could|Would] you [explain|describe|define] {term}?",
    "[Please|Kindly] [explain|describe|define] {term}.",
    "Tell me [about|what you know about] {term}.", "I keep hearing about {term}. What is it?",
    "In one sentence, what is {term}?", "[Briefly|Shortly], what is {term}?", "What is meant by {term}?",
    "How would you [define|explain|describe] {term}?", "Help me understand {term}.", "{term}: what is that?",
    "My [colleague|boss|friend] mentioned {term}. What is [that|it]?",
    "What is {term} in [vLLM|LLM serving|inference]?",
    "What do [engineers|people] mean [by|when they say] {term}?",
    "Give [a|me a] [short |]definition of {term}.",
    "Describe {term} to a beginner.", "What should I know about {term}?", "I don't understand {term}.",
    "Explain the term {term}.", "Explain what {term} [is|means].", "What is the meaning of {term}?",
    "What is the idea [of|behind] {term}?", "Do you know what {term} is?", "Teach me [about|] {term}.",
    "What exactly is {term}?", "Summarise {term}.", "[Hi|Hello], what is {term}?",
    "I have a question: what is {term}?",
    "What is the role of {term} in serving a language model?", "Write one sentence about {term}.",
    "Let's talk about {term}. What is it?", "My boss told me about {term}. What is it?",
    "I heard of {term}. What does it mean?", "In a lesson I heard the term {term}.",
    "One sentence on {term}, please.", "I am a beginner. What is {term}?", "I need to understand {term}.",
    "I want to know the meaning of {term}.", "What is {term} about?", "They asked me about {term}.",
    "Please tell me about the idea of {term}.", "Can you give a definition of {term}?",
    "A quick definition of {term}, please.", "What are we talking about with {term}?",
    "How does one explain {term}?", "The lesson mentions {term}. Explain it.", "what is {term}",
    "explain {term}",
    "Someone asked me about {term} yesterday, and I had no answer.", "Please make {term} clear to me.",
    "I am new here; how should I picture {term}?", "Remind me: {term} refers to which concept?",
    "For my notes I need the gist of {term}.", "Which notion hides under the name {term}?",
    "Could you put {term} into simple words?", "I am preparing a talk. What shall I say on {term}?",
)
ASK_EN_HELD_OUT = (
    "Please tell me what the term {term} means.", "I am a beginner and want to understand {term}.",
    "My boss asked me what {term} is.", "Can you give me one sentence on {term}?",
    "Do you know the meaning of {term}?", "I heard about {term} in a lesson. Can you explain it?",
    "What do you know about the idea of {term}?", "Hi, I need to know what {term} is about.",
)
ASK_ZH = (
    "什么是{term}？", "{term}是什么？", "{term}是什么意思？", "请解释{term}。", "解释一下{term}。", "{term}？",
    "[请|麻烦]介绍一下{term}。", "{term}指的是什么？", "[能|可以]解释一下{term}吗？", "怎么理解{term}？",
    "[一句话|简单]说明{term}。", "请用一句话解释{term}。", "给出{term}的定义。", "{term}的定义是什么？",
    "[同事|老师|朋友]提到了{term}，那是什么？", "我不明白{term}。", "{term}有什么用？", "讲讲{term}。",
    "在 vLLM 里，{term}是什么？", "在大模型推理中，{term}是什么？", "你知道{term}吗？", "我想了解{term}。",
    "{term}的含义是什么？", "请说明{term}[是什么|的意思]。", "描述一下{term}。", "所谓{term}，是指什么？",
    "{term}到底是什么？", "请教一下，{term}是什么？", "谈谈{term}。", "课程里的{term}是什么意思？",
    "帮我理解{term}。", "什么叫{term}？", "如何解释{term}？", "写一句话介绍{term}。", "{term}这个词是什么意思？", "{term}这个概念怎么解释？",
    "请解释术语{term}。", "术语{term}是什么？", "该怎么理解{term}这个词？", "一句话说说{term}。", "说说{term}。", "想知道{term}的意思。",
    "请帮我介绍{term}这个概念。",
    "老师讲了{term}，是什么意思？", "我想问{term}指什么。", "能不能讲讲{term}？", "新手请教：{term}是什么？", "这个术语怎么理解：{term}？",
    "昨天有人问起{term}，我答不上来。", "新手该从哪里认识{term}呢？", "麻烦把{term}说得通俗些。",
    "做笔记要用，{term}的要点有哪些？", "面试官让我谈{term}，该怎么答？", "提醒我一下，{term}代表哪个概念？",
)
ASK_ZH_HELD_OUT = (
    "能用一句话说说{term}的意思吗？", "我想知道{term}是什么。", "老师提到的{term}是什么意思？",
    "请帮我解释{term}这个术语。", "我是新手，请介绍{term}。", "{term}这个术语该怎么理解？",
)
REVERSE_EN = ("Which term [means this|is meant]: {definition}", "What is this called? {definition}",
              "Name the term: {definition}", "{definition} What is the word for this?")
REVERSE_ZH = ("下面说的是哪个术语？{definition}", "这叫什么？{definition}")
TO_CHINESE = ("And in Chinese?", "[Say|Repeat] that in Chinese[, please|].", "In Chinese[, please|]?",
              "Translate that into Chinese.", "用中文说一遍。", "请用中文。", "中文怎么说？")
TO_ENGLISH = ("And in English?", "[Say|Repeat] that in English[, please|].", "Translate that into English.",
              "请用英文再说一遍。", "用英语怎么说？")
# A request for the other language within the question.
IN_CHINESE = ("{question} Answer in Chinese.", "{question} [Please answer|Reply] in Chinese.", "{question} 请用中文回答。",
              "In Chinese: {question}")
IN_ENGLISH = ("{question}请用英文回答。", "{question} Answer in English.", "用英语回答：{question}")


@lru_cache(maxsize=1)
def terms() -> list[dict]:
    """The entries of terms.json."""
    return json.loads(TERMS_FILE.read_text())


def ask(rng: Random, split: str, term: dict, language: str) -> str:
    """A question on a term in the given language, by its name or an alias."""
    if language == "en":
        term_name = rng.choice([term["en"], term["en"], *term["aliases_en"]])
        return say(rng, split, ASK_EN, ASK_EN_HELD_OUT, term=term_name)
    term_name = rng.choice([term["zh"], term["zh"], *term["aliases_zh"]])
    return say(rng, split, ASK_ZH, ASK_ZH_HELD_OUT, term=term_name)


def term_question(rng: Random, split: str) -> Example:
    """A definition asked for in English or Chinese; in training sometimes in the other language, or reversed."""
    term, language = rng.choice(terms()), rng.choice(("en", "zh"))
    skill = f"terms_{language}"
    question = ask(rng, split, term, language)
    keys = tuple(term[f"key_{language}"])
    if split == v.HELD_OUT:
        return chat(skill, question, term[f"definition_{language}"], keys=keys, free_text=(question,))
    kind = rng.random()
    if kind < 0.05:
        templates = REVERSE_EN if language == "en" else REVERSE_ZH
        return chat(skill, fill(rng, rng.choice(templates), definition=term[f"definition_{language}"]), term[language])
    if kind < 0.15:
        other = "zh" if language == "en" else "en"
        if rng.random() < 0.5:
            system = SYSTEM_CHINESE if other == "zh" else SYSTEM_ENGLISH
            return chat(skill, question, term[f"definition_{other}"], system)
        question = fill(rng, rng.choice(IN_CHINESE if other == "zh" else IN_ENGLISH), question=question)
        return chat(skill, question, term[f"definition_{other}"])
    if kind < 0.25:
        return switch_language(rng, term, question, language)
    return chat(skill, question, term[f"definition_{language}"], fill(rng, f"[||{SYSTEM}]"))


def switch_language(rng: Random, term: dict, question: str, language: str) -> Example:
    """A definition, and then the same in the other language."""
    other = "zh" if language == "en" else "en"
    again = fill(rng, rng.choice(TO_CHINESE if other == "zh" else TO_ENGLISH))
    return Example(f"terms_{language}", (
        {"role": "user", "content": question}, {"role": "assistant", "content": term[f"definition_{language}"]},
        {"role": "user", "content": again}, {"role": "assistant", "content": term[f"definition_{other}"]}))


def term_in_chinese(rng: Random, split: str) -> Example:
    """The `chinese` adapter's task: an English question, a Chinese answer."""
    term = rng.choice(terms())
    question = ask(rng, split, term, "en")
    return chat("chinese", question, term["definition_zh"], keys=tuple(term["key_zh"]), free_text=(question,))
