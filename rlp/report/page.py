"""The report page: one HTML file that contains its style, script and data.

Text from files is untrusted. Python writes it only through `html.escape`; the script receives it as
JSON without any "<", and adds it to the page as text, never as markup. The content security policy
of the page allows only this script and no network connections.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rlp.report.columns import format_value
from rlp.report.compare import Group, differing_settings
from rlp.report.curves import Line, build_plots, extremes, smooth, thin
from rlp.report.html_table import column_meanings, distinct, escape, objective, results_table, steps
from rlp.report.load import Run, Source
from rlp.report.thoughts import browser_documents
from rlp.runtime import atomic_files
from rlp.runtime.display import printable
from rlp.runtime.strict_json import finite

MOST_POINTS = 240  # per line on the page; the PNG files have more
TITLE = "RLP report: "  # prefix of the title of every page, which identifies our files
SCRIPTS = ("dom.js", "curves.js", "browser.js")


def write_page(
    sources: Sequence[Source], groups: Sequence[Group], out: Path, title: str = ""
) -> None:
    """Write the page atomically: a reader of `out` sees the old page or the new one."""
    atomic_files.write_whole(
        out, render(sources, groups, title).encode("utf-8", "backslashreplace")
    )


def render(
    sources: Sequence[Source], groups: Sequence[Group], title: str = "", only: str = ""
) -> str:
    """Return the page as HTML text.

    Args:
        sources: The loaded folders.
        groups: The rows of the table.
        title: The title of the page; "" for the names of the sources.
        only: "thoughts" for a page that shows only the thought browser.
    """
    title = title or ", ".join(source.name for source in sources)
    script = "\n".join(_asset(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = {
        "plots": [] if only else _plot_data(groups),
        "groups": [printable(g.name) for g in groups],
        "runs": _thoughts(groups),
    }
    parts = {
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "title": escape(f"{TITLE}{title}"),
        "heading": escape(title),
        "style": _asset("page.css"),
        "only": escape(only),
        "facts": _facts(sources, groups),
        "notes": _notes(sources),
        "warnings": _warnings(groups),
        "caveats": _caveats(sources, groups),
        "table": results_table(groups),
        "meanings": column_meanings(groups),
        "responses": "" if only else _responses(groups),
        "settings": "" if only else _settings(groups),
        "data": json_for_html(data),
        "script": script,
    }
    # A single pass: inserted text is not scanned for placeholders.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def json_for_html(data: object) -> str:
    """Return JSON that is safe in a script element: ASCII, no "<", null for non-finite numbers."""
    text = json.dumps(finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (files("rlp.report") / name).read_text(encoding="utf-8")


# ---- the text of the page ----


def _facts(sources: Sequence[Source], groups: Sequence[Group]) -> str:
    """Return a description list of what ran: folders, objectives, data, model, compute."""
    objectives = distinct(objective(group) for group in groups)
    seeds = distinct(run.seed for group in groups for run in group.runs)
    flops = [run.summary.get("flops") for group in groups for run in group.runs]
    walls = [s.wall_seconds for s in sources if s.wall_seconds is not None]
    versions = distinct(
        " ".join(f"{name} {version}" for name, version in source.versions.items())
        for source in sources
    )
    facts = {
        "Folder" if len(sources) == 1 else "Folders": ", ".join(str(s.folder) for s in sources),
        "Objective": ", ".join(objectives),
        "Steps": ", ".join(f"{group.name} {done}" for group in groups if (done := steps(group))),
        "Seed" if len(seeds) == 1 else "Seeds": ", ".join(seeds),
        "Data": "; ".join(distinct(_data(source.config) for source in sources)),
        "Model": "; ".join(distinct(_model(source.config) for source in sources)),
        "Compute": f"{format_value(total, 'power')} training FLOPs"
        if (total := math.fsum(value for value in flops if value is not None))
        else "",
        "Wall time": _duration(math.fsum(walls)) if walls else "",
        "Versions": "; ".join(versions),
    }
    items = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items() if v)
    return "\n".join(items)


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _data(config: Mapping[str, Any]) -> str:
    data = _section(config, "data")
    if data.get("kind") == "compass":
        return "compass (generated)"
    return ", ".join(str(data[key]) for key in ("train", "tokenizer") if data.get(key))


def _model(config: Mapping[str, Any]) -> str:
    model = _section(config, "model")
    if not {"num_layers", "hidden_size"} <= model.keys():
        return ""
    return f"{model['num_layers']} layers, width {model['hidden_size']}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _notes(sources: Sequence[Source]) -> str:
    notes = [note for source in sources for note in source.notes]
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>'


def _warnings(groups: Sequence[Group]) -> str:
    """Return the section with the warnings of the runs, or "" if there are none."""
    items = [
        f"<dt>{escape(_label(group, run))}, step {warning['step']}</dt>"
        f"<dd><b>{escape(warning['name'])}</b>: {escape(warning['message'])}</dd>"
        for group in groups
        for run in group.runs
        for warning in run.warnings
    ]
    if not items:
        return ""
    return (
        '<section class="text" id="warnings"><h2>Warnings</h2><p class="small">Problems that the '
        "runs detected in their training metrics. Each is shown once, at the step where it was "
        "first detected, with the settings that usually cure it and their current values.</p>"
        f'<dl class="facts">{"".join(f"<div>{item}</div>" for item in items)}</dl></section>'
    )


def _responses(groups: Sequence[Group]) -> str:
    """Return the section with responses to held-out problems, or "" if there are none."""
    runs = [(_label(g, run), run.problems) for g in groups for run in g.runs if run.problems]
    if not runs:
        return ""
    details = "".join(
        f"<details><summary>{escape(label)}</summary>{''.join(map(_problem, problems))}</details>"
        for label, problems in runs
    )
    return (
        '<section class="text" id="responses"><h2>Responses</h2><p class="small">Held-out problems '
        "with the prompt, the sampled responses, the answer extracted from each response, and "
        f"whether it is correct.</p>{details}</section>"
    )


def _problem(problem: Mapping[str, Any]) -> str:
    """Return a problem and the responses to it as HTML."""
    items = "".join(
        f"<div><dt>{'correct' if response['correct'] else 'wrong'}: "
        f"{escape(response['answer']) if response['answer'] is not None else 'no answer'}"
        f"{'' if response['closed'] else ' (truncated)'}</dt>"
        f"<dd><pre>{escape(response['text'])}</pre></dd></div>"
        for response in problem["responses"]
    )
    return (
        f"<pre>{escape(problem['prompt'])}</pre><p>Correct answer: {escape(problem['answer'])}</p>"
        f'<dl class="facts">{items}</dl>'
    )


def _label(group: Group, run: Run) -> str:
    return group.name if len(group.runs) == 1 else f"{group.name}, seed {run.seed}"


def _caveats(sources: Sequence[Source], groups: Sequence[Group]) -> str:
    """Return notes on how to read the results: seeds, standard errors, limits of the demo."""
    lines = []
    fewest = min(len(group.runs) for group in groups)
    if any(len(group.runs) > 1 for group in groups):
        lines.append("Large: mean over seeds. Small: every seed, in the order of the row heading.")
    if len(groups) > 1 and fewest >= 3:
        lines.append("Bold: every seed of this model beats every seed of every other model.")
    elif len(groups) > 1:
        lines.append(
            "No result is marked as best: with fewer than three seeds, a difference between models "
            "cannot be distinguished from a difference between seeds."
        )
    for count, forks in dict.fromkeys(filter(None, map(_held_out, sources))):
        positions = "one position" if forks == 1 else f"{forks} positions"
        error = 0.5 / math.sqrt(count * forks)
        lines.append(
            f"Evaluated on up to {count:,} held-out documents with {positions} each; the standard "
            f"error of an accuracy near 0.5 is about {error:.3f}."
        )
    if any(_section(source.config, "data").get("kind") == "compass" for source in sources):
        lines.append(
            "Compass asks for one of four headings: chance accuracy is 0.25, and a thought can "
            "gain at most log 4 = 1.386 nats over a model at chance. The base model was trained on "
            "worked thoughts and rarely uses them, so RLP selects a way of thinking that the base "
            "model already has; it does not teach a new skill. The no-think columns show whether "
            "predictions without a thought improve too."
        )
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _held_out(source: Source) -> tuple[int, int] | None:
    evaluation = _section(source.config, "evaluation")
    count, forks = evaluation.get("documents"), evaluation.get("forks_per_document")
    if not isinstance(count, int) or not isinstance(forks, int) or count * forks <= 0:
        return None
    return count, forks


# ---- settings, curves, thoughts ----


def _settings(groups: Sequence[Group]) -> str:
    """Return a table of the fields that differ between groups, and every run's full config."""
    page = ""
    fields = differing_settings(groups) if len(groups) > 1 else {}
    if fields:
        heads = "".join(f'<th scope="col">{escape(group.name)}</th>' for group in groups)
        rows = "".join(
            f'<tr><th scope="row">{escape(field)}</th>'
            + "".join(f"<td>{escape(value)}</td>" for value in values)
            + "</tr>"
            for field, values in fields.items()
        )
        page += (
            '<div class="wide"><table class="settings"><thead><tr><th scope="col">field</th>'
            f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        )
    for group in groups:
        for run in group.runs:
            text = json.dumps(run.config, indent=2)
            page += (
                f"<details><summary>{escape(run.folder)}/config.json</summary>"
                f"<pre>{escape(text)}</pre></details>"
            )
    return page


