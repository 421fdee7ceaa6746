"""What of the code an experiment depends on, as one hash: a record whose hash has changed is older than its code.

From the experiment's function on, each name is followed to its definition: in the demo, in other files of the
chapter, in `common`. So a module may grow without making a record old that never used what is new. Two ways lead
where names do not: `run.engine` and `run.serve`, and a text that names a file of the chapter or a part of `common`
(a script run as a process of its own, a scheduler class given to vLLM).

Comments, docstrings and type hints do not count; neither does what only shows results or refuses to begin, nor what
only the short form does: records are of full runs.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

COMMON = Path(__file__).resolve().parent
UNMEASURED = {"chapter", "columns", "dependencies", "figures", "problems", "render", "results", "screen"}
UNMEASURED_FUNCTIONS = {"preflight"}
STARTS = {"engine", "serve"}  # methods of Run that start what is measured


class _Bare(ast.NodeTransformer):
    """Takes docstrings, type hints and the short form away: `smoke=` of `run.size`, and what `run.smoke` decides."""

    def _without_docstring(self, node):
        self.generic_visit(node)
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return node

    visit_ClassDef = _without_docstring

    def visit_FunctionDef(self, node):
        node.returns = None
        return self._without_docstring(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_Call(self, node):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "size":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "smoke"]
        return self.generic_visit(node)

    def visit_Attribute(self, node):
        self.generic_visit(node)
        of_run = isinstance(node.value, ast.Name) and node.value.id == "run"
        return ast.Constant(False) if of_run and node.attr == "smoke" else node

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        known = isinstance(node.op, ast.Not) and _is_known(node.operand)
        return ast.Constant(not node.operand.value) if known else node

    def visit_BoolOp(self, node):
        self.generic_visit(node)
        decides = isinstance(node.op, ast.Or)  # `x or True` is decided, and so is `x and False`
        if any(_is_known(value) and value.value is decides for value in node.values):
            return ast.Constant(decides)
        node.values = [value for value in node.values if not _is_known(value)]
        return node if len(node.values) > 1 else node.values[0] if node.values else ast.Constant(not decides)

    def _only_what_is_done(self, node):
        self.generic_visit(node)
        if not _is_known(node.test):
            return node
        return node.body if node.test.value else node.orelse

    visit_If = visit_IfExp = _only_what_is_done


def _is_known(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _shape(node: object) -> object:
    """An AST without positions and empty fields. `ast.dump` will not do: Pythons differ in the fields it writes."""
    if isinstance(node, ast.AST):
        fields = [(name, _shape(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return type(node).__name__, fields
    return [_shape(part) for part in node] if isinstance(node, list) else node


class _Module:
    """One source file: what it defines and what it imports of the course, by the names these have in it."""

    def __init__(self, file: Path):
        self.folder = file.parent
        self.defined: dict[str, ast.stmt] = {}
        tree = _Bare().visit(ast.parse(file.read_text()))
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.defined[node.name] = node
                if isinstance(node, ast.ClassDef) and (file, node.name) == (COMMON / "run.py", "Run"):
                    self.defined |= {f"Run.{m.name}": m for m in node.body if isinstance(m, ast.FunctionDef)}
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self.defined |= {n.id: node for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        self.imported = self.imports_in(tree.body)

    def imports_in(self, nodes: list[ast.AST]) -> dict[str, tuple[Path, str]]:
        """From each name that an import among the nodes binds to (file, name in it); the name is "" for all of it."""
        found = {}
        for node in nodes:
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            for alias in node.names:
                within = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                # It may be a module (from common import load) or something in one (from common.load import Clients).
                for dotted, name in ((".".join([*within, alias.name]), ""), *((m, alias.name) for m in within)):
                    file = self.file_of(dotted)
                    if file:
                        found[alias.asname or alias.name] = file, name
                        break
        return found

    def file_of(self, dotted: str) -> Path | None:
        """The course's file of a module, if it is one of `common` or of the chapter's folder."""
        root = COMMON.parent if dotted.startswith("common.") else self.folder
        file = root / (dotted.replace(".", "/") + ".py")
        return file if dotted and file.exists() else None

    def named_by(self, text: object) -> tuple[Path, str] | None:
        """What a text names: a file of this folder, or a module or a definition of `common`; else None."""
        if not isinstance(text, str):
            return None
        if text.endswith(".py") and (self.folder / text).is_file():
            return self.folder / text, ""
        if not text.startswith("common."):
            return None
        module, _, name = text.rpartition(".")
        return next(((file, n) for m, n in ((text, ""), (module, name)) if (file := self.file_of(m))), None)

    def used_by(self, definition: ast.stmt) -> set[tuple[Path | None, str]]:
        """(file, name) of all that a definition names; the file is None for this one."""
        imported = self.imported | self.imports_in(list(ast.walk(definition)))
        found: set[tuple[Path | None, str]] = set()
        of_modules = set()
        for node in ast.walk(definition):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                file, name = imported.get(node.value.id, (None, None))
                if name == "":
                    found.add((file, node.attr))
                    of_modules.add(node.value)
                elif node.value.id == "run" and node.attr in STARTS:
                    found.add((COMMON / "run.py", f"Run.{node.attr}"))
        for node in ast.walk(definition):
            if isinstance(node, ast.Name) and node not in of_modules:
                found.add(imported.get(node.id, (None, node.id)))
            elif isinstance(node, ast.Constant) and (named := self.named_by(node.value)):
                found.add(named)
        return found


@cache
def _module(file: Path, changed_ns: int) -> _Module:
    return _Module(file)


def source_hash(demo: Path, experiment: str) -> str:
    """16 digits of the hash of an experiment's function and of all that it uses of the course.

    Raises OSError or SyntaxError for a file that can't be read.
    """
    demo = demo.resolve()
    reached: set[tuple[Path, str]] = set()
    waiting, shapes = [(demo, experiment)], set()
    while waiting:
        file, name = waiting.pop()
        unmeasured = file.parent == COMMON and (file.stem in UNMEASURED or name in UNMEASURED_FUNCTIONS)
        if (file, name) in reached or unmeasured:
            continue
        reached.add((file, name))
        module = _module(file, file.stat().st_mtime_ns)
        if name == "":
            waiting += [(file, each) for each in module.defined]
        elif name in module.defined:
            shapes.add(repr(_shape(module.defined[name])))
            waiting += [(where or file, each) for where, each in module.used_by(module.defined[name])]
        elif name in module.imported:
            waiting.append(module.imported[name])
    return hashlib.sha256("".join(sorted(shapes)).encode()).hexdigest()[:16]
