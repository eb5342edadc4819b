"""Streams of rows from files of text.

    files → documents → tokens → rows (`Layout`)

All documents are tokenized once, when the streams are created.
"""

from rlp.answers.verifiers.gym import check_apart
from rlp.data.bounds import LIMITS, Limits
from rlp.data.corpus import tokenize
from rlp.data.file_list import check_disjoint
from rlp.data.generated import sources
from rlp.data.layout import Layout
from rlp.data.overlap import Overlaps
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
    exclude: Overlaps | None = None,
) -> tuple[TextStream, TextStream]:
    """Return the training stream and the held-out stream, see `Layout.streams`.

    Args:
      layout: how documents are arranged in rows.
      train: files, folders, globs or names of generated datasets, separated by commas.
      evaluation: held-out files in the same form; "" holds out some of the documents of `train`.
      text_column: column of a JSON line or parquet row that contains the document.
      txt_separator: splits .txt files into documents; "" does not split them.
      max_unusable_share: maximum share of rows that may be skipped because they are unusable.
      limits: limits on rows and decompression.
      exclude: leaves out the documents of `train` that overlap with these problems.

    Raises:
      UserError: If a file cannot be read, there are no documents, or `Layout.streams` raises it.
    """
    layout.check()
    files, names = sources(train, "data.train")
    how = (text_column, txt_separator, layout.tokenizer, layout.fork_marker)
    bounds = (max_unusable_share, limits)
    if not evaluation:
        return layout.streams(tokenize(files, "data.train", *how, *bounds, exclude, names))
    held_files, held_names = sources(evaluation, "data.evaluation")
    check_disjoint(files, held_files)
    check_apart(names, held_names, "data.train", "data.evaluation")
    corpus = tokenize(files, "data.train", *how, *bounds, exclude, names)
    held_out = tokenize(held_files, "data.evaluation", *how, *bounds, generated=held_names)
    return layout.streams(corpus, held_out)
