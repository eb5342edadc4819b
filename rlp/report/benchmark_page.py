"""The page of an evaluation on benchmarks: scores, a plot, and the answers themselves.

It has no script. Text of models and files is untrusted and is written through `html.escape`.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rlp.report.benchmarks import HEADINGS, mean_rows, notes, score_rows
from rlp.report.html_table import escape
from rlp.runtime import atomic_files, disk_errors

TITLE = "RLP evaluation: "  # prefix of the title of every page, which identifies our files
MOST_CHARACTERS = 6000  # of a response that is shown
_WIDTH, _ROW, _LEFT, _RIGHT = 640, 18, 230, 24  # of the plot, px
_COLORS = 8  # of lines in page.css


def write_page(
    content: Mapping[str, Any], examples: Mapping[str, Mapping[str, Any]], out: Path
) -> None:
    """Write the page atomically.

    Args:
      content: results.json.
      examples: score → model → problems with answers (`Result.examples`).
      out: the file to write.

    Raises:
      UserError: If `out` is a file that is not such a page, or cannot be written.
    """
    disk_errors.refuse_other(out, f"<title>{TITLE}")
    atomic_files.write_whole(out, render(content, examples).encode("utf-8", "backslashreplace"))


def render(content: Mapping[str, Any], examples: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page as HTML text; see `write_page`."""
    results, heading = content["results"], escape(content["suite"])
    style = (files("rlp.report") / "page.css").read_text(encoding="utf-8")
    listed = "".join(f"<li>{escape(line)}</li>" for line in notes(results))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{TITLE}{heading}</title>
<style>
{style}
</style>
</head>
<body>
<header class="text">
<p class="kicker">RLP: reinforcement as a pretraining objective</p>
<h1>Benchmarks: {heading}</h1>
<p>Accuracy is pass@1, averaged over runs. The first error is that over problems, the second that
over runs. “Over the first” is the difference from the first model on the same problems, with the
standard error of the paired difference. Format, no answer and truncated are shares of
responses.</p>
</header>
<main>
<section><h2 class="text">Scores</h2>
<div class="wide frame" role="region" aria-label="Scores" tabindex="0">{_scores(results)}</div>
<div class="text"><ul class="notes">{listed}</ul></div>
</section>
<section><h2 class="text">Means</h2>
<div class="wide frame" role="region" aria-label="Means" tabindex="0">{_means(content)}</div>
</section>
<section class="text"><h2>Accuracy</h2>
<p class="small">Bars are two standard errors over problems to either side.</p>
{_plot(results)}
</section>
{_answers(examples)}
</main>
</body>
</html>
"""


def _scores(results: Sequence[Mapping[str, Any]]) -> str:
    return _table(HEADINGS, score_rows(results))


def _means(content: Mapping[str, Any]) -> str:
    head, *rows = mean_rows(content["means"])
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>\n"
        for first, *rest in rows
    )
    return f'<table class="results"><thead><tr>{heads}</tr></thead>\n<tbody>{lines}</tbody></table>'


def _plot(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a plot with a line per score and model: the accuracy and its error bar."""
    models = list(dict.fromkeys(result["model"] for result in results))
    height = _ROW * (len(results) + 2)
    x = lambda share: _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(share, 0.0), 1.0)
    marks = ""
    for tick in (0, 0.25, 0.5, 0.75, 1):
        marks += (
            f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" '
            f'y2="{height - _ROW}"/><text x="{x(tick):.1f}" y="{height - 4}" '
            f'text-anchor="middle">{100 * tick:.0f}%</text>'
        )
    for number, result in enumerate(results):
        y, share = _ROW * (number + 0.8), result["accuracy"]
        error = 2 * (result["error_over_problems"] or 0)
        color = f"s{models.index(result['model']) % _COLORS}"
        marks += (
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(result['entry'])}, {escape(result['model'])}</text>"
            f'<g class="{color}"><line x1="{x(share - error):.1f}" x2="{x(share + error):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}" stroke-width="2"/>'
            f'<circle cx="{x(share):.1f}" cy="{y:.1f}" r="4"/></g>'
        )
    label = "Accuracy of every model in every task"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="100%" role="img" aria-label="{label}">'
        f"{marks}</svg>"
    )


def _answers(examples: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the first problems of every task, with the answers of all models."""
    page = ""
    for entry, by_model in examples.items():
        problems = list(zip(*by_model.values(), strict=True))
        if not problems:
            continue
        page += f"<h3>{escape(entry)}</h3>\n"
        for answered in problems:
            page += _problem(answered[0], dict(zip(by_model, answered, strict=True)))
    return f'<section class="text"><h2>Answers</h2>\n{page}</section>' if page else ""


def _problem(problem: Mapping[str, Any], by_model: Mapping[str, Mapping[str, Any]]) -> str:
    first = " ".join(problem["question"].split())[:100]
    options = "".join(f"<li>{escape(option)}</li>" for option in problem["options"])
    body = f"<pre>{escape(problem['question'])}</pre>"
    body += f'<ol type="A">{options}</ol>' if options else ""
    body += f"<p>Correct answer: {escape(problem['gold'])}</p>"
    for model, answered in by_model.items():
        for answer in answered["answers"]:
            verdict = "correct" if answer["correct"] else "wrong"
            given = "no answer" if answer["answer"] is None else answer["answer"]
            cut = ", truncated" if answer["truncated"] == 1 else ""
            body += f"<p><b>{escape(model)}</b>: {escape(given)} ({verdict}{cut})</p>"
            body += f"<pre>{escape(_short(answer['text']))}</pre>" if answer["text"] else ""
    return f"<details><summary>{escape(first)}</summary>{body}</details>\n"


def _short(text: str) -> str:
    """Return a text without its middle if it is long."""
    if len(text) <= MOST_CHARACTERS:
        return text
    half = MOST_CHARACTERS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters …]\n{text[-half:]}"
