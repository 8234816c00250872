"""What the buttons of the page do."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.generate.presets import Classification
from spiritlm_core.lm.generate.speaking import Heard
from spiritlm_core.metrics.verdicts import given_labels
from spiritlm_core.serve import turns as requests
from spiritlm_core.serve.display import (
    HIDDEN,
    Panel,
    answer,
    answer_turns,
    conversation,
    label,
    panels_of,
    sentence,
    title,
    visible,
)
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import RequestError, ServeConfig, as_request_error
from spiritlm_core.serve.guard import Kept
from spiritlm_core.serve.replies import Reply, describe
from spiritlm_core.serve.schema import GenerateRequest, SayRequest, TranscribeRequest
from spiritlm_core.serve.service import RequestHandler
from spiritlm_core.serve.turns import Example, Settings, Turn

T = TypeVar("T")
TASKS = {"Free": "free", "Transcribe": "asr", "Say": "tts", "Classify": "classify"}
HINTS = {
    "free": "The model goes on with the whole conversation.",
    "asr": "The model writes down the last recording. Solved examples: a recording and its transcript.",
    "tts": "The model says the last text. Solved examples: a recording and its transcript.",
    "classify": "The model chooses a label for the last turn. Solved examples: a recording or a text, and its label.",
}
EXAMPLES = ("Please hold the line.", "The number is one two three.")
DOUBTED = {"asr": "transcribe", "tts": "say", "classify": "classify"}
BUTTONS = {"free": "Answer", "asr": "Transcribe", "tts": "Say", "classify": "Classify"}


class Actions:
    """What the buttons do: each method takes what is on the page, and gives what is then on it."""

    def __init__(self, engine: Engine, config: ServeConfig, kept: Kept) -> None:
        self.engine, self.config, self.kept = engine, config, kept
        self.models = {name: describe(name, spirit) for name, spirit in engine.models.items()}

    def voices(self, model: str) -> dict[str, Any]:
        """What the choice of speakers shows: names where the vocoder has names, else numbers."""
        spirit = self.models[model]
        known: Sequence[str | int] = spirit.speaker_names or range(spirit.speakers)
        choices = [("default", ""), *((str(speaker), speaker) for speaker in known)]
        return {"choices": choices, "value": "", "visible": visible(spirit.speakers > 1)}

    def examples(self, model: str) -> list[dict[str, str]]:
        """What can be clicked: recordings that the model comes with, and a few texts."""
        return [*self.engine.models[model].examples, *({"text": text} for text in EXAMPLES)]

    def labels(self, model: str) -> dict[str, Any]:
        """What the field of labels shows: those that the model was judged with."""
        return {"value": ", ".join(given_labels(self.engine.models[model].verdicts))}

    def doubt(self, task: str, model: str) -> dict[str, Any]:
        """What the model's own evaluation says of a task that it is no good at."""
        said = self.models[model].doubts.get(DOUBTED.get(TASKS[task], ""))
        return {"value": said or "", "visible": visible(said is not None)}

    def buttons(self, model: str) -> list[dict[str, Any]]:
        """A button for each example, and hidden ones for those that other models have more."""
        most = max(len(self.examples(name)) for name in self.models)
        titles = [title(example) for example in self.examples(model)]
        hidden = [{"value": "", "visible": HIDDEN}] * (most - len(titles))
        return [*({"value": text, "visible": True} for text in titles), *hidden]

    def shown(self, task: str, model: str) -> list[Any]:
        """What belongs to a model: its voices and labels, what it is no good at, and its examples."""
        parts = [self.voices(model), self.labels(model), self.doubt(task, model), *self.buttons(model)]
        return [gr.update(**part) for part in parts]

    def shape(self, task: str, model: str) -> list[Any]:
        """What each task needs."""
        kind = TASKS[task]
        examples = kind != "free"
        return [
            gr.update(**self.doubt(task, model)),
            gr.update(info=HINTS[kind]),
            gr.update(visible=visible(kind == "free")),
            gr.update(visible=visible(kind == "classify")),
            gr.update(visible=visible(examples)),
            gr.update(visible=visible(kind == "classify")),
            gr.update(label="Label" if kind == "classify" else "Transcript"),
            gr.update(value=BUTTONS[kind]),
        ]

    def add_text(self, turns: list[Turn], text: str) -> tuple[Any, ...]:
        """A text becomes a turn."""
        said = [Turn("user", text=text.strip())] if text.strip() else []
        return *conversation([*turns, *said]), ""

    def add_audio(self, turns: list[Turn], path: str | None) -> tuple[Any, ...]:
        """A recording becomes a turn; one that cannot be used is refused in one sentence, and taken off the page."""
        if path is None or not self._usable(path):
            return *conversation(turns), None
        return *conversation([*turns, Turn("user", file=path)]), None

    def try_example(self, number: int, turns: list[Turn], model: str) -> tuple[Any, ...]:
        """An example becomes a turn, and the task is the one that it is for."""
        example = self.examples(model)[number]
        if "audio" not in example:
            return *conversation([*turns, Turn("user", text=example["text"])]), "Say"
        file = self.kept.add(Path(example["audio"]).name, Path(example["audio"]).read_bytes())
        return *conversation([*turns, Turn("user", file=str(file))]), "Transcribe"

    def undo(self, turns: list[Turn]) -> tuple[Any, ...]:
        """The last turn goes."""
        return conversation(turns[:-1])

    def clear(self) -> tuple[Any, ...]:
        """All turns go."""
        return conversation([])

    def learn(self, examples: list[Example], path: str | None, text: str, answer: str) -> tuple[Any, ...]:
        """A solved example more."""
        if not answer.strip() or not (path or text.strip()):
            gr.Warning("An example needs a recording (or a text) and its answer.")
            return examples, gr.skip(), gr.skip(), gr.skip(), gr.skip()
        if path and not self._usable(path):
            return examples, gr.skip(), None, gr.skip(), gr.skip()
        question = Turn("user", file=path) if path else Turn("user", text=text.strip())
        added = [*examples, Example(question, answer.strip())]
        rows = [[Path(e.question.file).name if e.question.file else e.question.text, e.answer] for e in added]
        return added, gr.update(value=rows, visible=True), None, "", ""

    def forget(self) -> tuple[Any, ...]:
        """All solved examples go."""
        return [], gr.update(value=[], visible=HIDDEN)

    def begin(self, turns: list[Turn], text: str) -> tuple[Any, ...]:
        """Before an answer: what stands in the text field becomes a turn, and none can go until the answer is there."""
        return *self.add_text(turns, text), *_usable_buttons(False)

    def ask(
        self,
        turns: list[Turn],
        task: str,
        output: str,
        labels: str,
        examples: list[Example],
        model: str,
        speaker: str | int | None,
        *options: Any,
    ) -> tuple[Any, ...]:
        """Answer; the answer's turns, behind how many of the conversation's they belong, and what is seen of them."""
        settings, kind = _settings(model, speaker, options), TASKS[task]
        try:
            if kind == "classify":
                return None, *label(*self._classified(turns, examples, labels, settings))
            reply, panels = self._replied(kind, turns, examples, output, settings)
        except SpiritLMError as error:
            raise gr.Error(sentence(str(error)), print_exception=False, duration=10) from error
        answered = (len(turns), answer_turns(reply, self.kept)) if kind == "free" else None
        return answered, *answer(reply, panels, self.kept)

    def end(self, turns: list[Turn], answered: tuple[int, list[Turn]] | None) -> tuple[Any, ...]:
        """After an answer, or where there is none: it takes its place, also before what was said meanwhile.

        Where the conversation was cleared meanwhile, there is no place for it.
        """
        place, answer = answered or (0, [])
        if place > len(turns):
            answer = []
        return *conversation([*turns[:place], *answer, *turns[place:]]), None, *_usable_buttons(True)

    def _replied(
        self, kind: str, turns: list[Turn], examples: list[Example], output: str, settings: Settings
    ) -> tuple[Reply, list[Panel]]:
        request = _request(kind, turns, examples, output, settings)

        def work(handler: RequestHandler) -> tuple[Reply, list[Panel]]:
            reply = _reply(handler, request)
            return reply, panels_of(handler, reply)

        return self._called(work, turns, examples, settings)

    def _classified(
        self, turns: list[Turn], examples: list[Example], labels: str, settings: Settings
    ) -> tuple[Classification, list[Panel]]:
        request = requests.classification(turns, examples, labels, settings)
        return self._called(lambda handler: (handler.classify(request), panels_of(handler)), turns, examples, settings)

    def _called(
        self, work: Callable[[RequestHandler], T], turns: list[Turn], examples: list[Example], settings: Settings
    ) -> T:
        files = requests.files_of(turns, examples)
        try:
            return self.engine.call(
                lambda spirit: work(RequestHandler(spirit, self.config, files)), settings.model, self.config.timeout
            )
        except Exception as error:
            known = as_request_error(error)
            if known is None:
                raise
            raise known from error

    def _usable(self, path: str) -> bool:
        try:
            requests.check_recording(path, self.config)
        except RequestError as error:
            gr.Warning(sentence(str(error)))
            return False
        return True


def _usable_buttons(usable: bool) -> list[Any]:
    """Those of the page's `locked`."""
    return [gr.update(interactive=usable)] * 3


def _settings(model: str, speaker: str | int | None, options: Sequence[Any]) -> Settings:
    temperature, top_p, top_k, seed, most = options
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": int(top_k or 0), "seed": int(seed or 0)}
    voice = {} if speaker in (None, "") else {"speaker": speaker}
    return Settings(model, {**sampling, "max_new_tokens": int(most)}, voice)


def _request(
    kind: str, turns: list[Turn], examples: list[Example], output: str, settings: Settings
) -> GenerateRequest | TranscribeRequest | SayRequest:
    if kind == "asr":
        return requests.transcription(turns, examples, settings)
    return requests.saying(turns, examples, settings) if kind == "tts" else requests.free(turns, output, settings)


def _reply(handler: RequestHandler, request: GenerateRequest | TranscribeRequest | SayRequest) -> Reply:
    if isinstance(request, TranscribeRequest):
        written = handler.transcribe(request)
        return Reply(tuple(map(Heard, written)), written)
    return handler.say(request) if isinstance(request, SayRequest) else handler.generate(request)
