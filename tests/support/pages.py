"""The pages of the documentation."""

import re
from pathlib import Path

from tests.support.paths import ROOT

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub and MyST generate for the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    anchors: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\]\([^)]*\)", "", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        again = sum(re.sub(r"-\d+$", "", anchor) == slug for anchor in anchors)
        anchors.append(f"{slug}-{again}" if again else slug)
    return set(anchors)
