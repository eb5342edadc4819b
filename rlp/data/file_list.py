"""The files that a field of the config names: paths, folders and globs, in a fixed order."""

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


def find_files(spec: str, field: str) -> Files:
    """The files that a comma-separated list of files, folders and globs names.

    Items keep their order; a folder (with those below it, through links) and a glob give their
    regular files sorted by path, only those with an ending of `ENDINGS`; the others are counted. A
    file named twice counts once. A path may itself hold commas.

    Args:
      spec: the list.
      field: name of the config field it comes from, for messages.

    Raises:
      UserError: an item that does not exist, matches nothing or has another ending.
    """
    files: dict[str, str] = {}  # real path → path as given
    others: dict[str, str] = {}  # the same of what is passed over
    hidden: set[str] = set()
    unreadable: dict[str, str] = {}
    special: dict[str, str] = {}
    for item in _items(spec):
        with locations.reached(item):
            listing = _expand(os.path.expanduser(item), field)
        hidden |= {locations.identity(path) for path in listing.hidden}
        for path in listing.files:
            kept = files if _is_known(path) else others
            kept.setdefault(locations.identity(path), path)
        for path in listing.unreadable:
            folder, name = os.path.split(path)
            unreadable.setdefault(os.path.join(locations.identity(folder), name), path)
        special |= {locations.identity(path): _named_special(path) for path in listing.special}
    if not files:
        raise UserError(
            f"{field} is empty: give files, folders or globs, separated by commas",
            field=field,
            value=spec,
        )
    passed_over = [*map(ending, others.values()), *["hidden"] * len(hidden)]
    return Files(files.values(), passed_over, unreadable.values(), special.values())


def check_disjoint(train: Sequence[str], evaluation: Sequence[str], group: str = "data") -> None:
    """Raises UserError if a file is both trained on and held out."""
    trained = {locations.identity(path) for path in train}
    for path in evaluation:
        if locations.identity(path) in trained:
            raise UserError(
                f"{path} is in both {group}.train and {group}.evaluation: take it out of one"
            )


def _items(spec: str) -> list[str]:
    """The items of a list. One that exists only together with what follows the next comma is a
    path that holds a comma."""
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
    """Whether this is a file or folder of this machine."""
    return bool(path) and not locations.is_url(path) and os.path.exists(os.path.expanduser(path))


def _expand(item: str, field: str) -> locations.Listing:
    """The files of one item of a list, of any kind, and at least one of a known kind."""
    known = " ".join(ENDINGS)
    if locations.is_file(item):
        if not _is_known(item):
            raise UserError(
                f"{field}: {item} is not of a known kind; known: {known}", field=field, value=item
            )
        return locations.Listing([item])
    if locations.is_folder(item):
        found = [locations.files_below(item)]
    elif glob.has_magic(item):
        found = [_matched(path) for path in locations.matches(item)]
    else:
        raise UserError(f"{field}: {_not_there(item)}", field=field, value=item)
    files = [path for listing in found for path in listing.files]
    unreadable = tuple(path for listing in found for path in listing.unreadable)
    special = tuple(path for listing in found for path in listing.special)
    if not any(map(_is_known, files)):
        others = Files((), map(ending, files), unreadable, map(_named_special, special)).not_read()
        holds = f" (it has: {others})" if others else ""
        raise UserError(
            f"{field}: {item} holds no file of a known kind: {known}{holds}",
            field=field,
            value=item,
        )
    hidden = tuple(path for listing in found for path in listing.hidden)
    return locations.Listing(files, hidden, unreadable, special)


def _named_special(path: str) -> str:
    return f"{locations.special_kind(path)} {path}"


def _not_there(item: str) -> str:
    """Why an item of a list is neither a file nor a folder."""
    if kind := locations.special_kind(item):
        return f"{item} is a {kind}; only regular files can be read"
    return f"{item} is a broken link" if os.path.islink(item) else f"no file or folder {item}"


def _matched(path: str) -> locations.Listing:
    """The files of what a glob matched."""
    if locations.is_folder(path):
        return locations.files_below(path)
    return locations.Listing([path]) if locations.is_url(path) else locations.sorted_out([path])


def _is_known(path: str) -> bool:
    return path.lower().endswith(ENDINGS)


def is_text(path: str) -> bool:
    """Whether a file is one of plain text."""
    return path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".txt")