def _plot_data(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return the plots for the script: thin lines per seed, and the bold line (running mean)."""
    data = []
    for plot in build_plots(groups):
        metric = plot.metric
        series = [
            {
                "color": s.color,
                "lines": [_line_data(extremes(line, MOST_POINTS)) for line in s.lines],
                "bold": _line_data(
                    thin(s.mean if metric.held_out else smooth(s.mean), MOST_POINTS)
                ),
            }
            for s in plot.series
        ]
        labels = {"title": metric.heading, "unit": metric.unit, "meaning": metric.meaning}
        data.append({**labels, "heldOut": metric.held_out, "series": series})
    return data


def _line_data(line: Line) -> dict[str, list[float]]:
    parts = {"step": line.steps, "flops": line.flops, "y": line.values}
    return {key: [float(f"{value:.6g}") for value in values] for key, values in parts.items()}


def _thoughts(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return the data of the thought browser; it opens with the first run with objective RLP."""
    shown = []
    for group in groups:
        for run in group.runs:
            documents = browser_documents(run.thoughts) if run.thoughts else []
            if documents:
                preferred = run.config.get("objective") == "rlp"
                shown.append(
                    {
                        "label": printable(_label(group, run)),
                        "preferred": preferred,
                        "documents": documents,
                    }
                )
    return shown
