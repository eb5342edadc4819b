"""The format of responses: the tokens before a response, and the token that ends it."""

import json

import numpy as np
import pytest

from rlp.answers.gold_answers import GoldAnswers
from rlp.answers.grading import Grade, Grader, StepTime
from rlp.data.compass import TOKENIZER
from rlp.data.conversations import Format
from rlp.data.pairs import tokenize_pairs
from rlp.data.problem_format import ProblemFormat
from rlp.data.problems import problem_streams
from rlp.engine.branches import response_vocabulary, vocabulary
from rlp.engine.method import Method
from rlp.evaluation.answering import Answering, response_settings
from rlp.evaluation.response_format import begins_in_thought, make_response_format
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.load import load_tokenizer
from tests.support import folders, tiny
from tests.support.bpe_folder import make_folder

BYTES = load_tokenizer("bytes")


def words_of_responses(form, spelling, size):
    """In an embedding of `size` rows."""
    thoughts = vocabulary(
        think_open=spelling.think_open, think_close=spelling.think_close, pad=spelling.pad,
        bos=spelling.bos, eos=spelling.eos, separator=spelling.separator,
        used=spelling.vocab_size, size=size,
    )  # fmt: skip
    return response_vocabulary(thoughts, form.opening, form.end)


def template(turn, ask):
    return (
        "{% for m in messages %}" + turn + "{% endfor %}"
        "{% if add_generation_prompt %}" + ask + "{% endif %}"
    )


TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
ASK = "<|im_start|>assistant\n"
TEMPLATES = {
    "chatml": template(TURN, ASK),
    "an end of another name": template(TURN.replace("im_end", "endoftext"), ASK),
    "roles that are text": template("{{ m.role }}: {{ m.content }}<|im_end|>", "assistant: "),
}
THINKING = template(TURN, ASK + "<think>\n")  # as DeepSeek-R1's


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    """A byte-level BPE tokenizer with the special tokens of ChatML."""
    names = ("<think>", "</think>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>")
    named = {"eos_token": "<|im_end|>", "pad_token": "<pad>"}
    folder = make_folder(tmp_path_factory.mktemp("bpe"), names, **named)
    return load_tokenizer(folder, separator="<|endoftext|>")


@pytest.fixture(scope="module")
def spelled(tmp_path_factory):
    """A byte tokenizer in a folder: thinking tags are the bytes of their text; with <bos>."""
    folder = tmp_path_factory.mktemp("spelled")
    for name, content in folders.byte_files(tags=False).items():
        (folder / name).write_text(content)
    return load_tokenizer(str(folder))


def prompt_of(path, form, words, text):
    """Return the ids of the row of a problem, with the opening of the response."""
    path.write_text(json.dumps({"problem": text, "answer": "1"}) + "\n")
    _, held = problem_streams(
        evaluation=str(path), train="", form=ProblemFormat("problem", "answer"), ask=form.ask,
        gold_answers=GoldAnswers(Grader("exact", 60, 1, "</think>")), tokenizer=words,
        head=form.head,
        opening=form.opening[0] if form.shared else None,
        sequence_length=300,
    )  # fmt: skip
    batch = held[path.stem].batch(0, 1)
    return [*batch.tokens[0, : batch.forks[0, 0]].tolist(), *form.opening]


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_response_follows_its_prompt_as_it_does_in_pairs(name, think, bpe, tmp_path):
    """The sampler sees the prompt of the template, and the end is that of pairs. Pairs are
    tokenized as one text, so their ids are the same, unless the prompt of the template ends with a
    space, which becomes a part of the first token of the response."""
    form = make_response_format(bpe, TEMPLATES[name], think)
    asked = bpe.chat([{"role": "user", "content": "north?"}], TEMPLATES[name], True)
    assert form.ask("north?") == asked
    seen = prompt_of(tmp_path / "a.jsonl", form, bpe, "north?")
    assert seen == [*bpe.encode(asked), *(bpe.think_open if think else ())]
    assert form.shared is not think
    row = {"question": "north?", "answer": "<think>é</think>west" if think else "west"}
    (tmp_path / "b.jsonl").write_text(json.dumps(row) + "\n")
    columns = Format(prompt="question", response="answer")
    corpus, _ = tokenize_pairs([str(tmp_path / "b.jsonl")], "f", columns, TEMPLATES[name], bpe)
    pair = corpus.tokens.tolist()
    messages = [{"role": "user", "content": "north?"}]
    messages.append({"role": "assistant", "content": row["answer"]})
    assert pair == bpe.encode(bpe.chat(messages, TEMPLATES[name], False))
    said = len(bpe.encode(asked + row["answer"]))
    assert pair[said] == form.end
    assert corpus.loss_mask[said]
    if think or not asked.endswith(" "):
        assert pair[: len(seen)] == seen


