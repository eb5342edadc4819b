"""Write files of pairs and conversations, and tokenize them."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet

from rlp.data.conversations import Format
from rlp.data.pairs import tokenize_pairs
from rlp.tokenizers.load import load_tokenizer

BYTES = load_tokenizer("bytes")
PAIR = Format(prompt="question", response="answer")
CHAT = Format(messages="messages")

(BOS,), EOS = BYTES.bos, BYTES.eos

# Turns between <bos> and <eos>; like Qwen3's template, it omits the thoughts of earlier turns.
TEMPLATE = (
    "{% for m in messages %}<bos>{{ m.role }}:"
    "{{ m.content if loop.last else m.content.split('</think>')[-1] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant:{% endif %}"
)


def write(path, rows):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def turns(*contents, system=()):
    roles = [*["system" for _ in system], *["user", "assistant"] * len(contents)]
    return [{"role": r, "content": x} for r, x in zip(roles, [*system, *contents], strict=False)]


def tokenized(path, rows, form=PAIR, template=None, words=BYTES):
    """Return the ids and the loss mask of every pair, and the index of its conversation."""
    options = (form, template, words, None if template is None else words.eos)
    corpus, source = tokenize_pairs([write(path, rows)], "data.sft.train", *options)
    split = lambda x: np.split(x, corpus.bounds[1:-1])
    pairs = zip(split(corpus.tokens), split(corpus.loss_mask), strict=True)
    return [(ids.tolist(), mask.tolist()) for ids, mask in pairs], source.tolist()


def numbered(count):
    return [{"question": f"q{i}" * (i % 4), "answer": "a" * (i * 5 % 17 + 1)} for i in range(count)]


SAID = {"messages": turns("a", "b")}
