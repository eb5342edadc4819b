"""Tables of the scores of models in benchmarks: a row for each score and model.

Scores are summaries of results as JSON values (`rlp.evaluation.runner.result`), so that a table can
be made again from results.json.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rlp.report.markdown import aligned
from rlp.runtime.display import markdown_cell

HEADINGS = (
    *("task", "model", "problems", "accuracy %", "± problems", "± runs"),
    *("over the first", "pass@k %", "majority@k %", "format %", "no answer %"),
    *("truncated %", "tokens"),
)
_NONE = "–"


def document(content: Mapping[str, Any]) -> str:
    """Return results.json as a page in Markdown: scores, means and notes."""
    listed = "\n".join(f"- {markdown_cell(line)}" for line in notes(content["results"]))
    return "\n\n".join([score_table(content["results"]), mean_table(content["means"]), listed])


def score_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table with a row for each task and model, aligned for terminals, too.

    Args:
      results: the summaries; those of one score are next to each other.
    """
    cells = ([markdown_cell(cell) for cell in row] for row in score_rows(results))
    return aligned([HEADINGS, *cells], words=2)


def score_rows(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the cells of `score_table` without its headings; a score is named in its first row."""
    names = [result["entry"] for result in results]
    repeated = [a == b for a, b in zip(names, ["", *names], strict=False)]
    return [
        _row("" if again else result["entry"], result)
        for result, again in zip(results, repeated, strict=True)
    ]


def _row(task: str, result: Mapping[str, Any]) -> list[str]:
    generated = bool(result["extractor"])
    format_share = lambda name: _percent(result[name]) if generated else _NONE
    gap, error = result.get("over_first") or (None, None)
    difference = _NONE if gap is None else f"{100 * gap:+.1f}" + _plus_minus(error)
    thought = generated or result["tokens"]
    return [
        task,
        result["model"],
        _count(result),
        _percent(result["accuracy"]),
        _percent(result["error_over_problems"]),
        _percent(result["error_over_runs"]),
        difference,
        _largest(result["pass_at"]),
        _largest(result["majority_at"]),
        format_share("complies"),
        format_share("no_answer"),
        _percent(result["truncated"]) if thought else _NONE,
        f"{result['tokens']:.0f}" if thought else _NONE,
    ]


def mean_table(means: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return a Markdown table of means over scores: a row for each model, a column for each mean.

    Args:
      means: model → its means, each with `name`, `value` and `of`, the number of what was averaged.
    """
    return aligned([list(map(markdown_cell, row)) for row in mean_rows(means)], words=1)


def mean_rows(means: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return the cells of `mean_table`, with its headings."""
    first = next(iter(means.values()))
    heads = [f"{mean['name']} % (of {mean['of']})" for mean in first]
    rows = [[model, *(_percent(mean["value"]) for mean in of)] for model, of in means.items()]
    return [["model", *heads], *rows]


def notes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a reader of the table must know: prompts, extractors, parts of tasks."""
    lines: dict[str, dict[str, list[str]]] = {}  # entry -> line -> models
    for result in results:
        reads = f", read by {result['extractor']}" if result["extractor"] else ""
        asked = f"prompt {result['prompt']}" if result["extractor"] else result["prompt"]
        of_entry = lines.setdefault(result["entry"], {})
        said = [f"{result['method']}; {asked}{reads}", result["part"]]
        if result["failed"]:
            said.append(f"{_percent(result['failed'])}% of the checks failed")
        for line in filter(None, said):
            of_entry.setdefault(line, []).append(result["model"])
    everyone = list(dict.fromkeys(result["model"] for result in results))
    return [
        f"{entry}: {line}" + ("" if models == everyone else f" ({', '.join(models)})")
        for entry, of_entry in lines.items()
        for line, models in of_entry.items()
    ]


def _count(result: Mapping[str, Any]) -> str:
    """Return the number of problems, of how many if they are not all of the public file."""
    return f"{result['problems']:,}" + (f" of {result['size']:,}" if result["part"] else "")


def _largest(values: Mapping[Any, float]) -> str:
    """Return the value of the largest k, with k; nothing for k = 1."""
    if not values:
        return _NONE
    k, value = max(values.items(), key=lambda item: int(item[0]))
    return f"{_percent(value)} (k={k})" if int(k) > 1 else _NONE


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.1f}"


def _plus_minus(error: float | None) -> str:
    return "" if error is None else f" ± {100 * error:.1f}"
