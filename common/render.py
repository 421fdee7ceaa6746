"""Everything that is generated from results files: results.md, figures, and the marked blocks of the lessons.

`python -m common.render` writes them; with `--check` it only says which differ, and fails if any does.

Two kinds of mark stand in a Markdown file:

    <!-- table EXPERIMENT HARDWARE [columns=a,b] [where=column:value,…] -->
    (a table)
    <!-- end table -->

    <!-- value EXPERIMENT HARDWARE COLUMN [where=column:value,…] [format=.1f] -->1.0<!-- end value -->

Instead of a COLUMN a value may be the experiment's first prediction, what was measured for it, or a setting:
`predicted:1`, `measured:1`, `setting:users`. A mark of another chapter names it first: `3.quickstart/startup`.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from common import results
from common.chapters import ROOT, chapters, load
from common.problems import Problem
from common.screen import number

TABLE = re.compile(r"(<!-- table (\S+) (\S+)([^>]*?)-->)\n.*?(<!-- end table -->)", re.DOTALL)
VALUE = re.compile(r"(<!-- value (\S+) (\S+) (\S+)([^>]*?)-->).*?(<!-- end value -->)", re.DOTALL)


def table(rows: list[dict], columns: list[str] | None = None) -> str:
    """Rows as a Markdown table."""
    if not rows:
        return "(no rows)"
    columns = columns or list(rows[0])
    right = [all(isinstance(row[c], (int, float)) or row[c] is None for row in rows) for c in columns]
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join(" ---: " if r else " --- " for r in right) + "|"]
    for row in rows:
        cells = (number(row[column]).replace("|", "\\|").replace("\n", " ") for column in columns)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def results_page(folder: Path) -> str:
    """results.md of a chapter: every record with where, when and how it was made."""
    figures = load(folder / "demo.py").chapter.figures
    recorded = results.read_all(folder)
    lines = [
        f"# {folder.name}: results",
        "",
        "Generated from `results/` by `make results`; do not edit. Ratios carry over to other machines better than",
        "absolute figures, but not where one side waits for the GPU and the other for Python. A dash means: not",
        "measured, or not there on this hardware.",
    ]
    for slug, stored in recorded.items():
        lines += ["", f"## {slug}: {stored['hardware']}"]
        for name, record in stored["experiments"].items():
            lines += [
                "",
                f"### {name} ({slug})",
                "",
                record["question"],
                "",
                table(record["rows"]),
                "",
                record["reading"],
            ]
            for figure in figures:
                if figure.experiment == name:
                    lines += ["", f"![{figure.title}]({figure.file(Path('.'), slug).as_posix()})"]
            if record["predictions"]:
                lines += ["", "| prediction | predicted | measured | from |", "| --- | ---: | ---: | --- |"]
                for p in record["predictions"]:
                    measured = number(p.get("measured"))
                    because = p["because"].replace("|", "\\|")
                    lines.append(f"| {p['name']} [{p['unit']}] | {number(p['value'])} | {measured} | {because} |")
            lines += ["", _provenance(record)]
            units = [
                f"`{c}` {m['meaning']}" + (f" [{m['unit']}]" if m["unit"] else "") for c, m in record["columns"].items()
            ]
            lines += ["", "<details><summary>columns</summary>", "", *(f"- {unit}" for unit in units), "", "</details>"]
    return "\n".join(lines) + "\n"


def _provenance(record: dict) -> str:
    model = record["model"]
    weights = "random weights" if model["weights"] == "random" else f"weights {model['weights']}"
    hardware = record["hardware"]
    settings = ", ".join(f"{name} {number(value)}" for name, value in record["settings"].items())
    versions = ", ".join(f"{name} {value}" for name, value in record["versions"].items())
    dirty = " with uncommitted changes" if record["dirty"] else ""
    return (
        f"{record['date']}, {hardware['count']} × {hardware['name']}, {hardware['cores']} cores"
        + (f", {hardware['python_ms']} ms for a fixed piece of Python" if "python_ms" in hardware else "")
        + (f", driver {hardware['driver']}" if hardware["driver"] else "")
        + f"; {model['name']}, {weights}, {model['dtype']}; {settings}; {versions}; "
        f"commit {record['commit'][:12]}{dirty}; `{record['command']}`; {record['seconds']:.0f} s."
    )


def _selection(folder: Path, experiment: str, slug: str, settings: str) -> tuple[dict | None, dict[str, str]]:
    """The record that a mark asks for, with those of its rows, or None where there is none; and the mark's settings."""
    if "/" in experiment:
        chapter, experiment = experiment.split("/")
        folder = ROOT / chapter
    options = dict(re.findall(r"(columns|where|format)=(\S+)", settings))
    if " ".join(f"{name}={value}" for name, value in options.items()) != " ".join(settings.split()):
        raise ValueError(f"settings '{settings.strip()}'")
    record = results.read_all(folder).get(slug, {}).get("experiments", {}).get(experiment)
    if record is None:
        return None, options
    wanted = [pair.split(":", 1) for pair in options.get("where", "").split(",") if pair]
    rows = [row for row in record["rows"] if all(str(row[column]) == value for column, value in wanted)]
    return record | {"rows": rows}, options


