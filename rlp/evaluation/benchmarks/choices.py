r"""Multiple choice: how options are written, prompts, and the scoring of options.

The prompts named "skills" are those of NVIDIA/NeMo-Skills at commit 0b012df (14 November 2025,
Apache 2.0), under `nemo_skills/prompt/config/eval/aai`. Until 24 September 2025 (pull request 843),
its benchmarks GPQA and MMLU-Pro used the boxed prompts; the unboxed ones are the default since.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from rlp.evaluation.benchmarks.benchmark import LETTERS, Example, OptionScoring, Problem, Prompt

_SKILLS = "NVIDIA/NeMo-Skills@0b012df nemo_skills/prompt/config/eval/aai"
_OURS = "this project"
_HARNESS = "EleutherAI/lm-evaluation-harness 0.4.13, lm_eval/tasks"
_GAP = "\n\n\n"
Examples = Callable[[Path], Sequence[Example]]


def lettered(problem: Problem) -> str:
    """Return a question with its options as lines "A) text", as NeMo-Skills writes it."""
    lines = [f"{letter}) {text}" for letter, text in zip(LETTERS, problem.options, strict=False)]
    return problem.question.strip("\n") + "\n\n" + "\n".join(lines)


def harness_lettered(problem: Problem) -> str:
    """Return a question with its options as lines "A. text", as lm-evaluation-harness writes it."""
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, problem.options, strict=False)]
    return "\n".join([problem.question.strip(), *lines])


def letter_options(problem: Problem) -> tuple[str, ...]:
    """Return " A", " B", …, one for each option."""
    return tuple(f" {letter}" for letter in LETTERS[: len(problem.options)])


def text_options(problem: Problem) -> tuple[str, ...]:
    """Return the texts of the options, each after a space."""
    return tuple(f" {text}" for text in problem.options)


def choice_prompts(options: int, examples: Examples, shots: int, boxed: bool) -> tuple[Prompt, ...]:
    """Return the prompts of a benchmark of multiple choice.

    Args:
      options: the letters that the prompt lists, whatever the number of options of a problem.
      examples: returns solved problems for the prompts of base models.
      shots: number of examples in such a prompt.
      boxed: whether the prompts with a box are the defaults.
    """
    letters = LETTERS[:options]
    prompts = [
        _prompt(letters, box, chat, examples, shots)
        for chat in (True, False)
        for box in (boxed, not boxed)
    ]
    zero_shot = [
        _prompt(letters, box, False, examples, 0, "-zero-shot") for box in (boxed, not boxed)
    ]
    return (*prompts, *zero_shot)


def last_line(response: str) -> str:
    """Return the last line of a response that is not blank, without white space around it."""
    return response.rstrip().rpartition("\n")[2].strip()


def _prompt(
    letters: str, boxed: bool, chat: bool, examples: Examples, shots: int, ending: str = ""
) -> Prompt:
    """Return a prompt of `choice_prompts`; a chat shows no examples."""
    form = r"\boxed{%s}" if boxed else "%s"
    size, suffix = len(letters), "-boxed" if boxed else ""
    ask = (
        "Answer the following multiple choice question. The last line of your response should be "
        f"in the following format: 'Answer: {form % '/'.join(letters)}' "
        f"(e.g. 'Answer: {form % 'A'}')."
    )
    line = re.compile(rf"Answer: \\boxed\{{[{letters}]\}}" if boxed else rf"Answer: [{letters}]")
    complies = lambda response: line.fullmatch(last_line(response)) is not None
    if chat or not shots:
        return Prompt(
            name=f"skills-mcq-{size}{suffix}{ending}",
            date="2025-07" if boxed else "2025-09",
            source=f"{_SKILLS}/mcq-{size}choices{suffix}.yaml",
            text=ask + "\n\n{problem}",
            layout=lettered,
            chat=chat,
            complies=complies,
        )
    return Prompt(
        name=f"mcq-{size}{suffix}-base-{shots}-shot",
        date="2026-11",
        source=f"{_OURS}, with the sentence of {_SKILLS}/mcq-{size}choices{suffix}.yaml",
        text="{examples}{problem}\n\n",
        layout=lettered,
        chat=False,
        complies=complies,
        examples=examples,
        shots=shots,
        example="{problem}\n\n{steps}Answer: " + form % "{answer}" + _GAP,
        before_examples=ask.replace("question", "questions", 1) + _GAP,
        stop=(_GAP,),
    )


def letter_scoring(examples: Examples | None = None, shots: int = 0) -> OptionScoring:
    """Return the scoring of letters after a question, as lm-evaluation-harness scores MMLU.

    Args:
      examples: returns solved problems with the subjects of the questions.
      shots: number of examples; 0 is the default of the harness, 5 that of papers.
    """
    return OptionScoring(
        Prompt(
            name=f"harness-mmlu-{shots}-shot",
            date="2026-08",
            source=f"{_HARNESS}/mmlu",
            text="The following are multiple choice questions (with answers) about {subject}.\n\n"
            "{examples}{problem}\nAnswer:",
            layout=harness_lettered,
            chat=False,
            examples=examples,
            shots=shots,
            example="{problem}\nAnswer: {answer}\n\n",
        ),
        letter_options,
    )


def text_scoring(source: str, text: str) -> OptionScoring:
    """Return the scoring of the texts of options by their log-likelihood per character.

    Args:
      source: the task of lm-evaluation-harness that scores them in this way.
      text: template of the text before the options.
    """
    prompt = Prompt(f"harness-{source}", "2026-08", f"{_HARNESS}/{source}", text, chat=False)
    return OptionScoring(prompt, text_options, per_character=True)


def _science(name: str, question: str, options: str, gold: str, solution: str) -> Example:
    return Example(Problem(name, question, gold, tuple(options.split("; "))), solution)


def science_examples(folder: Path) -> Sequence[Example]:
    """Return solved questions that were written for this project, for a task without any."""
    return (
        _science(
            "density",
            "A cube with sides of 2 cm has a mass of 56 g. What is the density of its material?",
            "28 g/cm^3; 14 g/cm^3; 7 g/cm^3; 3.5 g/cm^3",
            "C",
            "The volume is 2^3 = 8 cm^3, so the density is 56 g / 8 cm^3 = 7 g/cm^3.",
        ),
        _science(
            "half-life",
            "A sample has 80 mg of an isotope with a half-life of 6 hours. How much of it is left "
            "after 18 hours?",
            "10 mg; 20 mg; 26.7 mg; 40 mg",
            "A",
            "18 hours are three half-lives, so 80 mg / 2^3 = 10 mg are left.",
        ),
        _science(
            "cross",
            "Two plants that are heterozygous in one gene with complete dominance are crossed. "
            "Which share of the offspring shows the recessive trait?",
            "None; One quarter; One half; Three quarters",
            "B",
            "One of the four equally likely combinations has two recessive alleles.",
        ),
    )