def test_space_before_the_end_is_not_the_end(bpe):
    """As in the template of Llama 2: pairs train on the space, and then on the end."""
    form = make_response_format(bpe, template("{{ m.content }} <|im_end|>", ">"), True)
    assert bpe.decode([form.end]) == "<|im_end|>"


def test_without_a_template_a_response_begins_with_its_tag_and_ends_as_documents_do(
    bpe, spelled, tmp_path
):
    for words, head in ((BYTES, BYTES.bos), (spelled, spelled.bos), (bpe, ())):
        form = make_response_format(words, None, think=True)
        assert (form.head, form.opening, form.shared) == (
            head,
            words.think_open,
            False,
        )
        assert form.end == words.separator
        seen = prompt_of(tmp_path / "a.jsonl", form, words, "1 + é")
        assert seen == [*head, *words.encode("1 + é"), *words.think_open]
    compass = make_response_format(TOKENIZER, None, think=True)
    assert (compass.head, compass.opening, compass.end) == ((1,), (3,), 2)


def test_whether_a_response_begins_inside_of_a_thought(bpe, spelled):
    for words, text, think, inside in (
        (bpe, TEMPLATES["chatml"], True, True),
        (bpe, TEMPLATES["chatml"], False, False),
        (bpe, THINKING, False, True),  # the template opens the thought
        (bpe, None, True, True),
        (spelled, None, True, True),
        (BYTES, None, True, True),
        (TOKENIZER, None, True, True),
    ):
        form = make_response_format(words, text, think)
        assert begins_in_thought(form, words) is inside, (text, think)


def test_a_template_that_opens_a_thought_begins_the_response(bpe, tmp_path):
    form = make_response_format(bpe, THINKING, think=False)
    seen = prompt_of(tmp_path / "a.jsonl", form, bpe, "north?")
    assert bpe.decode(seen).endswith("<|im_start|>assistant\n<think>\n")
    assert bpe.decode(form.opening) == "\n"


@pytest.mark.parametrize(
    ("text", "think", "message"),
    [
        (None, False, "data.problems.think=False needs a chat template, whose last token starts"),
        (THINKING, True, "opens a thought by itself; set data.problems.think=False"),
        (template("{{ m.content }}\n", ">"), True, "adds no token after a response, so responses"),
        (
            template("{{ m.content }}\n\n## ", ">"),
            True,
            "ends a response with '#', which also occurs",
        ),
        (
            template("{{ m.content }}<end>", ">"),
            True,
            "ends a response with '<', which also",
        ),
        (template("{{ m.role }}<|im_end|>", ">"), True, "leaves out what an assistant says"),
        ("{{ raise_exception('no\nsuch') }}", True, "the chat template fails: no such"),
    ],
)
def test_frames_that_cannot_be_say_what_to_change(bpe, text, think, message):
    with pytest.raises(UserError, match=message) as caught:
        make_response_format(bpe, text, think)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="the byte tokenizer has no tokens for a chat"):
        make_response_format(BYTES, TEMPLATES["chatml"], think)


# ---- words ----


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("think", [True, False])
def test_a_response_can_hold_its_end_and_a_closing_tag_and_no_other_special(name, think, bpe):
    form, size = make_response_format(bpe, TEMPLATES[name], think), bpe.vocab_size + 9
    words = words_of_responses(form, bpe, size)
    assert words.think_open == form.opening
    assert words.think_close == (form.end,)
    never = {bpe.pad, bpe.eos, bpe.separator, *bpe.think_open} - {form.end}
    assert set(words.not_in_thoughts) == never | set(range(bpe.vocab_size, size))
    assert len(set(words.not_in_thoughts)) == len(words.not_in_thoughts)
    for allowed in (form.end, *bpe.think_close, *bpe.encode("north \n")):
        assert allowed not in words.not_in_thoughts
    if name == "an end of another name":
        assert bpe.eos in words.not_in_thoughts


