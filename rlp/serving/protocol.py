"""The requests of all routes, as records.

A parameter is implemented, or accepted at the values that change nothing, or refused by name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlp.evaluation.generation.requests import SEEDS, Sampling
from rlp.serving.fields import ApiError, Fields, checked_text, is_whole, wrong
from rlp.serving.prompts import Prompt, read_messages, read_prompts

MAX_CHOICES = 128  # of a prompt
MAX_TOP = 20  # alternatives of a token
MAX_STOPS = 64  # stop strings
LONGEST_STOP = 1000  # characters of one
COMPLETION_TOKENS = 16  # of a completion without max_tokens, as in OpenAI's interface
COLDEST = 0.01  # smallest temperature above 0: below, logits divided by it lose their precision
_LARGE = 2**31 - 1

# Values that change nothing. Those of bookkeeping at OpenAI are below.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_tokens": (0,),
    "use_beam_search": (False,),
    "skip_special_tokens": (False,),  # they are shown by name
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "truncate_prompt_tokens": (),
    "prompt_logprobs": (),
    "request_id": (),
    "return_tokens_as_token_ids": (False,),
}
_NEUTRAL_COMPLETION: dict[str, tuple[Any, ...]] = _NEUTRAL | {"suffix": ("",)}
_NEUTRAL_CHAT: dict[str, tuple[Any, ...]] = _NEUTRAL | {
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),  # without tools, which are refused
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),  # the template writes them
    "continue_final_message": (False,),
    "echo": (False,),
}
# Texts that OpenAI's service uses for bookkeeping; they change no response.
_IGNORED = ("user", "safety_identifier", "prompt_cache_key")


@dataclasses.dataclass(frozen=True)
class Options:
    """What requests for completions and for chats have in common.

    Attributes:
      n: responses to each prompt.
      max_tokens: of a response; None for the rest of the context.
      sampling: how tokens are chosen.
      seed: of the sampling; None for a random one.
      stop: strings that end a response.
      stop_ids: ids that end it, besides those of the model.
      ignore_eos: the ids of the model do not end it.
      top: alternatives to report for every token, with log-probabilities; None for no
        log-probabilities.
      stream: the response is sent as it is generated …
      include_usage: … and ends with the numbers of tokens.
    """

    n: int = 1
    max_tokens: int | None = None
    sampling: Sampling = Sampling(1.0)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    top: int | None = None
    stream: bool = False
    include_usage: bool = False


@dataclasses.dataclass(frozen=True)
class Completion:
    """A request of /v1/completions.

    Attributes:
      prompts: texts or ids, at least one.
      options: of the responses.
      echo: whether the prompt precedes the response.
      bos: whether the BOS precedes a text.
    """

    prompts: tuple[Prompt, ...]
    options: Options
    echo: bool = False
    bos: bool = True


@dataclasses.dataclass(frozen=True)
class Chat:
    """A request of /v1/chat/completions: messages with "role" and "content", and options."""

    messages: tuple[Mapping[str, str], ...]
    options: Options


@dataclasses.dataclass(frozen=True)
class Tokenize:
    """A request of /tokenize: a text or messages.

    Attributes:
      prompt: the text; None for messages.
      messages: the messages; () for a text.
      bos: whether the BOS precedes the text.
      ask: whether the prompt of an answer follows the messages.
      names: whether the text of every token is asked for.
    """

    prompt: str | None
    messages: tuple[Mapping[str, str], ...]
    bos: bool
    ask: bool
    names: bool


def read_completion(body: Mapping[str, Any], model: str) -> Completion:
    """Read a request of /v1/completions.

    Args:
      body: its JSON.
      model: name of the model that is served.

    Raises:
      ApiError: If it cannot be served as it is.
    """
    fields = Fields(body)
    _check_model(fields, model)
    prompts = read_prompts(fields.any("prompt"))
    echo, bos = fields.flag("echo"), fields.flag("add_special_tokens", True)
    unset = None if fields.has("max_tokens") else COMPLETION_TOKENS  # null: the rest of the context
    max_tokens = fields.whole("max_tokens", unset, 0, _LARGE)
    if max_tokens == 0 and not echo:
        raise wrong("max_tokens", 0, "it must be at least 1 without echo")
    top = fields.whole("logprobs", None, 0, MAX_TOP)
    options = _options(fields, max_tokens, top)
    fields.neutral(_NEUTRAL_COMPLETION)
    fields.finish()
    return Completion(prompts, options, echo, bos)


def read_chat(body: Mapping[str, Any], model: str) -> Chat:
    """Read a request of /v1/chat/completions; see `read_completion`."""
    fields = Fields(body)
    _check_model(fields, model)
    messages = read_messages(fields.any("messages"))
    limits = [
        fields.whole(name, None, 1, _LARGE) for name in ("max_completion_tokens", "max_tokens")
    ]
    given = {limit for limit in limits if limit is not None}
    if len(given) > 1:
        raise wrong("max_tokens", limits[1], f"max_completion_tokens={limits[0]} says otherwise")
    wanted = fields.flag("logprobs")
    top = fields.whole("top_logprobs", None, 0, MAX_TOP)
    if top is not None and not wanted:
        raise wrong("top_logprobs", top, "it needs logprobs=true")
    options = _options(fields, given.pop() if given else None, (top or 0) if wanted else None)
    _check_metadata(fields)
    fields.neutral(_NEUTRAL_CHAT)
    fields.finish()
    return Chat(messages, options)


def read_tokenize(body: Mapping[str, Any], model: str) -> Tokenize:
    """Read a request of /tokenize; see `read_completion`."""
    fields = Fields(body)
    _check_model(fields, model)
    prompt, messages = fields.text("prompt"), fields.any("messages")
    if (prompt is None) == (messages is None):
        raise ApiError("either prompt or messages is needed", param="prompt")
    read = Tokenize(
        prompt=prompt,
        messages=() if messages is None else read_messages(messages),
        bos=fields.flag("add_special_tokens", prompt is not None),
        ask=fields.flag("add_generation_prompt", True),
        names=fields.flag("return_token_strs"),
    )
    if read.bos and prompt is None:
        raise wrong("add_special_tokens", True, "the chat template writes them; leave it out")
    fields.neutral({name: _NEUTRAL_CHAT[name] for name in _OF_TEMPLATES})
    fields.finish()
    return read


_OF_TEMPLATES = ("chat_template", "chat_template_kwargs", "continue_final_message", "tools")


def read_detokenize(body: Mapping[str, Any], model: str) -> tuple[int, ...]:
    """Read the ids of a request of /detokenize; see `read_completion`."""
    fields = Fields(body)
    _check_model(fields, model)
    tokens = fields.any("tokens")
    if not isinstance(tokens, list) or not all(map(is_whole, tokens)):
        raise wrong("tokens", tokens, "it must be a list of ids")
    fields.finish()
    return tuple(tokens)


def _options(fields: Fields, max_tokens: int | None, top: int | None) -> Options:
    """Take the parameters that both kinds of requests have."""
    n = fields.whole("n", 1, 1, MAX_CHOICES) or 1
    best_of = fields.whole("best_of", None, 1, MAX_CHOICES)
    if best_of not in (None, n):
        raise wrong("best_of", best_of, f"it must be n={n}: no response is left out")
    seed = fields.whole("seed", None, -(2**63), 2**63 - 1)
    stream = fields.flag("stream")
    streaming = fields.any("stream_options")
    if streaming is not None and not stream:
        raise wrong("stream_options", streaming, "it needs stream=true")
    if stream and top is not None:
        raise wrong("logprobs", top, "log-probabilities are not streamed; leave out stream")
    for name in _IGNORED:
        fields.text(name)
    fields.neutral({"store": (False,), "service_tier": ("auto", "default")})
    return Options(
        n=n,
        max_tokens=max_tokens,
        sampling=_sampling(fields),
        seed=None if seed is None else seed % SEEDS,
        stop=_stop(fields.any("stop")),
        stop_ids=_stop_ids(fields.any("stop_token_ids")),
        ignore_eos=fields.flag("ignore_eos"),
        top=top,
        stream=stream,
        include_usage=_include_usage(streaming),
    )


def _check_model(fields: Fields, model: str) -> None:
    asked = fields.text("model")
    if asked not in (None, model):
        raise ApiError(
            f"the model {asked[:80]!a} is not served; use {model!a}",
            status=404,
            param="model",
            code="model_not_found",
        )


def _sampling(fields: Fields) -> Sampling:
    temperature, top_p = fields.number("temperature", 1.0), fields.number("top_p", 1.0)
    if temperature != 0 and not COLDEST <= temperature <= 1 / COLDEST:
        rule = f"it must be 0, which takes the likeliest tokens, or from {COLDEST} to 100"
        raise wrong("temperature", temperature, rule)
    if not 0 < top_p <= 1:
        raise wrong("top_p", top_p, "it must be above 0 and at most 1")
    top_k = fields.whole("top_k", 0, -1, _LARGE) or 0
    return Sampling(temperature, top_p, max(top_k, 0))


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    listed = value if isinstance(value, list) else [value]
    if len(listed) > MAX_STOPS or not all(isinstance(text, str) and text for text in listed):
        raise wrong("stop", value, f"it must be a text or at most {MAX_STOPS} texts, none empty")
    if any(len(text) > LONGEST_STOP for text in listed):
        raise wrong("stop", value, f"a text may have at most {LONGEST_STOP} characters")
    return tuple(checked_text("stop", text) for text in listed)


def _stop_ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    ok = isinstance(value, list) and len(value) <= MAX_STOPS
    if not ok or not all(is_whole(x) and 0 <= x <= _LARGE for x in value):
        raise wrong("stop_token_ids", value, f"it must be a list of at most {MAX_STOPS} ids")
    return tuple(value)


def _include_usage(value: Any) -> bool:
    if value is None:
        return False
    if not isinstance(value, dict):
        raise wrong("stream_options", value, "it must be an object")
    fields = Fields(value)
    include = fields.flag("include_usage")
    # Random text against eavesdroppers; the numbers of tokens in every chunk.
    fields.neutral({"include_obfuscation": (False,), "continuous_usage_stats": (False,)})
    fields.finish()
    return include


def _check_metadata(fields: Fields) -> None:
    value = fields.any("metadata")
    if value is not None and not (
        isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    ):
        raise wrong("metadata", value, "it must be an object of texts")
