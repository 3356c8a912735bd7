"""The lint of sentences, for `make lint`: `python .ci/sentences.py [PATH ...]`; exits with 1 where it finds something.

A docstring is a sentence: it has a subject and a verb, so it does not begin with a preposition or a conjunction, and a
few words on a public name only repeat the name. The same beginnings are refused in `help=` texts of commands.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("platform", "workloads", "serve", "cluster")
BEGINNINGS = frozenset({"Of", "So", "As", "By", "That"})
FEWEST_WORDS = 5
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(tree: ast.Module) -> Iterator[tuple[str, bool, ast.Constant]]:
    """Yield the name, publicity and text of each docstring: modules, classes, functions and attributes."""
    yield from _of_body(tree, "module", public=True)


def _of_body(
    node: ast.Module | ast.ClassDef | ast.AST, name: str, *, public: bool
) -> Iterator[tuple[str, bool, ast.Constant]]:
    body: list[ast.stmt] = getattr(node, "body", [])
    if body and (text := _text(body[0])):
        yield name, public, text
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, DEFINITIONS):
            inner = public and not statement.name.startswith("_") and not isinstance(node, ast.FunctionDef)
            yield from _of_body(statement, statement.name, public=inner)
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and following and (text := _text(following)):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            attribute = ast.unparse(target)
            yield attribute, public and not attribute.startswith("_"), text


def _text(statement: ast.stmt) -> ast.Constant | None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return statement.value if isinstance(statement.value.value, str) else None
    return None


def helps(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the texts that commands and options show as their help."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg == "help" and isinstance(keyword.value, ast.Constant):
                    yield keyword.value


def complaints(file: Path) -> Iterator[str]:
    """Yield a line for each text of a file that is no sentence."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    place = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    for name, public, text in docstrings(tree):
        words = re.findall(r"[^\W_][\w'’`.-]*", str(text.value).split("\n\n")[0])
        if words and words[0] in BEGINNINGS:
            yield f"{place}:{text.lineno}: {name}: a docstring begins with {words[0]!r}: {' '.join(words[:6])}"
        elif public and len(words) < FEWEST_WORDS:
            yield f"{place}:{text.lineno}: {name}: a public docstring of {len(words)} words: {str(text.value)!r}"
    for text in helps(tree):
        first = str(text.value).split(maxsplit=1)[:1]
        if first and first[0] in BEGINNINGS:
            yield f"{place}:{text.lineno}: help begins with {first[0]!r}: {str(text.value)[:60]}"


def main(paths: list[str]) -> int:
    """Print every complaint about the sources; return 1 if there is any."""
    folders = [Path(path).resolve() for path in paths] or [ROOT / source for source in SOURCES]
    files = sorted(file for folder in folders for file in ([folder] if folder.is_file() else folder.rglob("*.py")))
    found = [line for file in files for line in complaints(file)]
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
