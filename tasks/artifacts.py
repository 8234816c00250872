"""What Prefect's UI shows of a stage: a progress bar while it runs, a table when it has ended.

Nothing here may stop or delay a run: everything is sent by a thread of its own (:data:`updates`).
"""

import atexit
import contextvars
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from spiritlm_core.evaluate import plots
from spiritlm_core.evaluate.rendering import data_uri
from spiritlm_core.failures import one_line
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ArtifactPlan
from spiritlm_core.plan.graph import RunPlan
from tasks.account import StageReport, read_file
from tasks.progress import Console

REQUEST_SECONDS = 5.0
PAUSE_SECONDS = 30.0
FLUSH_SECONDS = 10.0
ACCOUNT_SECONDS = 60.0  # so long a run that has ended waits for a slow server, or the history would lack its account

Send = Callable[[], Any]


class Updates:
    """A queue of calls to Prefect's API. After one that fails, those of the next half minute are dropped.

    The account of a run is sent all the same, with the patience of Prefect's own requests.
    """

    def __init__(self) -> None:
        """The thread starts with the first call."""
        self._waiting: queue.Queue[tuple[contextvars.Context, Send, bool]] = queue.Queue(maxsize=100)
        self._accounts = 0  # that wait
        self._lock = threading.Lock()
        self._started = False
        self._warned = False
        self._silent_until = 0.0

    def put(self, send: Send, *, account: bool = False) -> None:
        """Have `send` called soon, in a copy of this run's context; its errors cost one warning and nothing else."""
        with self._lock:
            if not self._started:
                threading.Thread(target=self._work, name="prefect-updates", daemon=True).start()
                atexit.register(self._close)  # a thread that Python ends inside a library would abort the process
                self._started = True
        if account or time.monotonic() >= self._silent_until:
            with suppress(queue.Full):
                self._waiting.put_nowait((contextvars.copy_context(), send, account))
                with self._lock:
                    self._accounts += account

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until everything is sent, but not longer than this; for an account `ACCOUNT_SECONDS`."""
        deadline = time.monotonic() + (ACCOUNT_SECONDS if self._accounts else seconds)
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.05)

    def _close(self) -> None:
        self._silent_until, self._accounts = math.inf, 0
        self.flush(REQUEST_SECONDS)

    def _work(self) -> None:
        while True:
            context, send, account = self._waiting.get()
            try:
                if account:
                    context.run(send)
                elif time.monotonic() >= self._silent_until:
                    context.run(_impatiently, send)
            except Exception as error:  # noqa: BLE001 - a view is never worth the run
                self._failed(error)
            with self._lock:
                self._accounts -= account
            self._waiting.task_done()

    def _failed(self, error: Exception) -> None:
        self._silent_until = max(self._silent_until, time.monotonic() + PAUSE_SECONDS)
        if not self._warned:
            self._warned = True
            Console().say(
                f"the Prefect server does not answer ({one_line(error)}): the run goes on, its views may stop"
            )


def _impatiently(send: Send) -> None:
    """A call with a short limit and no second try."""
    with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: REQUEST_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}):
        send()


updates = Updates()  # those of this process


UPDATE_SECONDS = 2.0
METRICS = "metrics.parquet"  # of a training run


class ProgressArtifact:
    """A Prefect progress artifact, updated from the driver at most every two seconds."""

    def __init__(self, stage: str, about: str) -> None:
        """Create the artifact in the current task run."""
        self.updated = time.monotonic()
        self.id: UUID | None = None
        updates.put(lambda: self._create(stage, about))

    def update(self, fraction: float, *, force: bool = False) -> None:
        """Show `fraction` (0 to 1)."""
        now = time.monotonic()
        if now - self.updated >= UPDATE_SECONDS or force:
            self.updated = now
            updates.put(lambda: self._show(round(100 * min(1.0, fraction), 1)))

    def _create(self, stage: str, about: str) -> None:
        artifact = create_progress_artifact(progress=0.0, key=_key("progress", stage), description=about)
        self.id = artifact if isinstance(artifact, UUID) else None

    def _show(self, progress: float) -> None:
        if self.id is not None:
            update_progress_artifact(self.id, progress=progress)


def _key(kind: str, stage: str) -> str:
    """The key of an artifact; Prefect takes no underscore."""
    return f"{kind}-{stage}".replace("_", "-")


def stage_table(report: StageReport) -> None:
    """A table artifact with the account of one stage."""
    hidden = ("summary", "reasons")
    rows = [{"what": key, "value": str(value)} for key, value in asdict(report).items() if key not in hidden]
    rows += [{"what": f"rejected: {reason}", "value": str(count)} for reason, count in report.reasons.items()]
    rows += [{"what": key, "value": str(value)[:300]} for key, value in report.summary.items()]
    key, about = _key("stage", report.name), f"Stage {report.name}"
    updates.put(partial(create_table_artifact, rows, key=key, description=about))


def run_table(reports: Sequence[StageReport]) -> None:
    """A table artifact with one row per stage."""
    rows = [summary_row(report) for report in reports]
    updates.put(partial(create_table_artifact, rows, key="stages", description="All stages"), account=True)


def image(key: str, png: bytes, description: str) -> None:
    """An image artifact that carries its own bytes."""
    updates.put(partial(create_image_artifact, data_uri(png, "image/png"), key=key, description=description))


def markdown(key: str, text: str, description: str) -> None:
    """A markdown artifact."""
    updates.put(partial(create_markdown_artifact, text, key=key, description=description))


def training_curves(lake: Lake, plan: ArtifactPlan) -> None:
    """An image artifact with the losses of a model that was just trained; none of other artifacts."""
    artifact = lake.read_artifact(plan.name, plan.key)
    if artifact is None or METRICS not in artifact.files:
        return
    if curves := plots.read_curves(lake.artifact_folder(artifact) / METRICS):
        image("training-curves", plots.png(plots.training_curves(curves)), "Training and held-out loss")


def show_outputs(plan: RunPlan, lake: Lake, result: dict[str, Any]) -> None:
    """What a finished run has for people to look at: its figures, and the tables and pictures of its reports."""
    for stage in plan.stages.values():
        if isinstance(stage, ArtifactPlan):
            for output in stage.call.stage.outputs:
                if output.file and output.path:
                    _show_report(lake, stage, Path(output.file).with_suffix(".md").name, plan.recipe)
    if "report" in result:
        lines = [f"Report: `{result['report']}`", "", "| figure | value |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in result["metrics"].items() if isinstance(value, int | float)]
        markdown("report", "\n".join(lines), f"Evaluation of {plan.recipe}")


def _show_report(lake: Lake, plan: ArtifactPlan, table: str, recipe: str) -> None:
    """The file `table` of the artifact if it has one, and its pictures."""
    artifact = lake.read_artifact(plan.name, plan.key)
    if artifact is None:
        return
    for name in sorted(artifact.files):
        if name == table:
            markdown(Path(name).stem, read_file(lake, artifact, name).decode(), f"{plan.call.stage.about}: {recipe}")
        elif name.endswith(".png"):
            image(Path(name).stem.replace("_", "-"), read_file(lake, artifact, name), Path(name).stem)


def summary_row(report: StageReport) -> dict[str, Any]:
    """One stage in the table of all stages."""
    return {
        "stage": report.name,
        "rows in": report.rows_in,
        "rows out": report.rows_out,
        "rejected": report.rejected,
        "hours": report.hours,
        "shards": report.shards_total,
        "computed": report.shards_computed,
        "reused": report.shards_reused,
        "seconds": report.seconds,
    }
