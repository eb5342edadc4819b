"""Write folders like those of finished runs, for tests of reports, and parse the report page."""

import json
import math
import random
from html.parser import HTMLParser
from pathlib import Path

from rlp import report
from rlp.report import page

ATTACK = "</script><img src=x onerror=alert(1)>"
HEADINGS = ("north", "east", "south", "west")
FIGURE_KEYS = (
    "no_think_accuracy", "greedy_think_accuracy", "sampled_think_accuracy", "no_think_loss",
    "think_loss", "mean_information_gain", "thought_length", "closed_fraction",
)  # fmt: skip
USED = ("flops", "tokens_documents", "seconds_device")


def run_config(objective: str, seed: int, **changes: object) -> dict:
    return {
        "seed": seed,
        "objective": objective,
        "steps": 60,
        "model": {"num_layers": 2, "hidden_size": 128},
        "data": {"kind": "compass", "train": "", "tokenizer": "bytes"},
        "evaluation": {"documents": 512, "forks_per_document": 1},
        **changes,
    }


def evaluation_figures(rng: random.Random) -> dict:
    limits = dict.fromkeys(FIGURE_KEYS, (0.0, 1.0)) | {
        "no_think_loss": (0.5, 3.0),
        "think_loss": (0.02, 3.0),
        "mean_information_gain": (-1.0, 1.4),
        "thought_length": (3.0, 9.0),
    }
    return {key: rng.uniform(*limits[key]) for key in FIGURE_KEYS}


