"""``spiritlm alerts``: automations of a Prefect server that call a webhook when a run fails or rejects too much."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from spiritlm_core.errors import SpiritLMError

if TYPE_CHECKING:
    from prefect.automations import Automation
    from prefect.events.actions import CallWebhook

FAILED, REJECTED = "spiritlm: a run failed", "spiritlm: many rows rejected"
BLOCK = "spiritlm-alerts"


def alerts(
    webhook: Annotated[str, typer.Option(metavar="URL", help='What to POST {"text": …} to, as Slack takes it.')],
    rejected: Annotated[
        int,
        typer.Option(
            min=0,
            max=99,
            metavar="PERCENT",
            help="Call, too, when a stage rejects more than this share of its new rows.",
        ),
    ] = 5,
) -> None:
    """Let the Prefect server of PREFECT_API_URL call URL when a run fails, and when a stage rejects many rows.

    Run it again to change URL or PERCENT. `prefect automation ls`, `pause` and `delete` look after the automations.
    """
    from tasks.prefect_server import configured_api

    if not re.match(r"https?://([^\s/?#@]*@)?(\w|\[[\da-fA-F:.]+\])", webhook):  # with a host
        raise SpiritLMError(f"--webhook {webhook}: an address such as https://hooks.example.org/abc is needed")
    if not configured_api():
        raise SpiritLMError(
            "no Prefect server is configured, and one that ends with the run calls nobody: set PREFECT_API_URL"
        )
    from prefect.blocks.webhook import Webhook

    block = Webhook(method="POST", url=webhook, headers={"Content-Type": "application/json"})
    document: Any = block.save(BLOCK, overwrite=True)
    for automation in _automations(document, rejected):
        _put(automation)
        typer.echo(f"{automation.name}: {automation.description}")


def _put(automation: Automation) -> None:
    """Create an automation, or let it take the place of that of its name."""
    try:
        there: Any = type(automation).read(name=automation.name)
        automation.id = there.id
    except ValueError:
        automation.create()
    else:
        automation.update()


def _automations(block: UUID, rejected: int) -> list[Automation]:
    from prefect.automations import Automation
    from prefect.events.actions import CallWebhook
    from prefect.events.schemas.automations import EventTrigger, Posture

    from tasks.dashboard import COMPUTED, PERCENT

    once: dict[str, Any] = {"posture": Posture.Reactive, "threshold": 1, "within": 0}
    ended = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}
    run = {"prefect.resource.id": "prefect.flow-run.*"}
    much = {PERCENT: [str(percent) for percent in range(rejected + 1, 101)]}

    def call(message: str) -> list[CallWebhook]:
        return [CallWebhook(block_document_id=block, payload=f'{{"text": {{{{ ({message}) | tojson }}}}}}')]

    return [
        Automation(
            name=FAILED,
            description="calls the webhook when a flow run fails, crashes or takes too long",
            trigger=EventTrigger(expect=ended, match=run, for_each={"prefect.resource.id"}, **once),
            actions=call('flow.name ~ "/" ~ flow_run.name ~ ": " ~ flow_run.state.message'),
        ),
        Automation(
            name=REJECTED,
            description=f"calls the webhook when more than {rejected} % of the new rows of a stage are rejected",
            trigger=EventTrigger(expect={COMPUTED}, match=much, for_each={"prefect.resource.id"}, **once),
            actions=call(
                'event.resource.name ~ ": " ~ event.payload.rejected ~ " of " ~ event.payload.rows_in ~ '
                '" new rows rejected: " ~ event.payload.reasons'
            ),
        ),
    ]
