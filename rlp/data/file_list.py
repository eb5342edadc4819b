"""Resolve the paths, folders and globs of a config field to files in a fixed order."""

import glob
import os
from collections.abc import Sequence

from rlp.data import locations
from rlp.data.summary import Files, ending
from rlp.runtime.errors import UserError

ENDINGS = (
    *(".txt", ".txt.gz", ".txt.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst"),
    *(".ndjson", ".ndjson.gz", ".ndjson.zst", ".parquet"),
)


def find_files(spec: str, field: str, endings: tuple[str, ...] = ENDINGS) -> Files:
    """Return the files of a comma-separated list of files, folders and globs.

    The order of the list is kept. A folder (searched recursively, also through links) and a glob
    contribute their regular files with one of the `endings`, sorted by path; other files are
    counted. A file that is listed twice counts once. A path may contain commas.

    Args:
      spec: the list.
      field: config field that it comes from, for messages.
      endings: endings of the names of files that can be read, in lower case.

    Raises:
      UserError: If an item does not exist, matches no file or has an unsupported ending.
    """
    files: dict[str, str] = {}  # real path → path as given
    others: dict[str, str] = {}  # the same for the files that are skipped
    hidden: set[str] = set()
    unreadable: dict[str, str] = {}
    special: dict[str, str] = {}
    for item in _items(spec):
        with locations.server_errors_named(item):
            listing = _expand(os.path.expanduser(item), field, endings)
        hidden |= {locations.identity(path) for path in listing.hidden}
        for path in listing.files:
            paths = files if _is_supported(path, endings) else others
            paths.setdefault(locations.identity(path), path)
        for path in listing.unreadable:
            folder, name = os.path.split(path)
            unreadable.setdefault(os.path.join(locations.identity(folder), name), path)
        special |= {locations.identity(path): _named_special(path) for path in listing.special}
    if not files:
        raise UserError(
            f"{field}={spec!r} is empty: set it to files, folders or globs, separated by commas",
            field=field,
            value=spec,
        )
    skipped = [*map(ending, others.values()), *["hidden"] * len(hidden)]
    return Files(files.values(), skipped, unreadable.values(), special.values())


def check_disjoint(train: Sequence[str], evaluation: Sequence[str], group: str = "data") -> None:
    """Raise UserError if a file is both trained on and held out."""
    trained = {locations.identity(path) for path in train}
    for path in evaluation:
        if locations.identity(path) in trained:
            raise UserError(
                f"{path} is in both {group}.train and {group}.evaluation: remove it from one"
            )


def _items(spec: str) -> list[str]:
    """Split a list into items. If a part exists only when joined with the parts after it, it is a
    path that contains commas."""
    if _exists(spec):
        return [spec]
    items, parts = [], spec.split(",")
    while parts:
        whole = [n for n in range(1, len(parts) + 1) if _exists(",".join(parts[:n]).strip())]
        count = whole[0] if whole and not glob.has_magic(parts[0]) else 1
        items.append(",".join(parts[:count]).strip())
        parts = parts[count:]
    return [item for item in items if item]


def _exists(path: str) -> bool:
    """Return whether this is a local file or folder."""
    return bool(path) and not locations.is_url(path) and os.path.exists(os.path.expanduser(path))


def _expand(item: str, field: str, endings: tuple[str, ...]) -> locations.Listing:
    """Return all files of one item of a list, at least one of which has a supported ending."""
    supported = " ".join(endings)
    if locations.is_file(item):
        if not _is_supported(item, endings):
            raise UserError(
                f"{field}: {item} has an unsupported ending; supported: {supported}",
                field=field,
                value=item,
            )
        return locations.Listing([item])
    if locations.is_folder(item):
        listings = [locations.files_below(item)]
    elif glob.has_magic(item):
        listings = [_matched(path) for path in locations.matches(item)]
    else:
        raise UserError(f"{field}: {_why_missing(item)}", field=field, value=item)
    files = [path for listing in listings for path in listing.files]
    unreadable = tuple(path for listing in listings for path in listing.unreadable)
    special = tuple(path for listing in listings for path in listing.special)
    if not any(_is_supported(path, endings) for path in files):
        others = Files((), map(ending, files), unreadable, map(_named_special, special))
        skipped = f" (skipped: {others.describe_skipped()})" if others.describe_skipped() else ""
        raise UserError(
            f"{field}: {item} contains no file with a supported ending: {supported}{skipped}",
            field=field,
            value=item,
        )
    hidden = tuple(path for listing in listings for path in listing.hidden)
    return locations.Listing(files, hidden, unreadable, special)


def _named_special(path: str) -> str:
    return f"{locations.special_kind(path)} {path}"


def _why_missing(item: str) -> str:
    """Explain why an item of a list is neither a file nor a folder."""
    if kind := locations.special_kind(item):
        return f"{item} is a {kind}; only regular files can be read"
    if os.path.islink(item):
        return f"{item} is a broken link"
    return f"file or folder not found: {item}"


def _matched(path: str) -> locations.Listing:
    """Return the files of a path that a glob matched."""
    if locations.is_folder(path):
        return locations.files_below(path)
    return locations.Listing([path]) if locations.is_url(path) else locations.by_kind([path])


def _is_supported(path: str, endings: tuple[str, ...]) -> bool:
    return path.lower().endswith(endings)


def is_text(path: str) -> bool:
    """Return whether a file is plain text."""
    return path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".txt")
