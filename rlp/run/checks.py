"""Values that no run can use, refused before anything is built or read.

Each field is checked as `configs/default.py` declares it; the functions here check fields against
each other. What is known only when something is built, such as shapes that do not divide or missing
files, is refused there.
"""

import copy
from collections.abc import Mapping

from ml_collections import ConfigDict

from configs import default, fields
from rlp.data import compass
from rlp.data.problems import PROBLEM
from rlp.engine import readings
from rlp.metrics import catalogue, declared
from rlp.objectives import options
from rlp.objectives.equations import ADVANTAGES
from rlp.objectives.registry import find, reads_answers
from rlp.runtime.config_json import Value
from rlp.runtime.errors import UserError
from rlp.training import budget

INT32 = fields.INT32
FIELDS = {field.path: field for field in fields.walk(default.Config)}


def check(config: Mapping[str, Value]) -> None:
    """Refuses values that no run can use.

    Args:
      config: dotted path of every field to its value.

    Raises:
      UserError: names the field, its value and what it can be.
    """
    for path, field in FIELDS.items():
        if problem := field.problem(config[path]):
            raise UserError.of(path, config[path], problem)
    if config["steps"] == 0 and not config["init_from"] and not config["match"]:
        raise UserError(
            "steps=0 evaluates what a run starts from; say with init_from what that is, or set "
            "steps to 1 or more"
        )
    _check_match(config)
    if config["objective"] != "next_token":
        _check_objective(config)
    for rule, count in _given(config):
        if config[count] != 1:
            raise UserError(
                f"{count}={config[count]}; {rule}='given' has one fork per document, so set it to 1"
            )
    check_data = _check_compass if config["data.kind"] == "compass" else _check_text
    check_data(config)
    _check_sft(config)
    _check_lookahead(config)
    _check_problems(config)
    _check_best_metric(config)


def _given(config: Mapping[str, Value]) -> list[tuple[str, str]]:
    """The fields that say that the data gives the forks, each with the one that counts these."""
    trained, held_out = "rlp.positions", "evaluation.positions"
    counts = [(trained, "rlp.forks_per_document")]
    which = held_out if config[held_out] else trained  # says it of held-out documents
    counts.append((which, "evaluation.forks_per_document"))
    return [(rule, count) for rule, count in counts if config[rule] == "given"]


def with_options(config: ConfigDict) -> ConfigDict:
    """The config with all options that its objective declares, so that a run records them.

    Raises:
      UserError: there is no such option, or it cannot take its value.
    """
    if "arms" in config or not (values := options_of(config)):  # an arm has those of its objective
        return config
    filled = copy.deepcopy(config)
    with filled.unlocked():
        filled.objective_options = ConfigDict(values)
    return filled


def options_of(config: ConfigDict) -> dict[str, Value]:
    """All options of a config's objective, by name; those that the config does not give have their
    defaults.

    Raises:
      UserError: as of `with_options`.
    """
    declared = {} if config.objective == "next_token" else find(config.objective).options
    given = dict(config.get("objective_options", {}))
    return options.resolve(config.objective, declared, given)


def _check_objective(config: Mapping[str, Value]) -> None:
    """An objective over thoughts has what it reads."""
    name = str(config["objective"])
    readings.check(name)
    declared.check(tuple(find(name).metrics), f"objective={name!r}")
    objective, answers = find(name), reads_answers(name)
    compare = ADVANTAGES.get(str(config["rlp.advantages"]), objective.advantages)
    if config["rlp.group_size"] == 1 and compare is not ADVANTAGES["leave_one_out"]:
        raise UserError(
            "rlp.group_size=1 has no group to compare with; set group_size to 2 or more"
        )
    if config["rlp.baseline"] != "none" and not answers:
        return
    if config["rlp.group_size"] == 1:
        other = "" if answers else ", or baseline to 'ema'"
        nothing = "answers" if answers else "rlp.baseline='none'"
        raise UserError(
            f"rlp.group_size=1 has no group to compare with, and {nothing} nothing else; set "
            f"group_size to 2 or more{other}"
        )
    if readings.BASELINE in readings.needs(name):
        raise UserError(
            f"objective={name!r} compares with the prediction without a thought, which "
            "rlp.baseline='none' leaves out; set baseline to 'ema' or 'frozen'"
        )


