"""What the soak test has tried, in Markdown."""

from collections import Counter, defaultdict

from tests.soak.cases import Disturbance, Plan


class Table:
    """Counts disturbances by their way; `str` gives the table."""

    def __init__(self) -> None:
        self.tried = 0
        self.wrong: list[int] = []  # numbers of cases
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self._phases: dict[str, Counter[str]] = defaultdict(Counter)
        self._faults: Counter[str] = Counter()
        self._equal: Counter[str] = Counter()

    def add(self, plan: Plan, done: list[Disturbance], faults: list[str]) -> None:
        """Adds a case: its disturbances, and what was wrong when it had ended."""
        self.tried += len(done)
        for part in done:
            self._outcomes[part.way][part.outcome.partition(":")[0]] += 1
            self._phases[part.way][part.phase.partition(" ")[0]] += 1
            self._faults[part.way] += bool(part.faults)
            self._equal[part.way] += not faults
        if faults or any(part.faults for part in done):
            self.wrong.append(plan.number)

    def __str__(self) -> str:
        rows = [
            "| way | tried | moments | what the run did | not as promised | the same bits |",
            "|---|---|---|---|---|---|",
        ]
        for way, outcomes in sorted(self._outcomes.items()):
            cells = (
                *(way, outcomes.total(), _listed(self._phases[way]), _listed(outcomes)),
                *(self._faults[way], f"{self._equal[way]} of {outcomes.total()}"),
            )
            rows.append("| " + " | ".join(map(str, cells)) + " |")
        return "\n".join(rows)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