def metric_line(step: int, steps: int, objective: str, rng: random.Random) -> dict:
    done = step / steps
    noise = rng.gauss(0, 0.04)
    line = {
        "step": step,
        "loss": 0.4 + 3.6 * math.exp(-5 * done) + noise if objective == "next_token" else noise,
        "grad_norm": 0.3 + math.exp(-3 * done) + abs(rng.gauss(0, 0.2)),
        "no_think_loss": 1.2 - 0.1 * done + noise,
        "learning_rate": 3e-4,
        "tokens_documents": step * 1408,
        "flops": step * 2.9e9 * (1 if objective == "next_token" else 3),
        "seconds_device": step * 0.9,
        "seconds_data": 0.01,
        "seconds_update": 0.2,
        "skipped_updates": 0,
    }
    if objective == "rlp":
        line |= {
            "information_gain": 1.3 / (1 + math.exp(12 * (0.4 - done))) - 0.3 + noise,
            "reward_positive_share": min(1.0, 0.3 + 0.8 * done + noise),
            "thought_length": 6 + 2.5 * done + noise,
            "closed_fraction": min(1.0, 0.8 + 0.3 * done),
            "thought_entropy": 1.1 * (1 - done) + abs(noise),
            "zero_variance_share": min(1.0, done**3),
            "distinct_thoughts": 1 - 0.6 * done,
            "seconds_rollout": 0.1,
        }
    if step % (steps // 5) == 0:
        line |= {f"evaluation/{key}": value for key, value in evaluation_figures(rng).items()}
    return line


def compass_thoughts(rng: random.Random, skill: float) -> dict:
    """Thoughts in word-level documents, at the position of the answer and at two others."""
    documents = []
    for _ in range(3):
        moves = rng.choices(("left", "right", "around"), k=8)
        text = (
            f"<bos> Mia faces {rng.choice(HEADINGS)} . She turns {' '.join(moves)} . Now she faces"
        )
        tokens = [*text.split(), answer := rng.choice(HEADINGS), ".", "<eos>"]
        positions = []
        for fork in (3, 9, 19):
            thoughts = []
            for _ in range(8):
                right = rng.random() < skill
                reasoned = -0.02 if right else -rng.uniform(1, 6)
                words = rng.choices(HEADINGS, k=7) + [answer if right else "so"]
                thoughts.append(
                    thought(words, reasoned, reasoned + 1.39, closed=rng.random() < 0.9)
                )
            positions.append(position(fork, [tokens[fork]], -1.39, thoughts))
        documents.append({"tokens": tokens, "separator": " ", "positions": positions})
    return {"step": 60, "documents": documents}


def thought(pieces: list[str], reasoned: float, reward: float, closed: bool = True) -> dict:
    return {
        "pieces": pieces,
        "closed": closed,
        "reasoned_logprob": reasoned,
        "reward": reward,
        "advantage": reward / 2,
    }


def position(fork: int, target: list[str], baseline: float, thoughts: list[dict]) -> dict:
    gain = sum(item["reward"] for item in thoughts) / len(thoughts)
    return {
        "fork": fork,
        "target": target,
        "baseline_logprob": baseline,
        "information_gain": gain,
        "thoughts": thoughts,
    }


def byte_thoughts(rng: random.Random) -> dict:
    """Thoughts in byte-level text: hundreds of tokens with white space, control bytes, and HTML."""
    prose = (
        "Definition 3.1 (Sentence).\nA formula is a sentence iff it has no free occurrences of "
        "variables.\n\n\tLet Γ be a set of sentences. We say that Γ is consistent iff Γ ⊬ ⊥, and "
        "inconsistent otherwise; a set that proves everything proves nothing of interest.\n"
    )
    documents = []
    for start in (prose * 2, "x" + ATTACK + "\x1b[31m\u202egnp.exe\n" + prose):
        tokens = list(start)
        positions = []
        for fork in sorted(rng.sample(range(1, len(tokens) - 4), 32) + [tokens.index("\n"), 13]):
            thoughts = [
                thought(list(words), -rng.uniform(0.1, 6), rng.gauss(0.1, 1.4), rng.random() < 0.7)
                for words in (ATTACK, "the next word\nis\tplain ", prose[:60], "so ", "é")
            ]
            positions.append(
                position(fork, tokens[fork : fork + 4], -rng.uniform(0.5, 6), thoughts)
            )
        documents.append({"tokens": tokens, "separator": "", "positions": positions})
    return {"step": 200, "documents": documents}


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_metrics(folder: Path, objective: str, steps: int, rng: random.Random) -> None:
    lines = [metric_line(step, steps, objective, rng) for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_run(folder: Path, objective: str = "rlp", seed: int = 0, **changes: object) -> Path:
    """Write the folder of a byte-level run."""
    rng = random.Random(f"{folder.name} {seed}")
    write_json(folder / "config.json", run_config(objective, seed, **changes))
    write_json(folder / "evaluation.json", {"step": 40, **evaluation_figures(rng)})
    write_metrics(folder, objective, 40, rng)
    write_json(folder / "thoughts.json", byte_thoughts(rng))
    return folder


def make_experiment(folder: Path, seed: int = 0, **changes: object) -> Path:
    """Write the folder of an experiment with three arms."""
    rng = random.Random(seed)
    write_json(folder / "config.json", run_config("rlp", seed, **changes))
    arms = {"base": ("next_token", 190), "rlp": ("rlp", 60), "cpt": ("next_token", 140)}
    summary: dict = {
        "seed": seed,
        "arms": list(arms),
        "versions": {"jax": "0.10.2"},
        "wall_s": 151.0,
    }
    for arm, (objective, steps) in arms.items():
        write_json(folder / arm / "config.json", run_config(objective, seed, steps=steps))
        write_metrics(folder / arm, objective, steps, rng)
        write_json(
            folder / arm / "thoughts.json",
            compass_thoughts(random.Random(7), 0.9 if arm == "rlp" else 0.3),
        )
        cost = {
            "flops": steps * 1.7e10,
            "tokens_documents": steps * 1408,
            "seconds_device": 80 + rng.random(),
            "steps": steps,
            "wall_s": {"train": 20 + rng.random(), "evaluate": 3.5},
        }
        summary[arm] = {**evaluation_figures(rng), **cost}
    write_json(folder / "summary.json", summary)
    return folder


class Reader(HTMLParser):
    """Parses a page: its elements, the cells of its table, and the embedded data."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: dict[str, dict[str, list[float | None]]] = {}
        self.cell_text: dict[tuple[str, str], str] = {}
        self.data = ""
        self.words = ""
        self._row = self._column = ""
        self._in_head = self._in_data = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        values_of = dict(attrs)
        if tag == "th" and values_of.get("scope") == "row":
            self._row, self._in_head = "", True
        elif tag == "span":
            self._in_head = False
        if values := values_of.get("data-values"):
            self._column = values_of["data-metric"] or ""
            numbers = [None if v == "null" else float(v) for v in values.split()]
            self.rows.setdefault(self._row, {})[self._column] = numbers
        self._in_data = values_of.get("id") == "report-data"

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._column = ""
        self._in_data = False

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._in_head:
            self._row += data
        if self._column:
            key = (self._row, self._column)
            self.cell_text[key] = self.cell_text.get(key, "") + data + " "
        if self._in_data:
            self.data += data


def read_page(*folders: Path) -> Reader:
    """Render and parse the page of some folders, without writing it or its plots."""
    sources = report.load_folders(folders)
    return Reader(page.render(sources, report.group_runs(sources)))
