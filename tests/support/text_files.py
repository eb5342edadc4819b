"""Write text files in every format, and read their documents."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import zstandard

from rlp.data.bounds import LIMITS
from rlp.data.sources import read_documents
from rlp.data.summary import Summary

TEXTS = [f"document {i}: " + "é日x\n"[i % 4] * (i * 7 % 60) for i in range(41)]
SEPARATOR = "\n%%\n"


def write(path, texts, column="text"):
    """Write documents to a file in the format of its suffix."""
    name = path.name
    if name.endswith(".parquet"):
        table = pyarrow.table({"id": list(range(len(texts))), column: texts})
        pyarrow.parquet.write_table(table, path, row_group_size=7)
        return path
    lines = [json.dumps({"id": i, column: text}) + "\n" for i, text in enumerate(texts)]
    data = (SEPARATOR.join(texts) if ".txt" in name else "".join(lines)).encode()
    half = len(data) // 2  # compressed files consist of two members or frames
    if name.endswith(".gz"):
        data = gzip.compress(data[:half], 1) + gzip.compress(data[half:], 1)
    if name.endswith(".zst"):
        compress = zstandard.ZstdCompressor().compress
        data = compress(data[:half]) + compress(data[half:])
    path.write_bytes(data)
    return path


def documents(path, column="text", separator="", on_read=lambda count: None, limits=LIMITS):
    """Read the documents of a file with a `max_unusable_share` of 0.2."""
    summary = Summary("data.train", [str(path)], 0.2, "documents")
    texts = list(read_documents(summary, column, separator, on_read, limits))
    summary.finish(separator)
    assert summary.text_counts == {str(path): len(texts)}
    assert summary.characters == sum(map(len, texts))
    return texts
