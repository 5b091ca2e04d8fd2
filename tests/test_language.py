"""Plain language in documents, docstrings, comments and messages, as CONTRIBUTING.md asks."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Pattern -> what to write instead.
DENIED = {
    r"go(es|ing)? on (from|where|with)": "resume, continue",
    r"weigh(s|ed|ing)?": "compare",
    r"tells?|told|telling": "report, print",
    r"bears?|bore": "support",
    r"beside": "next to, compared with, in addition to",
    r"(?<!there )is no (?!longer\b|worse\b)\w+": "is not a, does not have",
    r"has not(?! \w+(ed|n|t)\b)|what cannot be": "does not have",
    r"a (row|step|class|device|layer|replica|block|parameter|worker|image|file|trial) a \w+": "per",
    r"nets?|waists?|knobs?|verbs?": "model, hyperparameter, command",
    r"pictures?(?! of\b)": "image, photo",
    r"licen[c]e[ds]?|colour\w*": "American spelling",
    r"\w*(normalis|synchronis|regularis|optimisa|optimise|quantis|initialis)\w*": "American spelling",
    r"hand(s|ed)? over|given over|left out of?|leaves? out": "export, skip, exclude",
    r"refus(e|es|ed|al|als|ing)": "reject",
    r"whoever|lest|kin|thaw(s|ed|ing)?": "plain words",
    r"multiply-adds?": "MACs",
}
DENIED_WORDS = re.compile(r"\b(?:" + "|".join(DENIED) + r")\b", re.IGNORECASE)

# Names of files and functions of others, and quotations.
EXCEPTIONS = re.compile(
    r"`[^`]*`"  # code
    r"|connection refused|refused connection|refuse HEAD"
    r"|1 MAC = 1 multiply-add"
    r"|^net run run_dir checkpoint$"  # names that users may type
)


def prose_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each comment and of each string that contains a space."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def prose_of_notebook(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number of the cell, line) of each cell that is text, and of comments in code."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"], 1):
        for line in cell["source"]:
            if cell["cell_type"] == "markdown" or "#" in line:
                yield number, line


def prose_of_text(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of a document, without its code blocks; of a recipe, its comments."""
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        if not fenced and not line.startswith("    ") and (path.suffix == ".md" or "#" in line):
            yield number, line


PROSE = {".py": prose_of_code, ".ipynb": prose_of_notebook}
CODE = sorted((ROOT / "reszoo").rglob("*.py"))
TEXT = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("docs/*.ipynb"),
        *ROOT.glob("recipes/**/*.md"),
        *ROOT.glob("recipes/**/*.toml"),
    ]
)


@pytest.mark.parametrize("path", [*CODE, *TEXT], ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_avoids_denied_words(path: Path) -> None:
    prose = PROSE.get(path.suffix, prose_of_text)(path)
    if path.name == "CONTRIBUTING.md":  # its glossary lists the denied words
        prose = ((number, line) for number, line in prose if not line.startswith("|"))
    found = [
        f"{path.name}:{number}: {match[0]!r} in {text[max(0, match.start() - 30) : match.end() + 30]!r}"
        for number, text in prose
        for match in DENIED_WORDS.finditer(EXCEPTIONS.sub("", text))
    ]
    assert not found, "\n".join(found)


def test_a_denied_word_is_found() -> None:
    for text in (
        "it goes on from step 3",
        "a row a class",
        "the nets",
        "is no file",
        "told in full",
    ):
        assert DENIED_WORDS.search(text), text
    for text in (
        "the shortcut is no longer needed",
        "a layer of a model",
        "internet",
        "a picture of it",
    ):
        assert not DENIED_WORDS.search(text), text
