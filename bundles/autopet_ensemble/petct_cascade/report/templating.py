"""How the report's templates are rendered: everything is escaped, and a name that does not exist is an error."""

from __future__ import annotations

import functools
import math
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps

from petct_cascade.report.contents import Table
from petct_cascade.summary import number_to_text


@functools.cache
def template_environment() -> Environment:
    """Return the environment of the templates, with the filters "number", "sort_key" and "rows_as_json".

    It is one for all pages, since it compiles a template once.
    """
    environment = Environment(
        loader=PackageLoader("petct_cascade.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number_to_text
    environment.filters["sort_key"] = _sort_key
    environment.filters["rows_as_json"] = _rows_as_json
    return environment


def _sort_key(value: float | None) -> str:
    """Return a number as the script sorts it: all its digits; nothing when it does not exist."""
    return "" if value is None or math.isnan(value) else repr(float(value))


def _rows_as_json(table: Table) -> str:
    """Return the rows of a table as the script reads them: values in the order of the columns, null for none."""
    rows = [[_json_value(row[column.key]) for column in table.columns] for row in table.rows]
    return htmlsafe_json_dumps(rows, separators=(",", ":"))


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
