"""Streams of prompts with their responses.

    files → conversations → tokens and which of them are trained on → rows → records

A pair is never truncated: pairs that are longer than a row are left out and counted. With packing,
a row contains several pairs, as it does documents.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rlp.data.bounds import LIMITS, Limits
from rlp.data.conversations import (
    Format,
    Message,
    Render,
    TextSpan,
    check_complete,
    drops_tool_calls,
    joined,
    render_requests,
    rendered,
)
from rlp.data.corpus import Corpus, grouped, hold_out, reading
from rlp.data.file_list import check_disjoint, find_files
from rlp.data.layout import HELD_OUT
from rlp.data.messages import ASSISTANT
from rlp.data.order import shuffled, spread
from rlp.data.overlap import Overlaps
from rlp.data.sources import as_text, read_rows
from rlp.data.summary import Summary
from rlp.data.text_stream import TextStream, log_streams
from rlp.data.windows import pack_windows, whole_windows
from rlp.runtime.display import listed
from rlp.runtime.errors import UserError
from rlp.tokenizers.chat_templates import LimitExceeded
from rlp.tokenizers.tokenizer import Tokenizer

GROUP = "data.sft"  # the group of the config fields
# Texts, each split in spans but tokenized as one, with the ids that are appended to each.
Row = list[tuple[list[TextSpan], list[int]]]
_AHEAD = 8  # texts of a conversation to render ahead; all of them would take memory O(n²)


def pair_streams(
    *,
    train: str,
    evaluation: str = "",
    holdout_every: int = 20,
    form: Format,
    template: str | None,
    end: int | None = None,
    tokenizer: Tokenizer,
    sequence_length: int,
    pack: bool = False,
    max_unusable_share: float = 0.2,
    limits: Limits = LIMITS,
    seed: int = 0,
    exclude: Overlaps | None = None,
) -> tuple[TextStream, TextStream]:
    """Return the training stream and the held-out stream, whose batches have a `loss_mask`.

    They are like those of `text.text_streams`, with a row of a file in place of a document.

    Args:
      train: files, folders or globs, separated by commas.
      evaluation: held-out files in the same form; "" holds out every `holdout_every`-th row of
        `train`.
      holdout_every: one row of the files in this many is held out.
      form: the columns.
      template: Jinja chat template that renders the messages; None joins them without a template,
        each response followed by the tokenizer's separator.
      end: id that ends a turn of the template, the last token of a response that is trained on;
        None trains on all that the template adds.
      tokenizer: encodes the texts.
      sequence_length: T, tokens per row; longer pairs are left out and counted.
      pack: put several pairs in a training row instead of one.
      max_unusable_share: maximum share of rows that may be skipped because they are unusable.
      limits: limits on rows and decompression.
      seed: seed of the training order.
      exclude: leaves out the rows of `train` in which a message overlaps with these problems.

    Raises:
      UserError: If files, too many rows or the template cannot be used, there are too few pairs to
        hold out any, or none is short enough.
    """
    files = find_files(train, f"{GROUP}.train")
    how = (form, template, tokenizer, end, max_unusable_share, limits)
    bos = tokenizer.bos if template is None else ()  # a template adds its BOS itself
    held_field = f"{GROUP}.evaluation" if evaluation else HELD_OUT.format(f"{GROUP}.train")
    if evaluation:
        held_files = find_files(evaluation, held_field)
        check_disjoint(files, held_files, GROUP)
        corpus, _ = tokenize_pairs(files, f"{GROUP}.train", *how, exclude)
        held_corpus, _ = tokenize_pairs(held_files, held_field, *how)
        train_pairs, held_pairs = np.arange(len(corpus)), np.arange(len(held_corpus))
    else:
        corpus, source = tokenize_pairs(files, f"{GROUP}.train", *how, exclude)
        sources = hold_out(int(source[-1]) + 1, holdout_every, GROUP, "pairs")
        train_pairs, held_pairs = (np.flatnonzero(np.isin(source, numbers)) for numbers in sources)
        held_corpus = corpus

    def stream(which: str, corpus: Corpus, pairs: np.ndarray, packed: bool) -> TextStream:
        windows = whole_windows(corpus, pairs, sequence_length, len(bos))
        if not len(windows):
            shortest = len(bos) + np.diff(corpus.bounds)[pairs].min()
            raise UserError(
                f"no {which} pair of {GROUP} fits in data.sequence_length={sequence_length} (the "
                f"shortest has {shortest} tokens): raise it",
                field="data.sequence_length",
                value=sequence_length,
            )
        rows = [[window] for window in range(len(windows))]
        if packed:
            rows = pack_windows(windows.length, sequence_length)
        return TextStream(
            corpus,
            windows,
            rows,
            shuffled(len(rows), seed) if which == "training" else spread(len(rows)),
            field=f"{GROUP}.train" if which == "training" else held_field,
            documents=len(pairs),
            sequence_length=sequence_length,
            bos=bos,
            pad=tokenizer.pad,
            skipped=len(pairs) - len(windows),
        )

    streams = (
        stream("training", corpus, train_pairs, pack),
        stream("held-out", held_corpus, held_pairs, False),
    )
    log_streams(corpus, held_corpus, *streams, "pairs", "longer than data.sequence_length")
    return streams


def tokenize_pairs(
    files: Sequence[str],
    field: str,
    form: Format,
    template: str | None,
    tokenizer: Tokenizer,
    end: int | None = None,
    max_unusable_share: float = 0.2,
    limits: Limits = LIMITS,
    exclude: Overlaps | None = None,
) -> tuple[Corpus, np.ndarray]:
    """Tokenize all pairs of files; return also the conversation number of each, int64 [pairs].

    Without a template, a pair is prompt, response and separator; the BOS is not in the corpus. With
    a template, its text contains the tokens that begin and end a pair. The tokens of responses,
    including those that end them, are trained on.

    The text of a row is tokenized as a whole, since some tokenizers put a space before a text that
    is tokenized alone. A token across the beginning of a response is trained on.

    Args:
      files: paths, see `sources.read_rows`.
      field: config field that the files come from, for messages.
      form, template, tokenizer, end, max_unusable_share, limits, exclude: as for `pair_streams`.

    Raises:
      UserError: If a file cannot be read, too many rows are unusable, or the files contain no pair.
    """
    summary = Summary(field, files, max_unusable_share, "pairs")
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    tokens: list[np.ndarray] = []
    trained_on: list[np.ndarray] = []
    source: list[int] = []
    with reading(files, field) as bar:
        read = _read(summary, form, template, tokenizer, bar.update, limits, exclude)
        numbered = ((n, row) for n, rows in enumerate(read) for row in rows)
        size = lambda item: sum(len(s.text) for text_spans, _ in item[1] for s in text_spans)
        for group in grouped(numbered, size):
            texts = ["".join(s.text for s in part) for _, row in group for part, _ in row]
            encoded = iter(tokenizer.encode_spans(texts))
            for number, row in group:
                parts = [_with_flags(*next(encoded), *part, end) for part in row]
                ids, flags = zip(*parts, strict=True)
                tokens.append(np.concatenate(ids).astype(dtype))
                trained_on.append(np.concatenate(flags))
                source.append(number)
    summary.finish()
    if not tokens:
        raise UserError(
            f"{field}: no pairs in {listed(files)}: every response is {summary.why_none()}; set it "
            "to other files",
            field=field,
        )
    corpus = Corpus(
        np.concatenate(tokens),
        np.cumsum([0, *map(len, tokens)], dtype=np.int64),
        np.full(len(tokens), -1, np.int64),
        np.concatenate(trained_on),
        summary,
    )
    return corpus, np.asarray(source, np.int64)


def _read(
    summary: Summary,
    form: Format,
    template: str | None,
    tokenizer: Tokenizer,
    on_read: Callable[[int], object],
    limits: Limits,
    exclude: Overlaps | None,
) -> Iterator[list[Row]]:
    """Yield the conversations of files, each as its rows; count those that are left out."""
    size = lambda item: sum(len(m["content"]) for m in item[1] if item[2] is None)
    for path in summary.files:
        for block in grouped(_conversations(path, form, on_read, limits), size):
            render = None
            if template is not None:
                render = _render_ahead([messages for _, messages, _ in block], template, tokenizer)
            for where, messages, unusable in block:
                try:
                    if unusable:
                        raise unusable
                    rows, has_calls = _text_spans(where, messages, render)
                except LimitExceeded:
                    raise
                except UserError as error:
                    summary.unusable.count(error)
                    continue
                summary.unusable.count()
                if exclude and any(exclude.find(m["content"]) for m in messages):
                    summary.overlapping += 1
                    continue
                for row in rows:
                    summary.count(path, sum(len(span.text) for span in row))
                if rows and not has_calls:
                    summary.without_calls.append(where)
                if not rows:
                    summary.empty += 1
                elif template is None:
                    yield [_separated(row, tokenizer) for row in rows]
                else:
                    yield [[(row, [])] for row in rows]


def _conversations(
    path: str, form: Format, on_read: Callable[[int], object], limits: Limits
) -> Iterator[tuple[str, list[Message], UserError | None]]:
    """Yield the file and number of each row, its messages, and the error if it is unusable."""
    for where, values in read_rows([path], form.columns, on_read, limits):
        try:
            yield where, form.conversation(where, values), None
        except UserError as error:
            yield where, [], error


def _render_ahead(
    conversations: Sequence[Sequence[Message]], template: str, tokenizer: Tokenizer
) -> Render:
    """Return a function that renders messages. It renders the beginnings of some conversations in
    one call now, since templates run in a separate process."""
    requests = [
        (list(messages), ask)
        for conversation in conversations
        for messages, ask in itertools.islice(render_requests(conversation), _AHEAD)
    ]
    texts = tokenizer.chat_all(requests, template)
    cache = {  # keyed by the ids of the message objects, which live as long as their conversations
        (*map(id, messages), ask): text
        for (messages, ask), text in zip(requests, texts, strict=False)
    }

    def render(messages: Sequence[Message], ask: bool) -> str:
        text = cache.get((*map(id, messages), ask))
        if isinstance(text, UserError):
            raise text
        return tokenizer.chat(messages, template, ask) if text is None else text

    return render


def _text_spans(
    where: str, messages: Sequence[Message], render: Render | None
) -> tuple[list[list[TextSpan]], bool]:
    """Split a conversation into rows of spans, and return whether they contain its tool calls.

    An empty conversation has no rows.

    Raises:
      UserError: If the template fails or leaves out a message.
    """
    if not messages:
        return [], True
    rows = [joined(messages)] if render is None else rendered(where, messages, render)
    has_calls = not drops_tool_calls(messages, render)
    contents = (m["content"].strip() for m in messages if m["role"] == ASSISTANT)
    if not (has_calls or any(contents)):
        return [], has_calls
    if render is None:
        return rows, has_calls
    check_complete(where, messages, rows, render)
    for row in rows:
        for span in row:
            as_text(where, "text of the chat template", span.text)
    return rows, has_calls


def _separated(text_spans: Sequence[TextSpan], tokenizer: Tokenizer) -> Row:
    """Add the separator after every response of a row.

    If the text of the separator encodes to its id, the row is one text; otherwise a new text begins
    after each separator id.
    """
    separator = tokenizer.separator
    name = tokenizer.decode([separator])
    if tokenizer.encode(name) == [separator]:
        end = [TextSpan(name, True)]
        return [([x for s in text_spans for x in (s, *(end if s.trained_on else []))], [])]
    row: Row = [([], [])]
    for span in text_spans:
        row[-1][0].append(span)
        if span.trained_on:
            row[-1][1].append(separator)
            row.append(([], []))
    return row[:-1]  # a row ends with a response, so its last text is empty


def _with_flags(
    ids: np.ndarray,
    offsets: np.ndarray,
    text_spans: Sequence[TextSpan],
    after: Sequence[int],
    end: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Append ids to those of a text, and return which of them all are trained on.

    Args:
      ids, offsets: of the text, see `Tokenizer.encode_spans`.
      text_spans: the spans of the text. A token belongs to the span of its last character; an
        end-of-turn token, which may include the space after it, to the span of its first.
      after: ids to append, which are trained on.
      end: as for `pair_streams`.
    """
    span_of_character = np.repeat(np.arange(len(text_spans)), [len(s.text) for s in text_spans])
    character = np.where(ids == end, offsets[:, 0], np.maximum(offsets[:, 1] - 1, 0))
    span_of_token = span_of_character[character] if len(ids) else np.zeros(0, np.int64)
    trained_on = np.array([s.trained_on for s in text_spans], bool)[span_of_token]
    for span in np.unique(span_of_token[trained_on & (ids == end)]) if end is not None else ():
        tokens = np.flatnonzero(span_of_token == span)
        first = int(np.argmax(ids[tokens] == end))
        trained_on[tokens[first + 1 :]] = False
    return np.concatenate([ids, after]), np.concatenate([trained_on, np.ones(len(after), bool)])
