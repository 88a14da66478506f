"""The glossary's modules exist, and every term is explained once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path


def test_every_term_is_explained_once_and_its_modules_exist(repository: Path) -> None:
    rows = [line for line in (repository / "docs/glossary.md").read_text().splitlines() if line.startswith("| **")]
    terms = Counter(term for row in rows for term in re.findall(r"\*\*(.+?)\*\*", row.split(" | ")[0]))
    assert [term for term, count in terms.items() if count > 1] == []
    modules = [module for row in rows for module in re.findall(r"`(.+?)`", row.split(" | ")[-1])]
    assert len(modules) >= len(rows)
    assert [module for module in modules if not (repository / "prism_ae" / module).is_file()] == []
