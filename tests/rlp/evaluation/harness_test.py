"""Tasks of lm-evaluation-harness get the answers that transformers' own model gives there."""

import json
import math
import sys

import jax
import pytest

from configs import default
from models.sharding import make_mesh
from rlp.evaluation.generation.generator import Generator, Response, Sampling
from rlp.evaluation.harness import harness_model, run_harness
from rlp.evaluation.options.option_scores import OptionScorer
from rlp.evaluation.options.text_windows import rolling_windows
from rlp.run import opened_model
from rlp.runtime.errors import UserError
from tests.support import folders, real_models

pytest.importorskip("lm_eval", reason="requirements-harness.txt")
pytest.importorskip("torch")

MAX_LENGTH = 64
# Nats. On the context of equal words, the logits of SmolLM2 have a range of 60; in float32, their
# log-probabilities differ from those in float64 by 1e-4 (ours, on an AMD EPYC) and 4e-6 (theirs).
NEAR = {"tiny": 1e-4, "smollm2": 5e-6 * 60}
CHAT = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content | trim }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)

# Contexts of several lengths, the longest of which is too long, and one that ends with a space;
# choices of one token, of several tokens and of different lengths.
CHOICES = [
    {"text": "The cat sat on the", "choices": [" mat", " moon", " m"], "answer": 0},
    {"text": "1 + 1 =", "choices": [" 2", " 3", "x", "y"], "answer": 0},
    {"text": "A space ends this. ", "choices": ["yes", "no"], "answer": 1},
    {"text": "word " * 14, "choices": ["end", "a much longer end"], "answer": 0},
]
TEXTS = [{"text": "short"}, {"text": "A text of more bytes than one window has. " * 4}]
PROMPTS = [{"text": f"Q: what follows {i}?\nA:", "answer": "x"} for i in range(3)]

