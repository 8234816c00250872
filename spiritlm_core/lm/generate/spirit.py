"""A model with one call: text and speech in, text and speech tokens out."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.content import (
    Answer,
    Content,
    Input,
    Prompt,
    Segment,
    Speech,
    Text,
    contents,
    voiced,
)
from spiritlm_core.lm.generate.formats import PromptFormat, follow
from spiritlm_core.lm.generate.prompts import Kind, Modality, turns
from spiritlm_core.lm.model.folder import locate
from spiritlm_core.metrics.verdicts import Verdict, read_examples, read_languages, read_verdicts
from spiritlm_core.references.reference import local_path
from spiritlm_core.speech.folder import TokenizerFolder
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.tokens.speech import Streams, merge_streams, to_string
from spiritlm_core.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

    from spiritlm_core.lm.generate.decode import Continuation, Options
    from spiritlm_core.lm.model.network import CausalLM
    from spiritlm_core.speech.vocoder.vocoder import Speaker

MODALITIES: dict[str, Modality] = {"text": "text", "speech": "speech", "any": "any"}


class Generation(FrozenConfig):
    """Options of generation."""

    max_new_tokens: int = Field(
        200, ge=0, description="Most tokens in the answer; fewer where the model's context ends."
    )
    temperature: float = Field(
        0.0, ge=0, le=100, description="0 takes the most likely token; else logits are divided by it."
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Nucleus sampling: the fewest likely tokens so probable together."
    )
    top_k: int = Field(0, ge=0, description="Only this many of the likely tokens; 0: all.")
    seed: int = Field(
        0, ge=0, description="Seed of the draws, which depend on it and the prompt, not on what shares a batch."
    )
    shots: Sequence[tuple[Input, Input]] = Field(
        (),
        description="Solved examples, pairs of what is asked and what is answered, in front of the prompt. The answer "
        "then also ends where the model turns to the next question.",
    )
    stop: Sequence[str] = Field((), description='Further tokens that end an answer, such as "[Speech]".')
    force: bool = Field(True, description="False lets the answer leave the modality asked for.")
    transcribes: bool = Field(
        False, description="The answer is what the last recording says: it has no more tokens than that has units."
    )


class SpiritLM:
    """A language model over text and speech units.

    Attributes:
        model: a causal LM of transformers.
        layout: how its prompts are written.
        verdicts: what its own evaluation found, where it was read from a folder with ``verdicts.json``.
        examples: held-out recordings in its folder, `audio` (a path) and `text`.
        languages: codes of those that it was taught, where its folder says so.

    Example:
        >>> model = SpiritLM.from_pretrained("published")  # doctest: +SKIP
        >>> model.generate(["the number you have dialed"], "speech")  # doctest: +SKIP
        >>> model.generate([Path("question.flac")], "text", max_new_tokens=50).text  # doctest: +SKIP
    """

    def __init__(
        self, model: CausalLM, layout: PromptFormat, speech_tokenizer: SpeechTokenizer | Path | None = None
    ) -> None:
        """A `speech_tokenizer` that is a folder is loaded when the first recording comes."""
        self.model, self.layout, self._speech_tokenizer = model, layout, speech_tokenizer
        self.verdicts: Sequence[Verdict] = ()
        self.examples: Sequence[dict[str, str]] = ()
        self.languages: Sequence[str] = ()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str | None = None,
        dtype: torch.dtype | str | None = None,
        variant: str | None = None,
        speech_tokenizer: SpeechTokenizer | str | Path | None = None,
    ) -> Self:
        """Load a model.

        Args:
            path: a folder written by ``publish`` or by training, or where one lies, such as ``hf://org/name``; the
                folder of a released model (``…/spiritlm_model/spirit-lm-base-7b``), or the root of the released
                checkpoints.
            device: where the model runs; a GPU if there is one.
            dtype: of the weights, such as ``"bfloat16"``; by default that for released models, else float32.
            variant: ``base`` or ``expressive``, of the root of the released checkpoints; expressive where it is there.
            speech_tokenizer: for recordings in prompts, loaded or its folder; by default the one beside the model.

        Raises ModelReferenceError: `path` is no such folder, or its parts cannot be loaded.
        """
        path = local_path(path)
        folder, _ = locate(path, variant)  # what is not there is said before torch is imported
        verdicts, examples, languages = read_verdicts(folder), read_examples(folder), read_languages(folder)
        from spiritlm_core.lm.generate.loading import load

        model, layout, beside = load(path, device, dtype, variant)
        given = local_path(speech_tokenizer) if isinstance(speech_tokenizer, str) else speech_tokenizer
        spirit = cls(model, layout, given or beside)
        spirit.verdicts, spirit.examples, spirit.languages = verdicts, examples, languages
        return spirit

    @property
    def vocabulary(self) -> Vocabulary:
        """The layout of the ids."""
        return self.layout.vocabulary

    @property
    def context(self) -> int:
        """How many tokens the model sees at once."""
        return int(self.model.config.max_position_embeddings)

    @property
    def speech_tokenizer(self) -> SpeechTokenizer:
        """Turns recordings into units, and units into waveforms; loaded on first use.

        Raises ModelReferenceError: there is none beside the model and none was given, or it cannot be loaded.
        """
        if self._speech_tokenizer is None:
            raise ModelReferenceError(
                "recordings and waveforms need a speech tokenizer, and there is none beside the model: "
                "pass speech_tokenizer=…, or use units or speech tokens"
            )
        if isinstance(self._speech_tokenizer, Path):
            variant = None if self.vocabulary.pitch else "base"
            device = str(next(self.model.parameters()).device)
            self._speech_tokenizer = SpeechTokenizer.from_pretrained(self._speech_tokenizer, variant, device)
        return self._speech_tokenizer

    @cached_property
    def lacking(self) -> list[int]:
        """Ids of units that the speech tokenizer lacks, or its vocoder: no answer has them. None without a tokenizer.

        Raises ModelReferenceError: the speech tokenizer is damaged.
        """
        if self._speech_tokenizer is None:
            return []
        own = self._speech_tokenizer
        known = TokenizerFolder.read(own) if isinstance(own, Path) else own
        return self.vocabulary.units_beyond(known.speakable)

    def generate(
        self,
        inputs: Input | Iterable[Input] = (),
        output: str = "any",
        *,
        prompt: str | None = None,
        **options: Any,
    ) -> Answer:
        """Continue a prompt.

        Args:
            inputs: text and speech in any order: str is text, a Path, bytes or samples are a recording; `Text`,
                `Speech` and pairs ``("text", …)``, ``("speech", …)`` say it outright. A marker is put wherever the
                modality changes.
            output: ``text`` and ``speech`` answer in that modality alone, ``any`` in both.
            prompt: a whole prompt as a string instead of `inputs`, used as it is.
            options: see :class:`Generation`.

        Returns the answer, a sequence of one segment for each stretch of one modality; empty if the model ends at once.
        Raises SpiritLMError: an option is unknown, a part is neither text nor speech or cannot be read, or the prompt
        is longer than the context.
        """
        (answer,) = self.generate_batch([inputs if prompt is None else Prompt(prompt)], output, **options)
        return answer

    def generate_batch(
        self,
        batch: Sequence[Input | Iterable[Input]],
        output: str = "any",
        *,
        batch_size: int = 16,
        **options: Any,
    ) -> list[Answer]:
        """Continue several prompts, `batch_size` at once; as :meth:`generate` of each.

        Each entry of `batch` is what `generate` takes as inputs, or a `Prompt`.
        """
        modality, given = _modality(output), Generation.of_options(**options)
        return self.answers(self.prompt_ids(batch, modality, given.shots), modality, given, batch_size)

    def answers(
        self, prompts: Sequence[Sequence[int]], modality: Modality, options: Generation, batch_size: int
    ) -> list[Answer]:
        """What follows on prompts as :meth:`prompt_ids` gives them; solved examples stand in them already."""
        from spiritlm_core.lm.generate.decode import continuations

        settings: Options = {**self._settings(modality, options), "batch_size": batch_size}
        answers = continuations(self.model, self.vocabulary, prompts, **settings)
        return [self._answer(prompt, new, modality) for prompt, new in zip(prompts, answers, strict=True)]

    def _answer(self, prompt: Sequence[int], new: Continuation, modality: Modality) -> Answer:
        read = self.layout.read(prompt, new.ids, modality)
        segments = voiced(read, self._speak, asked=modality == "speech")
        return Answer(segments, tuple(prompt), tuple(new.ids), new.finish)

    def _speak(self, tokens: str, speaker: Speaker | None) -> NDArray[np.float32]:
        return self.speech_tokenizer.decode(tokens, speaker)

    def generate_stream(
        self,
        inputs: Input | Iterable[Input] = (),
        output: str = "any",
        *,
        prompt: str | None = None,
        **options: Any,
    ) -> Generator[Segment, None, Answer]:
        """As :meth:`generate`, but token by token: a `TextSegment` or `SpeechSegment` for what is new.

        Text comes as soon as its characters are complete; its white space is left as it is.

        Returns the whole answer, as `generate` gives it: ``answer = yield from model.generate_stream(…)``.
        """
        modality, settings = _modality(output), Generation.of_options(**options)
        return self._stream(inputs if prompt is None else Prompt(prompt), modality, settings)

    def _stream(self, given: Any, modality: Modality, options: Generation) -> Generator[Segment, None, Answer]:
        from spiritlm_core.lm.generate.decode import stream

        prompts = self.prompt_ids([given], modality, options.shots)
        steps = stream(self.model, self.vocabulary, prompts, **self._settings(modality, options))
        new = yield from follow(self.layout, prompts[0], steps, modality)
        return self._answer(prompts[0], new, modality)

    def prompt_ids(
        self,
        batch: Sequence[Input | Iterable[Input]],
        output: str = "any",
        shots: Sequence[tuple[Input, Input]] = (),
    ) -> list[list[int]]:
        """What the model is given for each entry of `batch`: token ids, see :meth:`generate`."""
        modality = _modality(output)
        parts = self.parts([() if isinstance(given, Prompt) else given for given in batch], shots)
        prompts = [
            self.layout.encode(given.string) if isinstance(given, Prompt) else self.layout.prompt(own, modality)
            for given, own in zip(batch, parts, strict=True)
        ]
        if not all(prompts):
            raise SpiritLMError("the prompt is empty and this model has no BOS token to start from")
        return prompts

    def parts(
        self, batch: Sequence[Input | Iterable[Input]], shots: Sequence[tuple[Input, Input]] = ()
    ) -> list[list[tuple[Kind, str]]]:
        """Texts and speech tokens of each entry of `batch` behind the shots; all recordings are encoded together."""
        examples = [part for shot in shots for side in shot for part in contents(side)]
        entries = [examples, *map(contents, batch)]
        given = [part for parts in entries for part in parts if isinstance(part, Speech)]
        spoken = [as_waveform(part.audio, part.sample_rate) for part in given if part.audio is not None]
        units = iter(self.speech_tokenizer.encode_batch(spoken) if spoken else ())

        def string(part: Content) -> str:
            if isinstance(part, Text):
                return part.text
            if part.tokens is not None:
                return part.tokens
            return self._string(part.units if part.units is not None else next(units))

        shown, *asked = ([(part.kind, string(part)) for part in parts] for parts in entries)
        return [shown + own for own in asked]

    def _string(self, units: Streams) -> str:
        """Speech tokens of units; streams that the model has no tokens for are left out."""
        known = self.vocabulary
        pitch, style = units.pitch if known.pitch else None, units.style if known.style else None
        rate = self.speech_tokenizer.rate if self._speech_tokenizer else 25.0
        return to_string(merge_streams(Streams(units.hubert, pitch, style), rate=rate))

    def _settings(self, modality: Modality, options: Generation) -> Options:
        from spiritlm_core.lm.generate.decode import Sampling

        stop = set(options.stop)
        if options.shots:
            stop |= set(turns(modality))
        if unknown := sorted(stop - set(self.layout.added)):
            raise SpiritLMError(f"stop: {unknown[0]!r} is no marker or speech token of this model")
        return {
            "modality": modality,
            "max_new_tokens": options.max_new_tokens,
            "sampling": Sampling(options.temperature, options.top_p, options.seed, options.top_k),
            "stop_ids": sorted(self.layout.added[token] for token in stop),
            "force": options.force,
            "transcribes": options.transcribes,
            "lacking": [] if options.force and modality == "text" else self.lacking,
        }


def _modality(output: str) -> Modality:
    if str(output).lower() not in MODALITIES:
        raise SpiritLMError(f"output is text, speech or any, not {output!r}")
    return MODALITIES[output.lower()]
