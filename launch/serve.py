"""Serve a model with OpenAI's interface: `python -m launch.serve --checkpoint=runs/rlp`.

    /v1/completions, /v1/chat/completions, /v1/models, /health, /tokenize, /detokenize

It prints one line when it is ready, and ends after SIGINT or SIGTERM. `--checkpoint` takes the same
values as `launch.evaluate`, for one model: [name=]<a run, <run>@<step>, a Hugging Face folder or
name, or a GGUF file>. Needs `make serve`.
"""

import math
from collections.abc import Sequence

from absl import flags

from launch import program
from rlp.runtime.errors import UserError

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "a run, <run>@<step>, a Hugging Face folder or name, or a GGUF file; the name under which it "
    "is served may precede it, as in rlp=runs/rlp",
    required=True,
)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "address to listen on; there is no password, so others need a proxy"
)
_PORT = flags.DEFINE_integer("port", 8000, "port; 0 = a free one", lower_bound=0, upper_bound=65535)
_CONTEXT = flags.DEFINE_integer(
    "context", 0, "most tokens of a prompt with its response; 0 = as the model says", lower_bound=0
)
_TEXTS = flags.DEFINE_integer(
    "texts", 16, "most texts that a device generates at a time", lower_bound=1
)
_QUEUE = flags.DEFINE_integer(
    "queue", 512, "most texts that are generated or wait; more are refused with 429", lower_bound=1
)
_BODY_MB = flags.DEFINE_float(
    "body_mb", 4.0, "most megabytes of a request; larger ones are refused with 413"
)
_GRACE = flags.DEFINE_float("grace", 30.0, "seconds that requests have to finish after a signal")
_FSDP = flags.DEFINE_integer(
    "fsdp", 1, "number of devices over which parameters are split by width", lower_bound=1
)
_TENSOR = flags.DEFINE_integer(
    "tensor", 1, "number of devices over which heads are split", lower_bound=1
)


def main(_: Sequence[str]) -> None:
    """Serve the model until a signal."""
    from rlp.run import serve

    for name, value, least in (("body_mb", _BODY_MB.value, 0.001), ("grace", _GRACE.value, 0.0)):
        if not least <= value < math.inf:
            raise UserError(f"--{name}={value}; it must be a finite number from {least:g} on")
    settings = serve.Settings(
        host=_HOST.value,
        port=_PORT.value,
        context=_CONTEXT.value,
        texts=_TEXTS.value,
        queue=_QUEUE.value,
        body_limit=int(_BODY_MB.value * 1e6),
        grace=_GRACE.value,
        fsdp=_FSDP.value,
        tensor=_TENSOR.value,
    )
    serve.serve(_CHECKPOINT.value, settings)


if __name__ == "__main__":
    program.run(main)