TASKS = {
    "choices": (
        CHOICES,
        {
            "output_type": "multiple_choice",
            "doc_to_text": "{{text}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "target_delimiter": "",
            "metric_list": [{"metric": m} for m in ("acc", "acc_norm", "acc_mutual_info")],
        },
    ),
    "texts": (
        TEXTS,
        {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": m} for m in ("word_perplexity", "bits_per_byte")],
        },
    ),
    "prompts": (
        PROMPTS,
        {
            "output_type": "generate_until",
            "doc_to_text": "{{text}}",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    ),
}


def write_tasks(folder, tasks=TASKS):
    """Write tasks with their data as local files."""
    for name, (rows, task) in tasks.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
        split = {"task": name, "test_split": "test", "num_fewshot": 0}
        (folder / f"{name}.yaml").write_text(json.dumps(split | source | task))  # JSON is YAML
    return folder


def adapter(source, name="tiny/model", **options):
    """Our model for the harness."""
    mesh = make_mesh(devices=jax.devices()[:1])
    opened = opened_model.open_model(str(source), default.get_config(), mesh)
    method, words = opened.method, opened.method.tokenizer
    return harness_model(
        OptionScorer(method, opened.params, mesh),
        Generator(method.model, opened.params, mesh, words.decode),
        words,
        name=name,
        max_length=MAX_LENGTH,
        template=method.template,
        **options,
    )


def reference(tokenizer, **source):
    """The model of the harness over transformers."""
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    network = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    words = transformers.AutoTokenizer.from_pretrained(tokenizer)
    return HFLM(pretrained=network, tokenizer=words, max_length=MAX_LENGTH, batch_size=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small model in the Hugging Face format, whose embedding has rows for its ids alone."""
    files = folders.byte_files() | {"chat_template.jinja": CHAT}
    return folders.write(tmp_path_factory.mktemp("model") / "hf", files=files, vocab_size=261)


@pytest.fixture(scope="module")
def ours(folder):
    return adapter(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return reference(folder, pretrained_model_name_or_path=folder)


@pytest.fixture(scope="module", params=["tiny", pytest.param("smollm2", marks=pytest.mark.slow)])
def both(request, tmp_path_factory):
    """The results of all tasks with our model and with theirs, and the name of the network."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    if request.param == "tiny":
        ours, theirs = request.getfixturevalue("ours"), request.getfixturevalue("theirs")
    else:
        found = real_models.smollm2()
        source = {"pretrained_model_name_or_path": str(found.gguf.parent)}
        theirs = reference(found.run / "hf", **source, gguf_file=found.gguf.name)
        ours = adapter(found.run, request.param)
    tasks = str(write_tasks(tmp_path_factory.mktemp("tasks")))
    expected = lm_eval.simple_evaluate(
        model=theirs,
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=tasks, include_defaults=False),
        bootstrap_iters=10,
    )
    found = run_harness(list(TASKS), ours, include_path=tasks, bootstrap_iters=10, samples=True)
    return found, expected, request.param


@pytest.mark.parametrize("task", TASKS)
def test_every_request_has_the_answer_of_transformers(both, task):
    found, expected = (results["samples"][task] for results in both[:2])
    assert len(found) == len(TASKS[task][0])
    for mine, other in zip(found, expected, strict=True):
        assert mine["arguments"] == other["arguments"]
        for actual, wanted in zip(mine["resps"], other["resps"], strict=True):
            if task == "prompts":
                assert actual == wanted
                assert actual[0]
            elif task == "texts":
                assert actual == pytest.approx(wanted, rel=1e-5)
            else:
                ((logprob, greedy),), ((their_logprob, their_greedy),) = actual, wanted
                assert logprob == pytest.approx(their_logprob, abs=NEAR[both[2]])
                assert greedy == their_greedy


def test_the_table_is_that_of_the_harness(both):
    found, expected, network = both
    rows = {(row["task"], f"{row['metric']},{row['filter']}"): row for row in found["rows"]}
    assert {task for task, _ in rows} == set(TASKS)
    assert len(rows) == 6
    for (task, key), row in rows.items():
        value, wanted = row["value"], expected["results"][task][key]
        if key.startswith("word_perplexity"):  # of which the harness takes the exponential
            value, wanted = math.log(value), math.log(wanted)
        assert value == pytest.approx(wanted, rel=1e-5)
        error = expected["results"][task][f"{row['metric']}_stderr,{row['filter']}"]
        assert (row["stderr"] is None) == (error == "N/A")
        assert row["n"] == len(TASKS[task][0])
        assert (row["shots"], row["group"]) == (0, False)
    if network == "tiny":
        assert found["truncated"] == {"loglikelihood": 2}  # both choices of the longest context
    assert found["version"] == expected["lm_eval_version"]


def test_choices_of_a_question_are_branches_of_one_row(ours, tmp_path, monkeypatch):
    asked = []
    score = OptionScorer.score

    def spy(self, questions, done=None):
        asked.extend(questions)
        return score(self, questions, done)

    monkeypatch.setattr(OptionScorer, "score", spy)
    tasks = write_tasks(tmp_path, {"choices": TASKS["choices"]})
    run_harness(["choices"], ours, include_path=str(tasks), bootstrap_iters=0, limit=2)
    # Besides the two questions, the choices without a context, which share the BOS.
    assert sorted(len(question.options) for question in asked) == [3, 4, 7]
    assert sorted(len(question.context) for question in asked)[0] == 1


def test_windows_are_those_of_the_harness():
    from lm_eval import utils

    for length in range(1, 30):
        text = list(range(length))
        for window in range(1, 12):
            theirs = map(
                utils.make_disjoint_window, utils.get_rolling_token_windows(text, -1, window, 1)
            )
            found = rolling_windows(text, -1, window)
            cut = lambda part: (part.ids[: -part.count], part.ids[-part.count :])
            assert list(map(cut, found)) == list(theirs)


@pytest.mark.parametrize("ask", [True, False])
def test_chats_are_those_of_transformers(ours, theirs, ask):
    messages = [
        {"role": "user", "content": "one and one?"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "one again "},
    ]
    if not ask:  # the start of the answer
        messages.append({"role": "assistant", "content": "It is"})
    found = ours.apply_chat_template(messages, add_generation_prompt=ask)
    assert found == theirs.apply_chat_template(messages, add_generation_prompt=ask)
    assert ours.tok_encode(found) == theirs.tok_encode(found)  # one BOS
    assert ours.chat_template(True) == theirs.chat_template(True) == CHAT
    assert ours.tokenizer_name == "tiny__model"


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("content", ["m.content", "m.content | trim"])
@pytest.mark.parametrize(
    "message",
    [
        "```python\ndef f():\n",
        "e",
        "a",
        "\n\nThe answer is ",
        "<|im_end|>",
        "trailing \t\n",
        "",
        " ",
    ],
)
def test_a_continued_message_ends_where_that_of_transformers_does(
    ours, theirs, monkeypatch, content, message
):
    template = CHATML.replace("CONTENT", content)
    monkeypatch.setattr(ours, "_template", template)
    messages = [{"role": "user", "content": "e "}, {"role": "assistant", "content": message}]
    expected = theirs.tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, continue_final_message=True
    )
    found = ours.apply_chat_template(messages, add_generation_prompt=False)
    assert found == expected
    if content == "m.content":
        assert found.endswith(f"assistant\n{message}")


def test_a_template_that_leaves_out_the_continued_message_is_refused(ours, monkeypatch):
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    for content in ("'two'", "m.content | replace('two', 'three')"):
        monkeypatch.setattr(ours, "_template", CHATML.replace("CONTENT", content))
        with pytest.raises(UserError, match="changes messages, so that a response cannot"):
            ours.apply_chat_template(messages, add_generation_prompt=False)


