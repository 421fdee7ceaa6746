"""Write 0.intro/glossary.md from terms.json, the same file that course-lm learns its definitions from.

    python -m common.course_lm.glossary
"""

import json
from pathlib import Path

TERMS_FILE = Path(__file__).with_name("terms.json")
GLOSSARY_FILE = Path(__file__).parents[2] / "0.intro" / "glossary.md"

GROUPS = {
    "llm": ("Language models", "大语言模型"),
    "gpu": ("GPUs", "GPU"),
    "inference": ("Inference and how it is measured", "推理及其度量"),
    "vllm": ("vLLM", "vLLM"),
    "serving": ("Serving", "服务"),
    "quantisation": ("Quantisation", "量化"),
    "parallelism": ("Parallelism", "并行"),
    "operations": ("Operations", "运维"),
}

HEADER = """\
# Glossary · 术语表

<!-- Generated from common/course_lm/terms.json by `python -m common.course_lm.glossary`. Do not edit. -->

{count} terms of the course in English and Chinese. Other names of a term stand in brackets. A lesson can link
to a term by its id, for example [`glossary.md#kv_cache`](#kv_cache). course-lm, the course's own small model,
learned these same definitions, so you can ask it for them.

本表收录课程用到的 {count} 个术语，中英文对照，括号内是别名。课文可以用术语的编号直接链接到它，例如
[`glossary.md#kv_cache`](#kv_cache)。课程自带的小模型 course-lm 学的就是这些定义，可以直接问它。
"""


def read_terms() -> list[dict]:
    """The entries of terms.json, in the order of the file."""
    return json.loads(TERMS_FILE.read_text(encoding="utf-8"))


def render(terms: list[dict]) -> str:
    """The glossary as Markdown: a table for each group, its terms sorted by their English names."""
    contents = ["| group | 分类 | terms · 条数 |", "| --- | --- | --- |"]
    tables = []
    for group, (english, chinese) in GROUPS.items():
        members = sorted((t for t in terms if t["group"] == group), key=lambda t: t["en"].casefold())
        contents.append(f"| [{english}](#group-{group}) | {chinese} | {len(members)} |")
        title = english if english == chinese else f"{english} · {chinese}"
        tables.append(f'\n<a id="group-{group}"></a>\n\n## {title}\n')
        tables += ["| term | 术语 | definition | 定义 |", "| --- | --- | --- | --- |"]
        tables += [_row(term) for term in members]
    return "\n".join([HEADER.format(count=len(terms)), *contents, *tables]) + "\n"


def _row(term: dict) -> str:
    english = term["en"]
    if term["aliases_en"]:
        english += f" ({', '.join(term['aliases_en'])})"
    chinese = term["zh"]
    seen = {name.casefold() for name in (term["en"], *term["aliases_en"])}
    if aliases := [alias for alias in term["aliases_zh"] if alias.casefold() not in seen]:
        chinese += f"（{'、'.join(aliases)}）"
    cells = (english, chinese, term["definition_en"], term["definition_zh"])
    first, *others = (cell.replace("|", r"\|") for cell in cells)
    return f'| <a id="{term["id"]}"></a>{first} | ' + " | ".join(others) + " |"


if __name__ == "__main__":
    GLOSSARY_FILE.write_text(render(read_terms()), encoding="utf-8")
    print(f"wrote {GLOSSARY_FILE}")
