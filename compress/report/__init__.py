"""What goes beside the weights for people to read: the report, the model card."""

from compress.report.card import write_card
from compress.report.document import Report, environment, figures
from compress.report.page import write_report
from compress.report.terminal import table

__all__ = ["Report", "environment", "figures", "table", "write_card", "write_report"]
