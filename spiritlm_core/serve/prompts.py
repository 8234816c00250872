"""Parts of a request to the parts of a prompt, within the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.content import Content, Speech, Text
from spiritlm_core.lm.generate.presets import encoded, prompt_length
from spiritlm_core.serve.errors import RequestError
from spiritlm_core.serve.recordings import Recordings
from spiritlm_core.serve.schema import AudioPart, Part, Shot, TextPart, UnitsPart
from spiritlm_core.serve.settings import ServeConfig
from spiritlm_core.speech.grid import hop_of
from spiritlm_core.speech.types import by_frame

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM

SolvedExample = tuple[list[Content], list[Content]]


@dataclass(frozen=True)
class Recording:
    """A recording of a request.

    Attributes:
        waveform: float32[samples] at 16 kHz.
        hubert: its units, int[frames of 40 ms].
    """

    waveform: NDArray[np.float32]
    hubert: NDArray[np.integer]


class PromptReader:
    """Reads the parts of one request; recordings become units.

    Args:
        spirit: the model that is asked.
        config: the limits.
        files: uploaded files by the name of their field.

    Attributes:
        recordings: those that were read, in their order.
    """

    def __init__(self, spirit: SpiritLM, config: ServeConfig, files: dict[str, bytes]) -> None:
        self._spirit, self._most = spirit, config.token_limit
        self._files = Recordings(files, config.max_seconds)
        self.recordings: list[Recording] = []

    def prompt(
        self, question: Sequence[tuple[str, Part]], shots: Sequence[Shot], output: str
    ) -> tuple[list[Content], list[SolvedExample]]:
        """A question, each part with the name of its field, and the solved examples in front of it.

        Raises:
            RequestError: a part cannot be used, or the whole is too long.
        """
        solved = [
            (
                [self._content(part, field) for field, part in numbered(f"shots.{i}.question", shot.question)],
                [self._content(part, field) for field, part in numbered(f"shots.{i}.answer", shot.answer)],
            )
            for i, shot in enumerate(shots)
        ]
        asked = [self._content(part, field) for field, part in question]
        length = prompt_length(self._spirit, asked, output, solved)
        if self._most is not None and length > self._most:
            raise RequestError(400, "too_long", f"the prompt has {length} tokens, {self._most} are allowed: shorten it")
        return asked, solved

    def waveform(self, part: AudioPart, field: str) -> NDArray[np.float32]:
        """A recording, float32[samples] at 16 kHz.

        Raises:
            RequestError: it cannot be used, or recordings are too long together.
        """
        return self._files.waveform(part, field)

    def _content(self, part: Part, field: str) -> Content:
        if isinstance(part, TextPart):
            return Text(part.text)
        try:
            if isinstance(part, AudioPart):
                return self._encoded(self.waveform(part, field))
            self._spirit.speech_ids(part.tokens)
        except RequestError:
            raise
        except SpiritLMError as error:
            raise RequestError(400, _kind(part, error), str(error), field) from error
        return Speech(tokens=part.tokens)

    def _encoded(self, waveform: NDArray[np.float32]) -> Content:
        (content,) = encoded(self._spirit, Speech(audio=waveform))
        if isinstance(content, Speech) and content.units is not None:
            hubert = np.asarray(content.units.hubert)
            hubert = by_frame(hubert, len(waveform), hop_of(len(hubert), len(waveform)))
            self.recordings.append(Recording(waveform, hubert))
        return content


def numbered(field: str, parts: Sequence[Part]) -> list[tuple[str, Part]]:
    """The parts of a list, each with its name."""
    return [(f"{field}.{i}", part) for i, part in enumerate(parts)]


def _kind(part: AudioPart | UnitsPart, error: SpiritLMError) -> str:
    if isinstance(error, ModelReferenceError):
        return "no_speech_tokenizer"
    return "bad_audio" if isinstance(part, AudioPart) else "bad_tokens"
