"""A table as LaTeX: one tabular that needs ``\\usepackage{booktabs}`` and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from prism_ae.drawing.table import Row, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # an optional argument, right behind \\
    "*": "{*}",  # the same
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "²": "$^2$",
    "†": r"\dag{}",
}


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def as_latex(table: Table, title: str, remarks: Sequence[str]) -> str:
    """The table, with its title and small print as comments above."""
    above = [f"% {' '.join(line.split())}" for line in (title, *remarks)]
    lines = [
        *above,
        r"% Needs \usepackage{booktabs}.",
        rf"\begin{{tabular}}{{@{{}}{'l' * table.labels}{'c' * (table.columns - table.labels)}@{{}}}}",
        r"\toprule",
    ]
    for row in table.head:
        lines.append(_row(row))
        if rules := _rules(row):
            lines.append(rules)
    for block in table.blocks:
        lines += [r"\midrule", *(_row(row) for row in block)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _row(row: Row) -> str:
    cells = []
    for cell in row:
        text = escaped(cell.text)
        text = rf"\textbf{{{text}}}" if cell.bold and text else text
        text = rf"\textit{{{text}}}" if cell.pale and text else text
        cells.append(rf"\multicolumn{{{cell.span}}}{{c}}{{{text}}}" if cell.span > 1 else text)
    return f"{' & '.join(cells)} \\\\"


def _rules(row: Row) -> str:
    """Lines below the cells of a head row that have several columns."""
    lines, column = [], 1
    for cell in row:
        if cell.span > 1 and cell.text:
            lines.append(rf"\cmidrule(lr){{{column}-{column + cell.span - 1}}}")
        column += cell.span
    return " ".join(lines)
