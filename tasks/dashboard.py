"""What Prefect gets of a whole run: a page that is the same one every night, and events for automations."""

import math
import re
from functools import partial
from typing import Any

from prefect.events import emit_event

from spiritlm_core.evaluate.rendering import Table
from spiritlm_core.lake.shard import ShardStats
from tasks.account import Account, StageReport
from tasks.artifacts import markdown, summary_row, updates

COMPUTED = "spiritlm.stage.computed"
"""The event of a table stage that computed something. Its resource carries `PERCENT`, for triggers to match."""
PERCENT = "spiritlm.rejected-percent"
"""Label: how much of the new rows was rejected, in whole percent, rounded up: above 5 % it is one of 6 … 100."""
COMMONEST = 5


def show_dashboard(account: Account, result: dict[str, Any], failed: str = "") -> None:
    """The page ``dashboard-RECIPE``, whose older versions are those of the runs before. `failed` says what ended it."""
    recipe = account.plan.recipe
    key = f"dashboard-{re.sub('[^a-z0-9]+', '-', recipe.lower()).strip('-')}"
    markdown(key, page(list(account.reports.values()), result, failed), f"The latest run of {recipe}")


def page(reports: list[StageReport], result: dict[str, Any], failed: str = "") -> str:
    """The dashboard as Markdown: how the run ended, its stages, rejected rows by reason, figures, where outputs are."""
    lines = [f"# Failed: {failed}" if failed else "# Completed", ""]
    rows = [
        {
            **summary_row(report),
            "new": "" if report.rows_before is None else f"{report.rows_out - report.rows_before:+d}",
            "rejected %": f"{100 * report.rejected / report.rows_in:.1f}" if report.rejected else "",
        }
        for report in reports
    ]
    lines += table(rows)
    rejected = [
        {"stage": report.name, "rows": count, "reason": reason}
        for report in reports
        for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1])[:COMMONEST]
    ]
    if rejected:
        lines += ["", "## Rejected rows, by their commonest reasons", "", *table(rejected)]
    metrics = result.get("metrics", {})
    figures = [{"figure": k, "value": v} for k, v in metrics.items() if isinstance(v, int | float)]
    if figures:
        lines += ["", "## Figures", "", *table(figures)]
    places = {key: value for key, value in result.items() if key in ("lake", "report", "suite", "model")}
    notes = [f"- note: {note}" for note in result.get("notes", ())]
    return "\n".join([*lines, "", *(f"- {key}: `{value}`" for key, value in places.items()), *notes])


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as a table of Markdown."""
    cells = [[*map(str, row.values())] for row in rows]
    return Table([[*rows[0]], *cells], (), {}, range(len(rows[0]))).markdown().splitlines() if rows else []


def tell_computed(recipe: str, stage: str, made: ShardStats) -> None:
    """Emit `COMPUTED` for the rows that a stage made in this run."""
    resource = {
        "prefect.resource.id": f"spiritlm.stage.{recipe}.{stage}",
        "prefect.resource.name": f"{recipe}/{stage}",
        PERCENT: str(math.ceil(100 * made.rejected / max(1, made.rows_in))),
    }
    payload = {"rows_in": made.rows_in, "rejected": made.rejected, "reasons": made.reasons}
    updates.put(partial(emit_event, COMPUTED, resource=resource, payload=payload))
