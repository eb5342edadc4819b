"""Streams of rows from files of text.

    files → documents → tokens → rows (`Layout`)

All documents are tokenized once, when the streams are created.
"""

from rlp.data.bounds import LIMITS, Limits
from rlp.data.corpus import tokenize
from rlp.data.file_list import check_disjoint, find_files
from rlp.data.layout import Layout
from rlp.data.text_stream import TextStream


def text_streams(
    layout: Layout,
    *,
    train: str,
    evaluation: str = "",
    text_column: str = "text",
    txt_separator: str = "",
    max_unusable_share: float = 0.2,
    limits: Limits = LIMITS,
) -> tuple[TextStream, TextStream]:
    """Return the training stream and the held-out stream, see `Layout.streams`.

    Args:
      layout: how documents are arranged in rows.
      train: files, folders or globs, separated by commas.
      evaluation: held-out files in the same form; "" holds out some of the documents of `train`.
      text_column: column of a JSON line or parquet row that contains the document.
      txt_separator: splits .txt files into documents; "" does not split them.
      max_unusable_share: maximum share of rows that may be skipped because they are unusable.
      limits: limits on rows and decompression.

    Raises:
      UserError: If a file cannot be read, there are no documents, or `Layout.streams` raises it.
    """
    layout.check()
    files = find_files(train, "data.train")
    source = (text_column, txt_separator, layout.tokenizer, layout.fork_marker)
    bounds = (max_unusable_share, limits)
    if not evaluation:
        return layout.streams(tokenize(files, "data.train", *source, *bounds))
    held_files = find_files(evaluation, "data.evaluation")
    check_disjoint(files, held_files)
    corpus = tokenize(files, "data.train", *source, *bounds)
    return layout.streams(corpus, tokenize(held_files, "data.evaluation", *source, *bounds))
