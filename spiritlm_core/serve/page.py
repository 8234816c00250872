"""The web page: a conversation of text and speech, and what the model makes of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported, which would call home

import gradio as gr
from fastapi import FastAPI

from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.content import SpeechSegment
from spiritlm_core.lm.spirit import SpiritLM
from spiritlm_core.serve import turns as requests
from spiritlm_core.serve.api import describe
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import RequestError, as_request_error
from spiritlm_core.serve.plot import Panel, figure, panel
from spiritlm_core.serve.service import Asking, Heard, Reply, speaks
from spiritlm_core.serve.settings import ServeConfig
from spiritlm_core.serve.turns import Example, Settings, Turn

TASKS = {"Free": "free", "Transcribe": "asr", "Say": "tts", "Classify": "classify"}
HINTS = {
    "free": "The model goes on with the whole conversation.",
    "asr": "The model writes down the last recording. Solved examples: a recording and its transcript.",
    "tts": "The model says the last text. Solved examples: a recording and its transcript.",
    "classify": "The model chooses a label for the last turn. Solved examples: a recording or a text, and its label.",
}
BUTTONS = {"free": "Answer", "asr": "Transcribe", "tts": "Say", "classify": "Classify"}
HIDDEN: Any = "hidden"  # on the page but not seen: what is not on it would not come back after a second False
CSS = """
.gradio-container { max-width: 1320px !important; width: 100% !important; margin: 0 auto !important; }
#head h1 { margin-bottom: 0; }
#chat .bubble-wrap { padding-top: 36px; }
#chat .minimal-audio-player { height: 52px; min-width: 220px; }
#chat button[aria-label="Share"], #chat button[title="Share"] { display: none; }
#silent p { color: var(--body-text-color-subdued); }
#tokens textarea { font-family: ui-monospace, monospace; font-size: 12px; }
footer { display: none !important; }
"""


def mount(app: FastAPI, engine: Engine, config: ServeConfig) -> FastAPI:
    """`app` with the page at ``/``. Its files lie in a folder of their own, which ends with it."""
    kept = tempfile.TemporaryDirectory(prefix="spiritlm-page-")
    os.environ["GRADIO_TEMP_DIR"] = kept.name
    blocks = Page(engine, config, Path(kept.name)).blocks()
    blocks.queue(max_size=4 * config.queue, default_concurrency_limit=config.queue)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        max_file_size=config.max_bytes,
        ssr_mode=False,
        footer_links=[],
        show_error=False,
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=CSS,
    )
    mounted.state.kept = kept
    return mounted


class Page:
    """The page and what its buttons do.

    Args:
        engine: answers.
        config: the limits.
        folder: where waveforms are kept.
    """

    def __init__(self, engine: Engine, config: ServeConfig, folder: Path) -> None:
        self.engine, self.config, self.folder = engine, config, folder
        self.models = {name: describe(name, spirit) for name, spirit in engine.models.items()}

    def blocks(self) -> Any:
        """The layout, and what happens when."""
        with gr.Blocks(title="spiritlm", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as blocks:
            self.turns, self.examples = gr.State([]), gr.State([])
            self._head()
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
            names = list(self.models)
            self.model = gr.Dropdown(
                names, value=names[0], label="Model", visible=_visible(len(names) > 1), elem_id="model"
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
        self.output = gr.Radio(["text", "speech", "any"], value="any", label="Answer in", elem_id="output")
        self.labels = gr.Textbox(label="Labels", placeholder="happy, sad", visible=HIDDEN, elem_id="labels")
        with gr.Row():
            self.undo = gr.Button("Remove last", elem_id="undo")
            self.clear = gr.Button("Clear", elem_id="clear")
            self.ask = gr.Button("Answer", variant="primary", elem_id="ask")
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
        most = self.config.max_new_tokens
        with gr.Accordion("Sampling and voice", open=False, elem_id="sampling"):
            with gr.Row():
                self.temperature = gr.Slider(0, 2, 0, step=0.05, label="Temperature", info="0: the most likely token")
                self.top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top p")
            with gr.Row():
                self.top_k = gr.Number(0, label="Top k", info="0: all", precision=0, minimum=0)
                self.seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            with gr.Row():
                self.most = gr.Slider(1, most, min(200, most), step=1, label="New tokens", elem_id="most")
                self.speaker = gr.Dropdown(**self._voices(self.engine.default), label="Speaker", elem_id="speaker")

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
        private: dict[str, Any] = {"api_visibility": "private"}
        quiet: dict[str, Any] = {**private, "show_progress": "hidden"}
        conversation = [self.turns, self.chat]
        written = [self.turns, self.text]
        self.text.submit(self._add_text, written, [*conversation, self.text], **quiet)
        for event in (self.audio.upload, self.audio.stop_recording):
            event(self._add_audio, [self.turns, self.audio], [*conversation, self.audio], **private)
        self.undo.click(lambda turns: _shown(turns[:-1]), self.turns, conversation, **quiet)
        for event in (self.clear.click, self.chat.clear):
            event(lambda: _shown([]), None, conversation, **quiet)
        shapes = [self.task, self.output, self.labels, self.solved, self.example_text, self.example_answer, self.ask]
        self.task.change(self._shape, self.task, shapes, **quiet)
        self.model.change(lambda name: gr.update(**self._voices(name)), self.model, self.speaker, **quiet)
        example = [self.example_audio, self.example_text, self.example_answer]
        self.learn.click(self._learn, [self.examples, *example], [self.examples, self.shown, *example], **private)
        self.forget.click(lambda: ([], gr.update(value=[], visible=HIDDEN)), None, [self.examples, self.shown], **quiet)
        options = [self.temperature, self.top_p, self.top_k, self.seed, self.most]
        given = [self.turns, self.text, self.task, self.output, self.labels, self.examples, self.model, self.speaker]
        results = [self.answer, self.label, self.heard, self.silent, self.tokens, self.units, self.plot]
        self.ask.click(self._ask, [*given, *options], [*conversation, self.text, *results], **private)

    def _voices(self, name: str) -> dict[str, Any]:
        count = self.models[name].speakers
        choices = [("default", -1), *((str(i), i) for i in range(count))]
        return {"choices": choices, "value": -1, "visible": _visible(count > 1)}

    def _shape(self, task: str) -> list[Any]:
        kind = TASKS[task]
        examples = kind != "free"
        return [
            gr.update(info=HINTS[kind]),
            gr.update(visible=_visible(kind == "free")),
            gr.update(visible=_visible(kind == "classify")),
            gr.update(visible=_visible(examples)),
            gr.update(visible=_visible(kind == "classify")),
            gr.update(label="Label" if kind == "classify" else "Transcript"),
            gr.update(value=BUTTONS[kind]),
        ]

    def _add_text(self, turns: list[Turn], text: str) -> tuple[Any, ...]:
        added = [*turns, Turn("user", text=text.strip())] if text.strip() else turns
        return *_shown(added), ""

    def _add_audio(self, turns: list[Turn], path: str | None) -> tuple[Any, ...]:
        """A recording that cannot be used is refused in one sentence, and taken off the page."""
        if path is None or not self._usable(path):
            return *_shown(turns), None
        return *_shown([*turns, Turn("user", file=path)]), None

    def _usable(self, path: str) -> bool:
        try:
            requests.check_recording(path, self.config)
        except RequestError as error:
            gr.Warning(_sentence(error))
            return False
        return True

    def _learn(self, examples: list[Example], path: str | None, text: str, answer: str) -> tuple[Any, ...]:
        if not answer.strip() or not (path or text.strip()):
            gr.Warning("An example needs a recording (or a text) and its answer.")
            return examples, gr.skip(), gr.skip(), gr.skip(), gr.skip()
        if path and not self._usable(path):
            return examples, gr.skip(), None, gr.skip(), gr.skip()
        question = Turn("user", file=path) if path else Turn("user", text=text.strip())
        added = [*examples, Example(question, answer.strip())]
        rows = [[Path(e.question.file).name if e.question.file else e.question.text, e.answer] for e in added]
        return added, gr.update(value=rows, visible=True), None, "", ""

    def _ask(
        self,
        turns: list[Turn],
        text: str,
        task: str,
        output: str,
        labels: str,
        examples: list[Example],
        model: str,
        speaker: int,
        *options: Any,
    ) -> tuple[Any, ...]:
        """Answer; what stands in the text field belongs to the conversation."""
        turns = [*turns, Turn("user", text=text.strip())] if text.strip() else turns
        settings = _settings(model, speaker, options)
        try:
            if TASKS[task] == "classify":
                return *_shown(turns), "", *self._classify(turns, examples, labels, settings)
            reply, panels = self._reply(TASKS[task], turns, examples, output, settings)
        except SpiritLMError as error:
            raise gr.Error(_sentence(error), print_exception=False, duration=10) from error
        answered = [*turns, *self._turns(reply)] if TASKS[task] == "free" else turns
        return *_shown(answered), "", *self._results(reply, panels)

    def _reply(
        self, task: str, turns: list[Turn], examples: list[Example], output: str, settings: Settings
    ) -> tuple[Reply, list[Panel]]:
        files = requests.files_of(turns, examples)

        def work(spirit: SpiritLM) -> tuple[Reply, list[Panel]]:
            asking = Asking(spirit, self.config, files)
            if task == "free":
                reply = asking.generate(requests.free(turns, output, settings))
            elif task == "asr":
                answer = asking.transcribe(requests.transcription(turns, examples, settings))
                reply = Reply(tuple(Heard(segment) for segment in answer), answer)
            else:
                reply = asking.say(requests.saying(turns, examples, settings))
            return reply, panels_of(asking, reply)

        answered: tuple[Reply, list[Panel]] = self._called(work, settings)
        return answered

    def _classify(self, turns: list[Turn], examples: list[Example], labels: str, settings: Settings) -> tuple[Any, ...]:
        request = requests.classification(turns, examples, labels, settings)
        files = requests.files_of(turns, examples)

        def work(spirit: SpiritLM) -> tuple[Any, list[Panel]]:
            asking = Asking(spirit, self.config, files)
            return asking.classify(request), panels_of(asking, None)

        found, panels = self._called(work, settings)
        hidden = gr.update(visible=HIDDEN)
        shown = gr.update(value=found.probabilities, visible=True)
        return found.label, shown, hidden, hidden, hidden, *_plot(panels)

    def _called(self, work: Any, settings: Settings) -> Any:
        try:
            return self.engine.call(work, settings.model, self.config.timeout)
        except Exception as error:
            known = as_request_error(error)
            if known is None:
                raise
            raise known from error

    def _turns(self, reply: Reply) -> list[Turn]:
        """The answer as turns, so that the conversation goes on behind it."""
        found = []
        for heard in reply.segments:
            if isinstance(heard.segment, SpeechSegment):
                file = None if heard.waveform is None else self._kept(heard)
                found.append(Turn("assistant", file=file, tokens=heard.segment.tokens))
            else:
                found.append(Turn("assistant", text=heard.segment.text))
        return found

    def _kept(self, heard: Heard) -> str:
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="answer-", suffix=".wav", delete=False) as file:
            file.write(encode_wav(heard.waveform))  # type: ignore[arg-type]
        return file.name

    def _results(self, reply: Reply, panels: Sequence[Panel]) -> tuple[Any, ...]:
        texts = [h.segment.content for h in reply.segments if not isinstance(h.segment, SpeechSegment)]
        tokens = [h.segment.content for h in reply.segments if isinstance(h.segment, SpeechSegment)]
        silent = next((h.silent for h in reply.segments if h.silent and reply.waveform is None), None)
        empty = "" if reply.segments else "The model ended at once: try another seed, or a temperature above 0."
        heard = None if reply.waveform is None else self._kept(Heard(reply.segments[0].segment, reply.waveform))
        note = "" if silent is None else f"{silent[0].upper()}{silent[1:]}."
        return (
            "\n".join(texts) or empty,
            gr.update(visible=HIDDEN),
            gr.update(value=heard, visible=_visible(heard is not None)),
            gr.update(value=note, visible=_visible(bool(note))),
            gr.update(value="\n".join(tokens), visible=_visible(bool(tokens))),
            *_plot(panels),
        )


def panels_of(asking: Asking, reply: Reply | None) -> list[Panel]:
    """The last recording of the prompt, and the speech of the answer."""
    found = [panel("prompt", one.waveform, one.hubert) for one in asking.recordings[-1:]]
    for heard in reply.segments if reply else ():
        if isinstance(heard.segment, SpeechSegment) and heard.waveform is not None:
            units = heard.segment.units.hubert
            durations = asking.spirit.speech_tokenizer.vocoder.durations(units) if speaks(asking.spirit) else None
            found.append(panel("answer", heard.waveform, units, durations))
    return found


def _visible(shown: bool) -> Any:
    return True if shown else HIDDEN


def _plot(panels: Sequence[Panel]) -> tuple[Any, Any]:
    return gr.update(visible=_visible(bool(panels))), figure(panels) if panels else None


def _shown(turns: list[Turn]) -> tuple[list[Turn], list[dict[str, Any]]]:
    return turns, [turn.message() for turn in turns]


def _settings(model: str, speaker: int, options: Sequence[Any]) -> Settings:
    temperature, top_p, top_k, seed, most = options
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": int(top_k or 0), "seed": int(seed or 0)}
    voice = {"speaker": speaker} if speaker is not None and speaker >= 0 else {}
    return Settings(model, {**sampling, "max_new_tokens": int(most)}, voice)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
