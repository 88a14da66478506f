"""Options: declared once as the fields of a dataclass, and a verb's own parameters between them."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from prism_ae.cells import TreeShape
from prism_ae.cli.app import app
from prism_ae.cli.options import RequestOptions, flattened
from prism_ae.errors import UsageError
from prism_ae.experiments.options import Options


@dataclasses.dataclass(frozen=True)
class Group:
    first: Annotated[str | None, typer.Option(help="The first.", metavar="A")] = None
    many: Annotated[list[int] | None, typer.Option("--one", help="Many.")] = None
    needed: Annotated[int, typer.Option(help="Needed.")] = dataclasses.field(kw_only=True)


def call(*words: str) -> tuple[int, list[Any]]:
    """Exit code and the arguments of a verb that takes a group between two parameters of its own."""
    got: list[Any] = []

    def verb(name: Annotated[str, typer.Argument()], group: Group, *, flag: bool = False) -> None:
        """Do it."""
        got.extend([name, group, flag])

    verb.__annotations__ = {
        "name": Annotated[str, typer.Argument()],
        "group": Group,
        "flag": Annotated[bool, typer.Option("--flag")],
        "return": None,
    }
    small = typer.Typer(rich_markup_mode=None, add_completion=False)
    small.command()(flattened(verb))
    return CliRunner().invoke(small, list(words)).exit_code, got


def test_a_groups_fields_are_options_and_come_back_as_the_group() -> None:
    assert call("x", "--needed", "3") == (0, ["x", Group(needed=3), False])
    words = ["x", "--first", "a", "--one", "1", "--one", "2", "--needed", "3", "--flag"]
    assert call(*words) == (0, ["x", Group("a", [1, 2], needed=3), True])
    assert call("x") == (2, [])


def test_a_group_stands_where_its_parameter_stands() -> None:
    def verb(name: str, group: Group, last: int = 1) -> None: ...

    verb.__annotations__ = {"name": str, "group": Group, "last": int, "return": None}
    assert list(inspect.signature(flattened(verb)).parameters) == ["name", "first", "many", "needed", "last"]


def test_no_verb_has_more_than_six_parameters_or_a_bool_by_position() -> None:
    for command in app.registered_commands:
        own = inspect.signature(command.callback.__wrapped__).parameters.values()  # type: ignore[union-attr]
        assert len(own) <= 6
        assert not [one for one in own if one.default is False and one.kind is not one.KEYWORD_ONLY]


def test_request_options_become_the_experiments_options() -> None:
    said = RequestOptions(
        benches="qa, sum", temperatures="0,0.5", trees=["6,10,60"], batch_sizes=[2, 4], questions=3, controls=True
    )
    assert said.parsed() == Options(
        benches=("qa", "sum"),
        temperatures=(0.0, 0.5),
        trees=(TreeShape(6, 10, 60),),
        batch_sizes=(2, 4),
        questions=3,
        controls=True,
    )
    assert RequestOptions().parsed() == Options()
    assert {field.name for field in dataclasses.fields(RequestOptions)} == {
        "suite",
        *(field.name for field in dataclasses.fields(Options)),
    }


@pytest.mark.parametrize(("given", "subject"), [({"scales": "a,,b"}, "--scales"), ({"temperatures": "x"}, "--temper")])
def test_a_wrong_list_names_its_option(given: dict[str, str], subject: str) -> None:
    with pytest.raises(UsageError, match=subject):
        RequestOptions(**given).parsed()  # type: ignore[arg-type]