def _value(record: dict, column: str) -> object:
    """One value of a record: a prediction, what was measured for it, a setting, or of its only row a column."""
    kind, _, name = column.partition(":")
    if not name:
        if len(record["rows"]) != 1:
            raise ValueError(f"it fits {len(record['rows'])} rows, and its where= must name one")
        return record["rows"][0][column]
    if kind == "setting":
        return record["settings"][name]
    numbered = dict(enumerate(record["predictions"], start=1))
    return numbered[int(name)][{"predicted": "value", "measured": "measured"}[kind]]


def fill(text: str, folder: Path) -> str:
    """A Markdown text with its marks filled from the results of `folder`. Raises Problem for a mark that fits none."""

    def checked(filled: Callable[[re.Match], str]) -> Callable[[re.Match], str]:
        def replace(match: re.Match) -> str:
            try:
                return filled(match)
            except (KeyError, ValueError) as error:
                raise Problem(
                    f"{folder.name}: {match[1]} asks for what is not there ({type(error).__name__}: {error}).",
                    "Its columns are those of the record; it may have columns=a,b where=column:value,… and format=.1f; "
                    "a value may also be predicted:1, measured:1 or setting:NAME.",
                ) from None

        return replace

    def fill_table(match: re.Match) -> str:
        record, options = _selection(folder, match[2], match[3], match[4])
        columns = options["columns"].split(",") if "columns" in options else None
        body = "(not recorded yet)" if record is None else table(record["rows"], columns)
        return f"{match[1]}\n{body}\n{match[5]}"

    def fill_value(match: re.Match) -> str:
        record, options = _selection(folder, match[2], match[3], match[5])
        if record is None:
            return f"{match[1]}(not recorded yet){match[6]}"
        value = _value(record, match[4])
        shown = format(value, options["format"]) if "format" in options and value is not None else number(value)
        return f"{match[1]}{shown}{match[6]}"

    for kind, pattern in (("table", TABLE), ("value", VALUE)):
        begun, whole = text.count(f"<!-- {kind} "), len(pattern.findall(text))
        if begun != whole:
            raise Problem(
                f"{folder.name}: of {begun} {kind} marks {whole} are whole: one lacks its end, or a word.",
                f"Write <!-- {kind} EXPERIMENT HARDWARE … --> and <!-- end {kind} -->.",
            )
    return VALUE.sub(checked(fill_value), TABLE.sub(checked(fill_table), text))


def outputs() -> dict[Path, str]:
    """Every generated text, by file."""
    texts = {}
    for folder in chapters(ROOT):
        texts[folder / "results.md"] = results_page(folder)
        for page in sorted(folder.glob("*.md")):
            if page.name != "results.md":
                texts[page] = fill(page.read_text(), folder)
    for page in (ROOT / "README.md", ROOT / "README.zh.md"):
        if page.exists():
            texts[page] = fill(page.read_text(), ROOT)
    return texts


def outdated_figures() -> list[tuple]:
    """(figure, folder, slug, record) for each picture that is missing or was drawn from something else."""
    found = []
    for folder in chapters(ROOT):
        for slug, stored in results.read_all(folder).items():
            for figure in load(folder / "demo.py").chapter.figures:
                record = stored["experiments"].get(figure.experiment)
                if record and not figure.is_current(folder, slug, record):
                    found.append((figure, folder, slug, record))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.render", description="Write what results files generate.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything would change")
    options = parser.parse_args()
    try:
        changed = {p: text for p, text in outputs().items() if not p.exists() or p.read_text() != text}
        figures = outdated_figures()
        for page, text in changed.items() if not options.check else ():
            results.write(page, text)
        for figure, folder, slug, record in figures if not options.check else ():
            figure.draw(folder, slug, record)
        records = [name for folder in chapters(ROOT) for name in results.stale(folder)]
    except Problem as problem:
        sys.exit(f"{problem}\n{problem.fix}")
    for page in changed:
        print(("differs: " if options.check else "wrote ") + str(page.relative_to(ROOT)))
    for figure, folder, slug, _ in figures:
        print(("differs: " if options.check else "drew ") + str(figure.file(folder, slug).relative_to(ROOT)))
    for name in records:
        print(f"recorded before its code changed: {name}")
    sys.exit(1 if options.check and (changed or figures) else 0)


if __name__ == "__main__":
    main()
