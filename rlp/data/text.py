"""Files of text as streams of rows.

    files → documents → tokens → rows (`Layout`)

All documents are tokenised once, when the streams are made.
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
    """The training stream and the held-out one, see `Layout.streams`.

    Args:
      layout: how documents become rows.
      train: files, folders or globs, separated by commas.
      evaluation: held-out files in the same forms; "" holds out a part of the documents of `train`.
      text_column: field of a JSON line or parquet row that holds the document.
      txt_separator: splits .txt files into documents; "" keeps them whole.
      max_unusable_share: of the rows of files that may be left out since they cannot be used.
      limits: of what is read of files.

    Raises:
      UserError: files that cannot be read, no documents, or as `Layout.streams` does.
    """
    layout.check()
    files = find_files(train, "data.train")
    reading = (text_column, txt_separator, layout.tokenizer, layout.fork_marker)
    bounds = (max_unusable_share, limits)
    if not evaluation:
        return layout.streams(tokenize(files, "data.train", *reading, *bounds))
    held_files = find_files(evaluation, "data.evaluation")
    check_disjoint(files, held_files)
    corpus = tokenize(files, "data.train", *reading, *bounds)
    return layout.streams(corpus, tokenize(held_files, "data.evaluation", *reading, *bounds))
