"""Open streams of text files, with the fields of `Layout` as keyword arguments."""

import dataclasses
from typing import Any

from rlp.data import text
from rlp.data.layout import Layout
from rlp.data.text_stream import TextStream

LAYOUT = {field.name for field in dataclasses.fields(Layout)}


def text_streams(**options: Any) -> tuple[TextStream, TextStream]:
    layout = Layout(**{name: options.pop(name) for name in LAYOUT & options.keys()})
    return text.text_streams(layout, **options)
