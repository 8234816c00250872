"""Speech to tokens and back with one call: from a published model, an imported or an official checkpoint folder."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.waveform import Audio, as_waveform
from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.references.content import check_weights
from spiritlm_core.references.reference import local_path
from spiritlm_core.speech.folder import TokenizerFolder, common_sizes
from spiritlm_core.speech.released.convert import import_checkpoints
from spiritlm_core.speech.released.layout import ROOT_VARIABLE, Released, Variant, checked_variant, default_root
from spiritlm_core.speech.types import Units
from spiritlm_core.speech.vocoder.config import VocoderConfig
from spiritlm_core.tokens.speech import Streams, from_string, merge_streams, to_string

if TYPE_CHECKING:
    from spiritlm_core.speech.encoders.precision import Precision
    from spiritlm_core.speech.extractor import UnitExtractor
    from spiritlm_core.speech.vocoder.vocoder import Speaker, Vocoder

STYLES = (71, 68, 98)
"""Style units of which one is taken for a string that has pitch but no style (neutral ones of the released model)."""


class SpeechTokenizer:
    """Turns speech into units and into strings such as ``[St81][Pi13][Hu78]``, and back where it has a vocoder.

    Example:
        >>> tokenizer = SpeechTokenizer.from_pretrained("published")  # doctest: +SKIP
        >>> tokenizer.to_string(tokenizer.encode("speech.flac"))  # doctest: +SKIP
    """

    def __init__(self, extractor: UnitExtractor, vocoder: Vocoder | Path | None = None) -> None:
        """A `vocoder` that is a folder is loaded when the first waveform is asked for."""
        self._extractor, self._vocoder = extractor, vocoder

    @property
    def variant(self) -> Variant:
        """``expressive`` with pitch and style, else ``base``."""
        return "base" if self._extractor.pitch is None else "expressive"

    @classmethod
    def from_pretrained(
        cls,
        root: str | Path | None = None,
        variant: str | None = None,
        device: str | None = None,
        precision: Precision | None = None,
    ) -> Self:
        """Load a speech tokenizer.

        Args:
            root: a published model, or where one lies, such as ``hf://org/name``; the ``speech_tokenizer/`` in it, a
                folder written by ``spiritlm import-checkpoints``, or the released checkpoints themselves (or their
                ``speech_tokenizer/``), which are converted once into the cache folder; by default
                ``$SPIRITLM_CHECKPOINTS_DIR``, else ``checkpoints``.
            variant: ``base`` or ``expressive``; expressive where its models are there, else base.
            device: where to compute; a GPU if there is one.
            precision: ``exact``, or ``bf16``, which changes some units; that of the recipe, else exact.

        Raises ModelReferenceError: a model is missing, damaged or cannot be loaded.
        """
        chosen = variant and checked_variant(variant)
        folder = TokenizerFolder.read(_folder(local_path(root) if root is not None else default_root(), chosen))
        check_weights(folder.path)  # what is not there, or cut short, is said before torch is imported
        from spiritlm_core.speech.extractor import UnitExtractor

        extractor = UnitExtractor(folder.models(chosen), device=device, precision=precision or folder.precision)
        return cls(extractor, folder.vocoder)

    @property
    def rate(self) -> float:
        """Phonetic units a second."""
        return self._extractor.rate

    @property
    def speakable(self) -> dict[str, int]:
        """Number of units of each stream that come out of it and that its vocoder knows, where it has one."""
        if self._vocoder is None:
            return self._extractor.sizes
        config = VocoderConfig.read(self._vocoder) if isinstance(self._vocoder, Path) else self._vocoder.config
        return common_sizes(self._extractor.sizes, config.sizes)

    @property
    def has_vocoder(self) -> bool:
        """Whether waveforms can be made of units."""
        return self._vocoder is not None

    @property
    def vocoder(self) -> Vocoder:
        """Makes waveforms of units; loaded on first use.

        Raises ModelReferenceError: there is none, it cannot be loaded, or it needs units that this tokenizer has not.
        """
        if self._vocoder is None:
            raise ModelReferenceError("this speech tokenizer has no vocoder/ in its folder, so it cannot speak")
        if isinstance(self._vocoder, Path):
            self._vocoder = _load_vocoder(self._vocoder, self.variant, self._extractor.device)
        return self._vocoder

    def decode(self, units: Streams | str, speaker: Speaker | None = None, **options: Any) -> NDArray[np.float32]:
        """The waveform of units or of speech tokens, float32[samples] at 16 kHz; see :meth:`decode_batch`."""
        return self.decode_batch([units], speaker, **options)[0]

    def decode_batch(
        self,
        batch: Sequence[Streams | str],
        speaker: Speaker | None = None,
        *,
        expression: int | None = None,
        predict_durations: bool = True,
        seed: int = 0,
    ) -> list[NDArray[np.float32]]:
        """Waveforms of units as :meth:`encode` or :meth:`from_string` give them, or of strings of speech tokens.

        Base units have no pitch and style: these are passed over. Options are those of ``Vocoder.decode_batch``; raw
        units of an expressive :meth:`encode` last 40 ms each (80 at 12.5 Hz) in any case. The `seed` decides the style
        of a string that has pitch but no style tokens, see :meth:`from_string`.

        Raises ModelReferenceError: there is no vocoder, or it cannot be loaded; SpiritLMError: see
        ``Vocoder.decode_batch``.
        """
        streams = [self._streams(units, seed) for units in batch]
        return self.vocoder.decode_batch(
            streams, speaker=speaker, expression=expression, predict_durations=predict_durations
        )

    def speak(
        self, pieces: Iterable[str], speaker: Speaker | None = None, *, expression: int | None = None, seed: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """The waveform of speech tokens that are still coming, in pieces without seams; see :class:`SpeechStream`.

        Args:
            pieces: speech tokens, one or more at a time, such as those of ``SpiritLM.generate_stream``.
            speaker: as for :meth:`decode`.
            expression: as for :meth:`decode`.
            seed: decides the style where none came before the first HuBERT unit that is spoken.

        Raises ModelReferenceError: there is no vocoder, or it cannot be loaded; SpiritLMError: a unit, voice or manner
        that it does not know; or no pitch came at all where it needs one.
        """
        from spiritlm_core.speech.vocoder.vocoder import SpeechStream

        stream, said, taken = SpeechStream(self.vocoder, speaker, expression), "", 0
        for piece in pieces:
            said += piece
            units = self._streams(said, seed)
            if units.pitch is None and self.vocoder.config.pitch_units:
                continue
            if len(np.asarray(units.hubert)) > taken:
                waveform = stream.take(_from(units, taken))
                taken = len(np.asarray(units.hubert))
                if len(waveform):
                    yield waveform
        if said and not taken:
            self.decode(said, speaker, expression=expression, seed=seed)  # says what is missing
        if len(waveform := stream.end()):
            yield waveform

    def _streams(self, units: Streams | str, seed: int) -> Streams:
        if not isinstance(units, str):
            return units
        return styled(from_string(units), self.vocoder.config.usual_styles, seed)

    def encode(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        *,
        channel: int | None = None,
        speaker: str | None = None,
    ) -> Units:
        """Units of one recording; see :meth:`encode_batch`."""
        (units,) = self.encode_batch([audio], sample_rate, channel=channel, speakers=[speaker])
        return units

    def encode_batch(
        self,
        audios: Sequence[Audio],
        sample_rate: int | None = None,
        *,
        channel: int | None = None,
        speakers: Sequence[str | None] | None = None,
    ) -> list[Units]:
        """Units of several recordings; the result for one does not depend on the others.

        Args:
            audios: paths, bytes of files, or samples in [-1, 1] (arrays or tensors): float[T] or float[channels, T].
                Less than 1280 samples at 16 kHz have empty streams.
            sample_rate: of samples, in hertz; 16 000 if not given. Files say their own.
            channel: which of two channels to take; both are averaged if not given.
            speakers: who speaks, where known; the style of models of this project is relative to the speaker's own.

        Raises SpiritLMError: a recording cannot be read, or is no mono or stereo audio with finite values.
        """
        return self._extractor.encode([as_waveform(audio, sample_rate, channel) for audio in audios], speakers)

    def to_string(
        self,
        units: Streams,
        *,
        collapse_hubert: bool = True,
        collapse_pitch: bool = True,
        collapse_style: bool = False,
    ) -> str:
        """Units as speech tokens, streams merged by time; a base tokenizer has no tokens for pitch and style.

        `units` are as :meth:`encode` gives them; runs of equal units of a collapsed stream become one token.
        """
        shown = Streams(np.asarray(units.hubert), None, None) if self.variant == "base" else units
        return to_string(merge_streams(shown, (collapse_style, collapse_pitch, collapse_hubert), self.rate))

    @staticmethod
    def from_string(string: str, *, duplicate_pitch: bool = False, seed: int = 0) -> Streams:
        """Speech tokens back to streams, one entry per HuBERT token; what is no speech token is skipped.

        Args:
            string: tokens of either variant.
            duplicate_pitch: a pitch token that directly follows another one makes an entry of its own.
            seed: decides the style (71, 68 or 98) of a string that has pitch but no style tokens.
        """
        return styled(from_string(string, duplicate_pitch=duplicate_pitch), seed=seed)


def _from(units: Streams, start: int) -> Streams:
    """The entries from `start` on of streams that have one for each HuBERT unit."""
    parts = (np.asarray(part)[start:] if part is not None else None for part in (units.pitch, units.style))
    return Streams(np.asarray(units.hubert)[start:], *parts)


def styled(streams: Streams, styles: Sequence[int] = (), seed: int = 0) -> Streams:
    """With one of `styles`, else of :data:`STYLES`, throughout where there is pitch and no style."""
    if streams.pitch is None or streams.style is not None:
        return streams
    style = random.Random(seed).choice(styles or STYLES)  # noqa: S311 - the released code draws from this generator
    return replace(streams, style=np.full(len(streams.hubert), style, np.int16))


def _folder(root: Path, variant: str | None) -> Path:
    """The folder in our layout; released checkpoints are converted into the cache, once per content."""
    if not root.is_dir():
        raise ModelReferenceError(
            f"{root} is not a folder: name a speech tokenizer (--model on the command line) or set {ROOT_VARIABLE}"
        )
    return root if Released.find(root) is None else import_checkpoints(root, None, variant, force=True).folder


def _load_vocoder(folder: Path, variant: Variant, device: str) -> Vocoder:
    from spiritlm_core.speech.vocoder.vocoder import Vocoder

    vocoder = Vocoder.load(folder, device)
    if variant == "base" and (vocoder.config.pitch_units or vocoder.config.style_units):
        raise ModelReferenceError(
            f"{folder} is an expressive vocoder, which needs pitch and style: load the expressive variant, "
            "or import the base one (spiritlm import-checkpoints --variant base)"
        )
    return vocoder
