"""Shell commands that messages print: each can be pasted into a shell as it stands."""

from __future__ import annotations

import os
import shlex


def format_command(*words: str | os.PathLike[str]) -> str:
    """Return a `reszoo` command line that a shell reads back as `words`.

    A word with a character that is not printable is written as `$'...'`, which bash and zsh read,
    so that the command stays on one line. A path (`os.PathLike`) that begins with a dash is written
    as `./-...`, so that it is not read as an option.

    Args:
        *words: the words after `reszoo`; a path is given as `Path`, everything else as text.
    """
    return " ".join(["reszoo", *(_quoted(_plain(word)) for word in words)])


def format_resume(
    command: str, run_dir: str | os.PathLike[str], *more: str | os.PathLike[str]
) -> str:
    """Return the command that resumes the run or search in `run_dir`.

    Args:
        command: "train" or "tune".
        run_dir: the folder.
        *more: further words, such as "--data" and "folder:PATH".
    """
    path = os.fspath(run_dir)
    return format_command(command, "--resume", "--run-dir", _Path(path), *more)


class _Path(str):
    """Text that is a path."""


def _plain(word: str | os.PathLike[str]) -> str:
    text = os.fspath(word)
    is_path = isinstance(word, _Path) or not isinstance(word, str)
    return f"./{text}" if is_path and text.startswith("-") else text


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(_escaped(character) for character in word)
    return f"$'{escaped}'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