def _check_match(config: Mapping[str, Value]) -> None:
    """`match` has its form, and the schedule an end where the steps are known before."""
    if not config["match"]:
        return
    _, unit = budget.split(str(config["match"]))
    schedule = config["optimizer.schedule"]
    if not budget.ends_known(str(config["objective"]), unit) and schedule != "constant":
        raise UserError(
            f"match={config['match']!r}: how many steps that takes is not known before, and "
            f"optimizer.schedule={schedule!r} needs to know; set it to 'constant'"
        )


def _check_text(config: Mapping[str, Value]) -> None:
    if reads_answers(str(config["objective"])):
        return
    if not config["data.train"] and config["data.sft.share"] != 1:
        raise UserError(
            "data.train is empty; give text files with --config.data.train=<file, folder, glob>"
        )
    if not config["data.fork_marker"]:
        for rule, _ in _given(config):
            raise UserError(f"{rule}='given' needs data.fork_marker to say where forks stand")


def _check_sft(config: Mapping[str, Value]) -> None:
    """Prompts with their responses: files, columns and a share that agree."""
    share, train = config["data.sft.share"], config["data.sft.train"]
    if config["data.kind"] == "compass":
        if train or share not in (0, 1):
            raise UserError(
                f"data.sft.train={train!r} with data.sft.share={share}; compass makes its pairs: "
                "leave train '', and set share to 1 (all rows are pairs) or 0"
            )
        if share and config["objective"] != "next_token":
            raise UserError("data.sft is for objective='next_token'")
        return
    if bool(train) != bool(share):
        raise UserError(
            f"data.sft.train={train!r} with data.sft.share={share}; set both: files of prompts "
            "with responses, and their share of the rows (1: all)"
        )
    if not share:
        return
    if config["objective"] != "next_token":
        raise UserError("data.sft is for objective='next_token'")
    if share == 1 and (config["data.train"] or config["data.evaluation"]):
        raise UserError(
            "data.sft.share=1 leaves no rows for documents; lower it, or leave data.train and "
            "data.evaluation ''"
        )
    prompt, response, messages = (
        bool(config[f"data.sft.{name}_column"]) for name in ("prompt", "response", "messages")
    )
    if not prompt == response != messages:
        raise UserError(
            "data.sft needs either data.sft.prompt_column and data.sft.response_column, or "
            "data.sft.messages_column: the names of its columns"
        )


def _check_lookahead(config: Mapping[str, Value]) -> None:
    """Lookaheads have documents to stand in, off which no thought branches."""
    share = config["data.lookahead.share"]
    if not share:
        return
    if config["objective"] != "next_token":
        raise UserError(
            f"data.lookahead.share={share} is for objective='next_token', and objective="
            f"{config['objective']!r} branches off documents without tags; set it to 0"
        )
    if config["data.sft.share"] == 1:
        raise UserError(
            f"data.lookahead.share={share} is of the documents, of which data.sft.share=1 leaves "
            "none; lower that, or set it to 0"
        )


