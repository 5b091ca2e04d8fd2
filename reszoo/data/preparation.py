"""Prepare a dataset for reading: download it, or use archives that a person already has."""

from __future__ import annotations

import os
import shlex
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from reszoo.commands import format_command
from reszoo.data.catalog import EMBEDDED, KNOWN, data_home, is_prepared
from reszoo.data.cifar import Place, find_cifar, load_cifar, read_contents
from reszoo.data.corruption import report_corrupt
from reszoo.errors import ReszooError
from reszoo.files import atomic_dir
from reszoo.loading import quiet_logger
from reszoo.references import is_reference

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# Seconds for a server's first answer, before a download that would otherwise be retried for long.
TIMEOUT = 10

Archives: TypeAlias = dict[str, tuple[str, int]]
"""From file names to (url, bytes)."""


def prepare_dataset(
    name: str, *, from_dir: Path | None = None, data_dir: Path | None = None
) -> str:
    """Prepare a dataset and describe it. Nothing half-prepared is left under its name.

    Args:
        name: A dataset, or folder:PATH, of which every image is decoded.
        from_dir: Folder with the dataset's archives under their original names. Nothing is
            downloaded. CIFAR is also taken as a file or folder of another form; see `find_cifar`.
        data_dir: Folder of prepared datasets; by default `data_home()`.

    Returns:
        Lines that describe the dataset.

    Raises:
        ReszooError: If a file is missing, damaged, of the wrong size or content, or cannot be
            downloaded.
    """
    if name in EMBEDDED or is_reference(name):
        return f"{name} needs no preparation"
    if name.startswith("folder:"):
        from reszoo.data.inspection import inspect_folder

        folder = inspect_folder(name.removeprefix("folder:"))
        paths = [os.path.join(folder.folder, path) for path in folder.corrupt]
        report_corrupt(paths, folder.count, skip=False)
        return "\n".join(folder.describe())
    from reszoo.data import tfds

    home = data_home(data_dir)
    if not is_prepared(name, home):
        if found := find_cifar(name, home):
            return f"{name} is already in {found.path}: {_check_cifar(name, found)}"
        if from_dir is not None and (found := find_cifar(name, from_dir)):
            return _copy_cifar(name, found, home)
    builder = tfds.find_builder(name, home)
    with quiet_logger("absl"):
        if builder.is_prepared():
            return f"{name} is already in {builder.data_dir}: {_counts(builder)}"
    archives = find_archives(builder, name)
    place = ("--dir", data_dir) if data_dir else ()
    command = format_command("data", "prepare", name, "--from", "DIR", *place)
    if from_dir is not None:
        _check_archives(command, archives, from_dir)
    elif builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        raise ReszooError(
            f"{name} cannot be downloaded without an account; {_advise(command, archives)}"
        )
    elif archives:
        _check_network(name, command, archives)
    _write(builder, name, command, archives, from_dir)
    return f"{name} is in {builder.data_dir}: {_counts(builder)}"


def _check_cifar(name: str, place: Place) -> str:
    splits = load_cifar(name, place).splits.items()
    return ", ".join(f"{split.count:,} {key}" for key, split in splits)


def _copy_cifar(name: str, place: Place, home: Path) -> str:
    """Check a dataset and copy its files to `home`; class folders stay where they are."""
    counts = _check_cifar(name, place)
    if place.form is None:
        path = shlex.quote(str(place.path.resolve()))
        return (
            f"{place.path} is valid: {counts}; nothing was copied. "
            f"Example: --set data.name={name} data.dir={path}"
        )
    with atomic_dir(home / place.form.folder) as part:
        for file, contents in read_contents(place).items():
            (part / file).write_bytes(contents)
    return f"{name} is in {home / place.form.folder}: {counts}"


def find_archives(builder: tfds.core.DatasetBuilder, name: str) -> Archives:
    """Return the files that a dataset is made of, as far as they are known."""
    infos = {
        (info.filename or url.rsplit("/", 1)[-1]): (url, int(info.size))
        for url, info in (builder.url_infos or {}).items()
    }
    known = KNOWN[name].archives if name in KNOWN else ()
    return {file: infos[file] for file in known if file in infos} or infos


def format_size(count: int) -> str:
    """Return a number of bytes for reading: `170,052,171 bytes, 162.2 MiB`."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count:,} bytes, {count / 1024**power:.1f} {unit}"
    return f"{count:,} bytes"


def _advise(command: str, archives: Archives) -> str:
    named = ", ".join(f"{file} ({format_size(size)})" for file, (_, size) in archives.items())
    return f"put {named or 'its archives'} in a folder DIR and run: {command}"


def _check_archives(command: str, archives: Archives, folder: Path) -> None:
    if not folder.is_dir():
        raise ReszooError(f"--from: no folder {str(folder)!r}; {_advise(command, archives)}")
    missing = {file: about for file, about in archives.items() if not (folder / file).is_file()}
    if missing:
        raise ReszooError(f"{folder} lacks {', '.join(missing)}; {_advise(command, missing)}")
    for file, (_, size) in archives.items():
        found = (folder / file).stat().st_size
        if found != size:
            raise ReszooError(
                f"{folder / file} has {found:,} bytes; expected {size:,}. It is incomplete or "
                "another file"
            )


def _check_network(name: str, command: str, archives: Archives) -> None:
    """Check that the server of the first file answers in time."""
    url, _ = next(iter(archives.values()))
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        pass  # it answered; some servers refuse HEAD
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ReszooError(
            f"{name} is absent and cannot be downloaded ({reason}); {_advise(command, archives)}"
        ) from error


def _write(
    builder: tfds.core.DatasetBuilder,
    name: str,
    command: str,
    archives: Archives,
    from_dir: Path | None,
) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from reszoo.data.tfds import first_line

    (tfds.enable_progress_bar if sys.stderr.isatty() else tfds.disable_progress_bar)()
    config = tfds.download.DownloadConfig(manual_dir=None if from_dir is None else str(from_dir))
    try:
        with quiet_logger("absl"):
            builder.download_and_prepare(download_config=config)
    except tfds.download.DownloadError as error:
        raise ReszooError(
            f"{name} cannot be downloaded ({first_line(error)}); {_advise(command, archives)}"
        ) from error
    except tfds.core.download.download_manager.NonMatchingChecksumError as error:
        raise ReszooError(
            f"{name}: the sha256 of a file is not the expected one: {first_line(error)}"
        ) from error
    except (OSError, ValueError, AssertionError, ImportError, EOFError, tf.errors.OpError) as error:
        advice = f"; {_advise(command, archives)}" if from_dir is None else ""
        raise ReszooError(f"{name} cannot be prepared: {first_line(error)}{advice}") from error


def _counts(builder: tfds.core.DatasetBuilder) -> str:
    splits = builder.info.splits.items()
    return ", ".join(f"{info.num_examples:,} {split}" for split, info in splits)
