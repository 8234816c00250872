"""The page: tables and their rows, one segment beside them, and what else there is to look at."""

from functools import partial
from typing import Any

import gradio as gr

from spiritlm_core.explore.actions import KINDS, Actions
from spiritlm_core.explore.conditions import COMPARISONS
from spiritlm_core.serve.display import HIDDEN
from spiritlm_core.tokens.corpus import STREAMS

CSS = """
.gradio-container { max-width: 1500px !important; width: 100% !important; margin: 0 auto !important; }
footer { display: none !important; }
#head h1 { margin-bottom: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.wide img { max-width: none; }
.wide td, .wide th { padding: 2px 10px 2px 0; text-align: left; vertical-align: top; }
.wide td:last-child { overflow-wrap: anywhere; }
.rejected { color: #b3402a; }
.example { overflow-x: auto; font-size: 12px; border-top: 1px solid #ddd; padding: 8px 0; }
.example .head { font-weight: bold; } .example .marker { color: #a06a00; font-weight: bold; }
.example .word { color: #2a7a3b; } .example .speech { color: #1d6fa5; } .example .note { opacity: 0.6; }
"""
_TO_SEGMENT = "() => { if (window.innerWidth < 900) document.getElementById('segment').scrollIntoView(); }"


class Page:
    """What is on the page, and what happens when."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def blocks(self) -> Any:
        """The whole of it."""
        with gr.Blocks(title="spiritlm explore", analytics_enabled=False, fill_width=True) as blocks:
            self.seen = gr.State(None)
            gr.Markdown(f"# {self.actions.lake.uri}", elem_id="head")
            self.table = gr.Dropdown(label="Table", elem_id="table")
            self.about = gr.HTML(elem_id="about")
            with gr.Row(equal_height=False):
                with gr.Column(scale=6, min_width=320), gr.Tabs() as self.tabs:
                    with gr.Tab("Rows", id="rows"):
                        self._rows()
                    with gr.Tab("Rejected", id="rejected"):
                        self.reasons = gr.Dataframe(interactive=False, elem_id="reasons", show_label=False)
                    with gr.Tab("Compare", id="compare"):
                        self._compare()
                    with gr.Tab("Training examples", id="examples"):
                        self._examples()
                with gr.Column(scale=5, min_width=320, elem_id="segment"):
                    self._segment()
            self._wire(blocks)
        return blocks

    def _rows(self) -> None:
        self.kind = gr.Radio(list(KINDS), value="all", show_label=False, container=False, elem_id="kind")
        self.conditions = gr.Textbox(
            label="Filter",
            placeholder="duration > 5 and text ~ hello",
            submit_btn="Filter",
            elem_id="conditions",
        )
        comparisons = [each for each in COMPARISONS if each != "=="]
        with gr.Accordion("Add a condition", open=False):
            with gr.Row():
                self.column = gr.Dropdown(label="Column", min_width=130, elem_id="column")
                self.comparison = gr.Dropdown(comparisons, value="=", label="Comparison", min_width=90)
                self.value = gr.Textbox(label="Value", min_width=90, elem_id="value")
            self.add = gr.Button("Add", size="sm", elem_id="add")
        with gr.Row():
            self.sort = gr.Dropdown(label="Sort by", min_width=160, elem_id="sort")
            self.down = gr.Checkbox(label="greatest first", min_width=120, elem_id="down")
        self.listed = gr.Dataframe(interactive=False, max_height=430, show_label=False, elem_id="listed")
        with gr.Row():
            self.back = gr.Button("◀", size="sm", min_width=60, elem_id="back")
            self.where = gr.Textbox(
                show_label=False, container=False, interactive=False, min_width=160, elem_id="where"
            )
            self.forth = gr.Button("▶", size="sm", min_width=60, elem_id="forth")
        with gr.Row(equal_height=False):
            self.measured = gr.Dropdown(label="Histogram of", min_width=160, elem_id="measured")
            self.measure = gr.Button("Show histogram", min_width=120, elem_id="measure")
        self.histogram = gr.HTML(elem_id="histogram")

    def _segment(self) -> None:
        player: dict[str, Any] = {"interactive": False, "visible": HIDDEN, "buttons": ["download"]}
        self.heading = gr.HTML("<p>Click a row to see and hear it.</p>", elem_id="heading")
        self.sound = gr.Audio(label="Recording", **player, elem_id="sound")
        self.speak = gr.Button("Hear the units through the vocoder", visible=HIDDEN, elem_id="speak")
        self.spoken = gr.Audio(label="Units through the vocoder", **player, elem_id="spoken")
        self.figure = gr.HTML(elem_id="figure")
        self.kept_heading = gr.HTML(elem_id="kept")
        self.kept_sound = gr.Audio(label="The row that it names", **player, elem_id="kept-sound")
        self.kept_figure = gr.HTML()
        self.facts = gr.HTML(elem_id="facts")

    def _compare(self) -> None:
        self.other = gr.Dropdown(label="With the snapshot", elem_id="other")
        self.compare = gr.Button("Compare", elem_id="compare")
        self.difference = gr.HTML(elem_id="difference")
        self.different = gr.Dataframe(interactive=False, max_height=430, show_label=False)

    def _examples(self) -> None:
        with gr.Row():
            self.stream = gr.Dropdown(["as mixed", *STREAMS], value="as mixed", label="Stream", min_width=140)
            self.count = gr.Number(5, label="How many", minimum=1, maximum=50, precision=0, min_width=80)
            self.epoch = gr.Number(0, label="Epoch", minimum=0, precision=0, min_width=80)
        self.draw = gr.Button("Draw", elem_id="draw")
        self.examples = gr.HTML(elem_id="examples")

    def _wire(self, blocks: Any) -> None:
        """What happens when. None of it can be called but from the page."""
        actions = self.actions
        private: dict[str, Any] = {"api_visibility": "private"}
        asked: list[Any] = [self.table, self.kind, self.conditions, self.sort, self.down]
        rows = [self.seen, self.where, self.listed]
        about = [self.about, self.sort, self.column, self.measured, self.other, self.reasons]
        opened = [*about, self.histogram, self.kind, self.conditions, *rows]
        blocks.load(actions.loaded, self.table, [self.table, *opened], **private)
        self.table.input(actions.opened, self.table, opened, **private)
        for event in (self.kind.input, self.conditions.submit, self.sort.input, self.down.input):
            event(actions.listed, asked, rows, **private)
        one_more = [self.conditions, self.column, self.comparison, self.value]
        self.add.click(actions.added, one_more, self.conditions, **private).then(actions.listed, asked, rows, **private)
        for button, by in ((self.back, -1), (self.forth, 1)):
            button.click(partial(actions.moved, by), [self.seen, *asked], rows, **private)
        measured = [self.table, self.kind, self.conditions, self.measured]
        self.measure.click(actions.histogram, measured, self.histogram, **private)
        segment = [self.seen, self.heading, self.sound, self.figure, self.spoken, self.speak, self.facts]
        kept = [self.kept_heading, self.kept_sound, self.kept_figure]
        picked = self.listed.select(actions.picked, [self.seen, self.table], [*segment, *kept], **private)
        picked.then(None, None, None, js=_TO_SEGMENT)
        self.speak.click(actions.spoken, self.seen, self.spoken, **private)
        self.reasons.select(actions.of_reason, self.table, [self.table, *opened, self.tabs], **private)
        self.compare.click(actions.compared, [self.table, self.other], [self.difference, self.different], **private)
        drawn = [self.table, self.stream, self.count, self.epoch]
        self.draw.click(actions.examples, drawn, self.examples, **private)
