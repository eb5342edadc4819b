"""The results of the soak test as a Markdown table."""

from collections import Counter, defaultdict

from tests.soak.cases import Disturbance, Plan


class Table:
    """Counts disturbances by way; `str` returns the table."""

    def __init__(self) -> None:
        self.tried = 0
        self.failed: list[int] = []  # numbers of cases
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self._phases: dict[str, Counter[str]] = defaultdict(Counter)
        self._faults: Counter[str] = Counter()
        self._equal: Counter[str] = Counter()

    def add(self, plan: Plan, disturbances: list[Disturbance], faults: list[str]) -> None:
        """Add a case: its disturbances, and the faults found after it has finished."""
        self.tried += len(disturbances)
        for one in disturbances:
            self._outcomes[one.way][one.outcome.partition(":")[0]] += 1
            self._phases[one.way][one.phase.partition(" ")[0]] += 1
            self._faults[one.way] += bool(one.faults)
            self._equal[one.way] += not faults
        if faults or any(one.faults for one in disturbances):
            self.failed.append(plan.number)

    def __str__(self) -> str:
        rows = [
            "| disturbance | count | during | what the run did | promises broken | bit-identical |",
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
