"""Write files and folders whole or not at all, and check paths before long work."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reszoo.errors import ReszooError

# Of a suffix that a temporary name keeps. Longer ones are not those of a format.
LONGEST_SUFFIX = 16

# TensorFlow finds the variables of a SavedModel by a pattern, in which these are special.
PATTERN_CHARACTERS = "[]*?\\"


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Return `path` with a leading `~` replaced by the home folder.

    Raises:
        ReszooError: the path begins with `~` and the home folder is not known, as in a container
            that runs under an unnamed user id without HOME.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ReszooError(
            f"{os.fspath(path)}: the home folder is unknown; expected the environment variable "
            "HOME, or a path without '~'. Example: export HOME=/tmp"
        ) from None


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path, which becomes `path` on success and is removed on failure."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= LONGEST_SUFFIX else ""
    handle, name = tempfile.mkstemp(prefix=".part-", suffix=suffix, dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `path` on success and is removed on failure.

    `path` may exist only as an empty directory.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    try:
        yield part
        part.chmod(0o777 & ~_umask())
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def plain_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path of the folder `path` that TensorFlow takes literally, for the block.

    TensorFlow reads `[`, `]`, `*`, `?` and a backslash in the path of a SavedModel as a pattern,
    and rejects paths that are not UTF-8. For such a path this is a symbolic link in a temporary
    folder; for any other it is `path` itself.
    """
    target = Path(path)
    if is_plain(target.absolute()):
        yield target
        return
    place = next(
        (place for place in (tempfile.gettempdir(), "/tmp", "/var/tmp") if is_plain(place)), None
    )
    with tempfile.TemporaryDirectory(prefix="reszoo-link-", dir=place) as folder:
        link = Path(folder) / "folder"
        link.symlink_to(target.absolute(), target_is_directory=True)
        yield link


def is_plain(path: str | os.PathLike[str]) -> bool:
    """Return whether TensorFlow can load a SavedModel from `path`."""
    text = os.fspath(path)
    return _is_utf8(text) and not any(character in text for character in PATTERN_CHARACTERS)


def check_output(path: str | os.PathLike[str], what: str, *, occupied: bool = True) -> None:
    """Check that a folder or file can be made at `path`; nothing is written.

    Args:
        path: the folder or file that long work is to leave.
        what: what a message calls it, such as "run folder".
        occupied: whether a file or a folder with something in it may be there already.

    Raises:
        ReszooError: if the path is not UTF-8, too long, below a file, or in a folder that cannot be
            written.
    """
    target = Path(path)
    if not _is_utf8(os.fspath(target)):
        raise ReszooError(
            f"{what}: {os.fsencode(target)!r} is invalid; expected a path in UTF-8. Give another "
            "name"
        )
    if "\0" in os.fspath(target):
        raise ReszooError(
            f"{what}: {os.fspath(target)!r} is invalid; expected a path without a null character"
        )
    try:
        found = target.absolute()
        while not os.path.lexists(found):
            found = found.parent
        below = target.absolute().relative_to(found).parts
        longest = os.pathconf(found, "PC_NAME_MAX") if found.is_dir() else 0
    except OSError as error:
        raise ReszooError(f"{what}: {_shown(target)} cannot be made: {error.strerror}") from error
    if long := [part for part in below if longest and len(os.fsencode(part)) > longest]:
        raise ReszooError(
            f"{what}: a name in {_shown(target)} has {len(os.fsencode(long[0]))} bytes; expected "
            f"at most {longest}"
        )
    if below and not found.is_dir():
        raise ReszooError(
            f"{what}: {_shown(target)} cannot be made: {_shown(found)} is not a folder"
        )
    folder = found if found.is_dir() else found.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ReszooError(
            f"{what}: {_shown(target)} cannot be written: no permission to write in "
            f"{_shown(folder)}"
        )
    if not occupied and not below and (not found.is_dir() or any(found.iterdir())):
        state = "is not empty" if found.is_dir() else "is a file"
        raise ReszooError(f"{what}: {_shown(target)} {state}; give a new folder")


def check_outside(path: str | os.PathLike[str], data: str | os.PathLike[str], what: str) -> None:
    """Check that an output folder is not in a folder of class folders, where it would be a class.

    Hidden folders are allowed, because listing classes skips them.

    Raises:
        ReszooError: if `path` is the folder `data` or lies in it.
    """
    target, root = expand_user(path).resolve(), expand_user(data).resolve()
    inside = root.is_dir() and (target == root or root in target.parents)
    if inside and not any(part.startswith(".") for part in target.relative_to(root).parts):
        raise ReszooError(
            f"{what}: {_shown(Path(path))} is invalid; expected a folder outside the data, "
            f"{_shown(root)}, where it would be read as a class"
        )


def check_space(path: str | os.PathLike[str], needed: int, what: str) -> None:
    """Check that the file system of `path` has `needed` bytes left.

    Raises:
        ReszooError: if it has less.
    """
    found = Path(path).absolute()
    while not found.exists():
        found = found.parent
    usage = shutil.disk_usage(found)
    if usage.total and usage.free < needed:
        raise ReszooError(
            f"{what}: {_shown(Path(path))} has {usage.free / 1e6:,.0f} MB left; expected at least "
            f"{needed / 1e6:,.0f} MB for checkpoints. Free some space, or give a folder on another "
            "disk"
        )


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` to `path` as indented JSON with a closing newline, whole or not at all.

    Text that UTF-8 does not hold, such as a file name in another encoding, is escaped; `json.loads`
    reads it back.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not _is_utf8(text):
        text = json.dumps(value, indent=2)
    write_text(path, text + "\n")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: Path) -> str:
    """Return a path for a message, on one line."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
