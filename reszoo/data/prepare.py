"""Prepare a set for reading: download it, or take it from archives a person already has."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from reszoo.commands import format_command
from reszoo.data.catalog import EMBEDDED, KNOWN, data_home
from reszoo.errors import ReszooError

# Seconds to wait for a server's first answer, before a download that would otherwise be tried again and again.
ANSWER_WITHIN = 10


def prepare(name: str, *, from_dir: Path | None = None, data_dir: Path | None = None) -> str:
    """Prepare dataset `name` in `data_dir` (default: see `data_home`) and return a line, for a folder several, on what there is now.

    from_dir: a folder that holds the dataset's archives under their original names; nothing is then downloaded.
    `folder:PATH` is checked instead: every image is decoded, and images per class and files not read are counted. Raises
    `ReszooError`, one line, if a file is missing, of the wrong size or content, or cannot be downloaded; nothing half-prepared
    is left under the dataset's name.
    """
    if name in EMBEDDED:
        return f"{name} needs no preparing: it is always there"
    if name.startswith("folder:"):
        return _check_folder(name.removeprefix("folder:"))
    from reszoo.data import tfds as sets

    home = data_home(data_dir)
    builder = sets.find_builder(name, home)
    with sets.quiet():
        if builder.is_prepared():
            return f"{name} is already in {builder.data_dir}: {_counts(builder)}"
    files = archives(builder, name)
    advice = format_command(
        "data", "prepare", name, "--from", "DIR", *(("--dir", data_dir) if data_dir else ())
    )
    if from_dir is not None:
        _check_archives(advice, files, from_dir)
    elif builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        raise ReszooError(
            f"{name} cannot be downloaded without an account; {_wanted(advice, files)}"
        )
    elif files:
        _check_network(name, advice, files)
    _write(builder, name, advice, files, from_dir)
    return f"{name} is in {builder.data_dir}: {_counts(builder)}"


def archives(builder: Any, name: str) -> dict[str, tuple[str, int]]:
    """The files that a set is made of, as far as they are known beforehand: {file name: (url, bytes)}."""
    infos = {
        (info.filename or url.rsplit("/", 1)[-1]): (url, int(info.size))
        for url, info in (builder.url_infos or {}).items()
    }
    known = KNOWN[name].archives if name in KNOWN else ()
    return {file: infos[file] for file in known if file in infos} or infos


def size_text(count: int) -> str:
    """Bytes for reading: `170,052,171 bytes, 162.2 MiB`."""
    size, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count:,} bytes" + (f", {size:.1f} {unit}" if unit != "bytes" else "")


def _wanted(advice: str, files: dict[str, tuple[str, int]]) -> str:
    """Which files to put where, and the command that then takes them."""
    named = ", ".join(f"{file} ({size_text(size)})" for file, (_, size) in files.items())
    return f"put {named or 'its archives'} in a folder DIR and run: {advice}"


def _check_archives(advice: str, files: dict[str, tuple[str, int]], folder: Path) -> None:
    if not folder.is_dir():
        raise ReszooError(f"--from: no folder {str(folder)!r}; {_wanted(advice, files)}")
    missing = {file: about for file, about in files.items() if not (folder / file).is_file()}
    if missing:
        raise ReszooError(f"{folder} lacks {', '.join(missing)}; {_wanted(advice, missing)}")
    for file, (_, size) in files.items():
        found = (folder / file).stat().st_size
        if found != size:
            raise ReszooError(
                f"{folder / file} has {found:,} bytes where {size:,} are expected: incomplete, or another file"
            )


def _check_network(name: str, advice: str, files: dict[str, tuple[str, int]]) -> None:
    """Raise `ReszooError` if the server of the first file does not answer in time."""
    url, _ = next(iter(files.values()))
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=ANSWER_WITHIN).close()
    except urllib.error.HTTPError:
        pass  # it answered; some servers refuse HEAD
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ReszooError(
            f"{name} is absent and cannot be downloaded ({reason}); {_wanted(advice, files)}"
        ) from error


def _write(
    builder: Any, name: str, advice: str, files: dict[str, tuple[str, int]], from_dir: Path | None
) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from reszoo.data.tfds import first_line, quiet

    bars = tfds.enable_progress_bar if sys.stderr.isatty() else tfds.disable_progress_bar
    bars()
    config = tfds.download.DownloadConfig(manual_dir=None if from_dir is None else str(from_dir))
    try:
        with quiet():
            builder.download_and_prepare(download_config=config)
    except tfds.download.DownloadError as error:
        raise ReszooError(
            f"{name} cannot be downloaded ({first_line(error)}); {_wanted(advice, files)}"
        ) from error
    except tfds.core.download.download_manager.NonMatchingChecksumError as error:
        raise ReszooError(
            f"{name}: a file is not the one expected, its sha256 differs: {first_line(error)}"
        ) from error
    except (OSError, ValueError, AssertionError, ImportError, EOFError, tf.errors.OpError) as error:
        hint = f"; {_wanted(advice, files)}" if from_dir is None else ""
        raise ReszooError(f"{name} cannot be prepared: {first_line(error)}{hint}") from error


def _counts(builder: Any) -> str:
    return ", ".join(
        f"{info.num_examples:,} {split}" for split, info in builder.info.splits.items()
    )


def _check_folder(root: str) -> str:
    import numpy as np

    from reszoo.data.corrupt import decode_all, report_corrupt
    from reszoo.data.folder import list_folder
    from reszoo.data.summary import describe_classes, describe_ignored, warn_of_imbalance

    listing = list_folder(root)
    bad: list[str] = []
    sizes = []
    for part in listing.parts.values():
        damaged, found = decode_all(part.paths)
        bad += damaged
        sizes.append(found)
    report_corrupt(bad, sum(part.count for part in listing.parts.values()), skip=False)
    shapes = np.concatenate(sizes)
    counts = ", ".join(f"{part.count:,} {role}" for role, part in listing.parts.items())
    per_class = {
        role: np.bincount(part.labels, minlength=len(listing.class_names)).tolist()
        for role, part in listing.parts.items()
    }
    lines = [
        f"{root} is sound: {len(listing.class_names)} classes, {counts}",
        _sizes_line(shapes.min(axis=0).tolist(), shapes.max(axis=0).tolist()),
        *describe_classes(listing.class_names, per_class),
        *describe_ignored(listing.ignored),
        *warn_of_imbalance(listing.class_names, per_class),
    ]
    return "\n".join(lines)


def _sizes_line(least: list[int], most: list[int]) -> str:
    """Return the images' height and width in words; training on images of several sizes needs data.image_size."""
    if least == most:
        return f"height x width: {least[0]}x{least[1]}"
    ranges = " x ".join(
        f"{low}" if low == high else f"{low} to {high}"
        for low, high in zip(least, most, strict=True)
    )
    return f"height x width: {ranges}; training needs data.image_size. Example: --set data.image_size=[224,224]"