def _check_problems(config: Mapping[str, Value]) -> None:
    """Problems: an objective over answers has some, and no other trains on them."""
    train, evaluation = config["data.problems.train"], config["data.problems.evaluation"]
    name, answers = config["objective"], reads_answers(str(config["objective"]))
    if config["data.kind"] == "compass":
        if train or evaluation not in ("", "compass"):
            raise UserError(
                f"data.problems.train={train!r} and evaluation={evaluation!r}; compass makes its "
                "problems: leave train '', and set evaluation to '' or 'compass'"
            )
    elif answers and not train:
        raise UserError(
            f"objective={name!r} answers problems; give their files with data.problems.train"
        )
    elif train and not answers:
        raise UserError(
            f"data.problems.train={train!r} is not for objective={name!r}, which answers no "
            "problems; take 'rlvr', or give them to data.problems.evaluation"
        )
    if answers and (config["data.train"] or config["data.evaluation"]):
        raise UserError(
            f"objective={name!r} answers problems and reads no documents; leave data.train and "
            "data.evaluation ''"
        )
    if answers and config["rlp.target_weight"]:
        raise UserError(
            f"rlp.target_weight={config['rlp.target_weight']}: no text follows a response of "
            f"objective={name!r}; set it to 0"
        )
    if answers or evaluation:
        for field in ("data.problems.prompt_column", "data.problems.answer_column"):
            if not config[field]:
                raise UserError(f"{field}=''; give the name of that column")
    if PROBLEM not in str(config["data.problems.instruction"]):
        raise UserError(
            f"data.problems.instruction={config['data.problems.instruction']!r} has no {PROBLEM} "
            "for the problem"
        )
    if answers and find(str(name)).weighs_planning and config["rlp.ratio"] == "sequence":
        raise UserError(
            f"objective={name!r} weighs single tokens, and rlp.ratio='sequence' whole responses; "
            "set ratio to 'token'"
        )


def _check_best_metric(config: Mapping[str, Value]) -> None:
    """What picks the best checkpoint is measured."""
    best, compass_data = config["evaluation.best_metric"], config["data.kind"] == "compass"
    answers, share = reads_answers(str(config["objective"])), float(config["data.sft.share"])
    measured = {
        "responses": share > 0,
        "problems": answers or bool(config["data.problems.evaluation"]),
        "documents": compass_data or share < 1 and not answers,
    }
    if best and best not in catalogue.PICKING:
        known = ", ".join(["''", *catalogue.PICKING])
        raise UserError.of("evaluation.best_metric", best, f"is unknown; use one of {known}")
    if best and not measured[catalogue.PICKING[str(best)].measured]:
        raise UserError(
            f"evaluation.best_metric={best!r} is not measured with objective="
            f"{config['objective']!r} and data.sft.share={share}; leave it ''"
        )


def _check_compass(config: Mapping[str, Value]) -> None:
    """Documents of one length: what is asked of them fits, or never will."""
    number = lambda field: int(config[field])
    need = compass.DOCUMENT_LENGTH
    if float(config["data.compass.thought_share"]) > 0:
        need += compass.THOUGHT_LENGTH
    if number("data.sequence_length") < need:
        raise UserError(
            f"data.sequence_length={config['data.sequence_length']}; compass needs {need}"
        )
    for field in ("data.bos", "data.eos", "data.separator"):
        if config[field]:
            raise UserError(
                f"{field}={config[field]!r}; compass has tokens of its own: leave it ''"
            )
    if config["data.chat_template"] not in ("", "none"):
        raise UserError(
            f"data.chat_template={config['data.chat_template']!r}; compass has no words for a "
            "chat: leave it ''"
        )
    if config["rlp.prompt"] != "none":
        raise UserError("compass has no words for a prompt; set rlp.prompt='none'")
    prefix, horizon = number("rlp.min_prefix"), number("rlp.horizon")
    forks = number("evaluation.forks_per_document")
    if config["objective"] != "next_token":
        forks = max(forks, number("rlp.forks_per_document"))
    if prefix + horizon + forks - 1 > compass.DOCUMENT_LENGTH:
        raise UserError(
            f"rlp.min_prefix={prefix}, rlp.horizon={horizon} and {forks} forks do not fit into the "
            f"{compass.DOCUMENT_LENGTH} tokens of a compass document; lower one of them"
        )
    for rule, _ in _given(config) if horizon > compass.ANSWER_LENGTH else ():
        raise UserError(
            f"rlp.horizon={horizon}; from the answer on, which {rule}='given' means, a compass "
            f"document has {compass.ANSWER_LENGTH} tokens"
        )
