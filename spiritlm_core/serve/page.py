"""The web page: a conversation of text and speech, and what the model makes of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr
from fastapi import FastAPI

from spiritlm_core.serve.actions import HINTS, TASKS, Actions
from spiritlm_core.serve.display import HIDDEN, visible
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import ServeConfig
from spiritlm_core.serve.guard import UPLOAD, Kept, uploads
from spiritlm_core.serve.listening import mount

CSS = """
.gradio-container { max-width: 1320px !important; width: 100% !important; margin: 0 auto !important; }
#head h1 { margin-bottom: 0; }
#chat .bubble-wrap { padding-top: 36px; }
#chat .minimal-audio-player { height: 52px; min-width: 220px; }
#chat button[aria-label="Share"], #chat button[title="Share"] { display: none; }
#silent p { color: var(--body-text-color-subdued); }
#doubt p { color: #b3402a; }
#live iframe { width: 100%; height: 420px; border: 0; }
#tokens textarea { font-family: ui-monospace, monospace; font-size: 12px; }
footer { display: none !important; }
"""


def add_page(app: FastAPI, engine: Engine, config: ServeConfig, kept: Kept) -> FastAPI:
    """`app` with the page at ``/``, whose files lie in `kept`."""
    app.add_api_route(UPLOAD, uploads(kept, engine), methods=["POST"], include_in_schema=False)
    return mount(app, Page(Actions(engine, config, kept)).blocks(), config, kept, CSS)


class Page:
    """What is on the page, and what happens when."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def blocks(self) -> Any:
        """The whole of it."""
        with gr.Blocks(title="spiritlm", analytics_enabled=False, fill_width=True) as blocks:
            self.turns, self.examples, self.answered = gr.State([]), gr.State([]), gr.State(None)
            self._head()
            with gr.Accordion("Live", open=False, elem_id="live"):
                gr.HTML('<iframe src="live" title="Live" allow="microphone"></iframe>')
            with gr.Row(equal_height=False):
                with gr.Column(scale=6, min_width=360):
                    self._conversation()
                with gr.Column(scale=5, min_width=360):
                    self._answer()
            with gr.Group(visible=HIDDEN, elem_id="units") as self.units:
                gr.Markdown("**HuBERT units over the spectrogram**", padding=True)
                self.plot = gr.Plot(show_label=False, container=False, elem_id="plot")
            self._wire()
        return blocks

    def _head(self) -> None:
        with gr.Row(equal_height=True):
            gr.Markdown("# spiritlm\nText and speech in, text and speech out.", elem_id="head")
            names = list(self.actions.models)
            self.model = gr.Dropdown(
                names, value=names[0], label="Model", visible=visible(len(names) > 1), elem_id="model"
            )
        self.task = gr.Radio(list(TASKS), value="Free", label="Task", elem_id="task", info=HINTS["free"])

    def _conversation(self) -> None:
        self.chat = gr.Chatbot(
            label="Conversation",
            height=340,
            render_markdown=False,
            buttons=[],
            feedback_options=None,
            elem_id="chat",
            placeholder="Type, record or upload: each becomes a turn.",
        )
        self.text = gr.Textbox(label="Text", placeholder="Type here", submit_btn="Add", max_lines=6, elem_id="text")
        self.audio = gr.Audio(
            sources=["microphone", "upload"], type="filepath", label="Speech", editable=False, elem_id="audio"
        )
        with gr.Row(elem_id="clickable"):
            self.clickable = [
                gr.Button(**shown, size="sm") for shown in self.actions.buttons(self.actions.engine.default)
            ]
        self.output = gr.Radio(["text", "speech", "any"], value="any", label="Answer in", elem_id="output")
        known = self.actions.labels(self.actions.engine.default)
        self.labels = gr.Textbox(label="Labels", placeholder="happy, sad", visible=HIDDEN, elem_id="labels", **known)
        with gr.Row():
            self.undo = gr.Button("Remove last", elem_id="undo")
            self.clear = gr.Button("Clear", elem_id="clear")
            self.ask = gr.Button("Answer", variant="primary", elem_id="ask")
        # below the button, so that no button moves when a task is chosen
        self.doubt = gr.Markdown(**self.actions.doubt("Free", self.actions.engine.default), elem_id="doubt")
        self._solved()
        self._sampling()

    def _solved(self) -> None:
        with gr.Accordion("Solved examples", open=False, visible=HIDDEN, elem_id="examples") as self.solved:
            self.shown = gr.Dataframe(headers=["question", "answer"], interactive=False, visible=HIDDEN)
            self.example_audio = gr.Audio(
                sources=["microphone", "upload"], type="filepath", label="Recording", editable=False
            )
            self.example_text = gr.Textbox(label="… or a text", visible=HIDDEN, elem_id="example-text")
            self.example_answer = gr.Textbox(label="Transcript", elem_id="example-answer")
            with gr.Row():
                self.forget = gr.Button("Remove examples")
                self.learn = gr.Button("Add example", elem_id="add-example")

    def _sampling(self) -> None:
        actions, most = self.actions, self.actions.config.max_new_tokens
        with gr.Accordion("Sampling and voice", open=False, elem_id="sampling"):
            with gr.Row():
                self.temperature = gr.Slider(0, 2, 0, step=0.05, label="Temperature", info="0: the most likely token")
                self.top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top p")
            with gr.Row():
                self.top_k = gr.Number(0, label="Top k", info="0: all", precision=0, minimum=0)
                self.seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            with gr.Row():
                self.most = gr.Slider(1, most, min(200, most), step=1, label="New tokens", elem_id="most")
                self.speaker = gr.Dropdown(**actions.voices(actions.engine.default), label="Speaker", elem_id="speaker")

    def _answer(self) -> None:
        self.answer = gr.Textbox(label="Answer", lines=4, max_lines=12, interactive=False, elem_id="answer")
        self.label = gr.Label(label="Label", visible=HIDDEN, elem_id="label")
        self.heard = gr.Audio(
            label="Speech of the answer", buttons=["download"], interactive=False, visible=HIDDEN, elem_id="heard"
        )
        self.silent = gr.Markdown(visible=HIDDEN, elem_id="silent")
        self.tokens = gr.Textbox(
            label="Speech tokens", lines=3, max_lines=6, interactive=False, visible=HIDDEN, elem_id="tokens"
        )

    def _wire(self) -> None:
        """What happens when. None of it can be called but from the page: the HTTP interface is another."""
        actions = self.actions
        private: dict[str, Any] = {"api_visibility": "private"}
        quiet: dict[str, Any] = {**private, "show_progress": "hidden"}
        conversation = [self.turns, self.chat]
        written = [self.turns, self.text]
        self.text.submit(actions.add_text, written, [*conversation, self.text], **quiet)
        for event in (self.audio.upload, self.audio.stop_recording):
            event(actions.add_audio, [self.turns, self.audio], [*conversation, self.audio], **private)
        self.undo.click(actions.undo, self.turns, conversation, **quiet)
        for event in (self.clear.click, self.chat.clear):
            event(actions.clear, None, conversation, **quiet)
        shapes = [self.task, self.output, self.labels, self.solved, self.example_text, self.example_answer, self.ask]
        self.task.change(actions.shape, [self.task, self.model], [self.doubt, *shapes], **quiet)
        of_model = [self.speaker, self.labels, self.doubt, *self.clickable]
        self.model.change(actions.shown, [self.task, self.model], of_model, **quiet)
        for number, button in enumerate(self.clickable):
            click = partial(actions.try_example, number)
            button.click(click, [self.turns, self.model], [*conversation, self.task], **quiet)
        example = [self.example_audio, self.example_text, self.example_answer]
        self.learn.click(actions.learn, [self.examples, *example], [self.examples, self.shown, *example], **private)
        self.forget.click(actions.forget, None, [self.examples, self.shown], **quiet)
        options = [self.temperature, self.top_p, self.top_k, self.seed, self.most]
        given = [self.turns, self.task, self.output, self.labels, self.examples, self.model, self.speaker, *options]
        results = [self.answer, self.label, self.heard, self.silent, self.tokens, self.units, self.plot]
        locked = [self.ask, self.undo, self.clear]
        asked = self.ask.click(actions.begin, written, [*conversation, self.text, *locked], **quiet)
        answered = asked.then(actions.ask, given, [self.answered, *results], **private)
        answered.then(actions.end, [self.turns, self.answered], [*conversation, self.answered, *locked], **quiet)
