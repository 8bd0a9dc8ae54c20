"""One self-contained HTML page for an evaluation or an inference run."""

from petct_cascade.report.index import write_index
from petct_cascade.report.page import write_report

__all__ = ["write_index", "write_report"]