class Recorder:
    """A generator that records requests, and answers each with its seed."""

    def __init__(self):
        self.requests = []

    def generate(self, requests, done):
        self.requests = list(requests)
        for i in range(len(requests)):
            done(i, None)
        return [Response((), str(request.seed), (), "length") for request in requests]


@pytest.fixture
def recorded(ours, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(ours, "_generator", recorder)
    return recorder


def generate(model, *pairs) -> list[str]:
    from lm_eval.api.instance import Instance

    requests = [Instance("generate_until", {}, pair, i) for i, pair in enumerate(pairs)]
    return model.generate_until(requests)


def test_a_request_follows_its_arguments(ours, recorded):
    generate(
        ours,
        ("abc", {"until": ["\n", "Q:", ""], "max_gen_toks": 7}),
        ("abc", {"until": "x", "max_new_tokens": 9, "temperature": 0.7, "top_p": 0.95}),
        (
            "abc",
            {
                "do_sample": True,
                "temperature": 1,
                "top_k": 5,
                "num_beams": 1,
                "max_tokens": 4,
                "top_p": None,
            },
        ),
        ("abc", {"do_sample": False, "temperature": 0.7, "max_completion_tokens": 3, "top_k": -1}),
        ("a" * 100, {"max_gen_toks": 60}),
        ("", {"max_gen_toks": 60}),
    )
    words = ours._words
    asked = [(r.stop, r.max_tokens, r.sampling) for r in recorded.requests]
    assert asked == [
        (("\n", "Q:"), 7, Sampling(0.0)),
        (("x",), 9, Sampling(0.7, 0.95)),
        ((), 4, Sampling(1.0, 1.0, 5)),
        ((), 3, Sampling(0.0)),
        ((), 60, Sampling(0.0)),
        ((), 60, Sampling(0.0)),
    ]
    prompts = [list(r.prompt) for r in recorded.requests]
    assert prompts[:4] == [[*words.bos, *b"abc"]] * 4
    assert prompts[4:] == [[*b"aaaa"], list(words.bos)]
    assert {r.ends for r in recorded.requests} == {(words.eos,)}


def test_repeats_of_a_request_have_seeds_of_their_own_and_every_run_the_same(ours, recorded):
    sampled = {"temperature": 1.0, "max_gen_toks": 5}
    pairs = [("abc", sampled)] * 3 + [("abd", sampled)] * 2 + [("abc", sampled)]
    seeds = generate(ours, *pairs)
    assert len(set(seeds)) == 6
    assert generate(ours, *pairs) == seeds
    assert generate(ours, *pairs[:2]) == seeds[:2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2 would change the responses"),
        ({"logit_bias": {}}, "logit_bias={} would change the responses"),
        ({"do_sample": True}, "do_sample=true needs a temperature"),
        ({"temperature": "warm"}, "could not convert"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p=1.5 is out of range"),
        ({"temperature": 1.0, "top_p": 0}, "top_p=0.0 is out of range"),
        ({"max_gen_toks": 0}, "max_gen_toks=0 is out of range"),
        ({"max_gen_toks": 64}, "leave no room for a prompt in max_length=64"),
    ],
)
def test_arguments_that_cannot_be_followed_are_refused(ours, recorded, given, message):
    with pytest.raises(UserError, match=message):
        generate(ours, ("abc", {"max_gen_toks": 5}), ("abc", given))
    assert recorded.requests == []


def test_what_cannot_be_run_is_refused_in_one_line(ours, tmp_path, monkeypatch):
    tasks = write_tasks(tmp_path, {"choices": TASKS["choices"]})
    run = lambda *names, **options: run_harness(names, ours, include_path=str(tasks), **options)
    (tmp_path / "choices.jsonl").unlink()
    with pytest.raises(UserError, match="the data of the tasks choices cannot be read"):
        run("choices")
    with pytest.raises(UserError, match="the folder of tasks 'none' does not exist"):
        run_harness(["choices"], ours, include_path="none")
    monkeypatch.setattr(ours, "_template", None)
    with pytest.raises(UserError, match="tiny/model has no chat template"):
        run("choices", apply_chat_template=True)


def test_an_unknown_task_is_named(ours, tmp_path, monkeypatch):
    class Manager:
        def __init__(self, include_path, include_defaults):
            self.known = {"mine", "gsm8k"} if include_defaults else {"mine"}

        def match_tasks(self, names):
            return [name for name in names if name in self.known]

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Manager)
    with pytest.raises(UserError, match="does not know the task 'no_such_task'"):
        run_harness(["mine", "gsm8k", "no_such_task"], ours, include_path=str(tmp_path))


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for call in (lambda: run_harness(["gsm8k"], None), harness_model):
        with pytest.raises(UserError, match="pip install -r requirements-harness.txt"):
            call()