def test_a_spelled_tag_is_text_in_a_response_and_bos_is_not(spelled):
    form = make_response_format(spelled, None, think=True)
    words = words_of_responses(form, spelled, spelled.vocab_size + 2)
    unused = [spelled.vocab_size, spelled.vocab_size + 1]
    assert list(words.not_in_thoughts) == sorted([*spelled.bos, spelled.pad]) + unused
    assert len(form.opening) > 1
    assert words.pad == spelled.pad


def test_the_end_may_be_padding():
    class Padded(ByteTokenizer):
        """Pads with EOS, as folders without a pad token do."""

        pad = ByteTokenizer.eos

    words = words_of_responses(make_response_format(Padded(), None, True), Padded(), 300)
    assert words.think_close == (Padded.pad,)
    assert Padded.pad not in words.not_in_thoughts
    assert {*BYTES.bos, *BYTES.think_open} < set(words.not_in_thoughts)


def test_what_is_sampled_of_a_thought_differs_in_its_end_alone():
    thoughts = vocabulary(
        think_open=BYTES.think_open, think_close=BYTES.think_close, pad=BYTES.pad, bos=BYTES.bos,
        eos=BYTES.eos, separator=BYTES.separator, used=261, size=264,
    )  # fmt: skip
    responses = words_of_responses(make_response_format(BYTES, None, True), BYTES, 264)
    assert set(thoughts.not_in_thoughts) - set(responses.not_in_thoughts) == {BYTES.eos}
    assert set(responses.not_in_thoughts) < set(thoughts.not_in_thoughts)


# ---- a method for responses ----


def test_a_response_stands_at_the_end_of_its_prompt_and_nothing_follows_it():
    given = tiny.rlp_settings(
        objective="rlvr",
        group_size=6,
        prompt=(7, 8),
        target_weight=0.5,
        kl_weight=0.1,
        clip_high=0.3,
    )
    made = response_settings(given, 99)
    assert (made.thought_length, made.forks_per_document, made.horizon) == (99, 1, 1)
    assert (made.positions, made.prompt, made.baseline) == ("given", (), "none")
    assert not made.learns_target
    assert made.keeps_reference
    kept = ("objective", "group_size", "temperature", "kl_weight", "unclosed")
    assert all(getattr(made, name) == getattr(given, name) for name in kept)


def test_the_words_of_a_response_are_graded_without_what_ends_it():
    class Told:
        """Records its arguments."""

        def grade_all(self, groups, answers, left):
            self.asked = groups, answers
            return [[Grade(text, True, False, 0.5, False) for text in group] for group in groups]

    form, told = make_response_format(BYTES, None, True), Told()
    answering = Answering(
        method=Method(
            tiny.model_config(), tiny.rlp_settings(), words_of_responses(form, BYTES, 264)
        ),
        response_format=form,
        grader=told, decode=BYTES.decode, texts=BYTES.token_bytes(),
        phrases=("wait",),
    )  # fmt: skip
    actions = np.full((2, 2, 8), BYTES.pad)
    close = BYTES.think_close
    texts = [[[*b"wait", *close, *b"1"], [*b"wai"]], [[], [*"é".encode()]]]
    words = np.array([[len(text) for text in group] for group in texts])
    for place in np.ndindex(2, 2):
        said = [*texts[place[0]][place[1]], form.end]
        actions[place][: len(said)] = said
    expected = [["wait</think>1", "wai"], ["", "é"]]
    grades = answering.grades(actions, words, ["x", "y"], StepTime(1))
    assert told.asked == (expected, ["x", "y"])
    assert [[grade.answer for grade in group] for group in grades] == expected
    assert grades[0][0] == Grade("wait</think>1", True, False, 0.5, False)
    actual = answering.planning(actions, words)
    assert actual.sum() == 4
    assert actual[0, 0, :4].all()
