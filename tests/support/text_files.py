"""Files of texts in every form, and the documents that are read of them."""

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
    """A file of documents, in the form that its ending asks for."""
    name = path.name
    if name.endswith(".parquet"):
        table = pyarrow.table({"id": list(range(len(texts))), column: texts})
        pyarrow.parquet.write_table(table, path, row_group_size=7)
        return path
    lines = [json.dumps({"id": i, column: text}) + "\n" for i, text in enumerate(texts)]
    data = (SEPARATOR.join(texts) if ".txt" in name else "".join(lines)).encode()
    half = len(data) // 2  # several members or frames make one file
    if name.endswith(".gz"):
        data = gzip.compress(data[:half], 1) + gzip.compress(data[half:], 1)
    if name.endswith(".zst"):
        compress = zstandard.ZstdCompressor().compress
        data = compress(data[:half]) + compress(data[half:])
    path.write_bytes(data)
    return path


def documents(path, column="text", separator="", on_read=lambda count: None, limits=LIMITS):
    """The documents of a file, those that cannot be used being too many if they are a fifth."""
    summary = Summary("data.train", [str(path)], 0.2, "documents")
    found = list(read_documents(summary, column, separator, on_read, limits))
    summary.finish(separator)
    assert summary.text_counts == {str(path): len(found)}
    assert summary.characters == sum(map(len, found))
    return found
