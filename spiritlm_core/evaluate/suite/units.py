"""Speech tokens of the suite's recordings, each sound encoded once for all tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spiritlm_core.errors import Rejection, SpiritLMError

if TYPE_CHECKING:
    from spiritlm_core.speech.tokenizer import SpeechTokenizer

Tell = Callable[[str], None]
"""Told what is being done."""

_FILES_AT_ONCE = 256


class Recordings:
    """Sound files and their speech tokens, for one speech tokenizer; files that sound the same are encoded once."""

    def __init__(self) -> None:
        self._tokens: dict[Path, str | Rejection] = {}
        self._by_sound: dict[bytes, str | Rejection] = {}

    def tokens(self, path: Path) -> str:
        """Speech tokens such as ``[St3][Pi1][Hu7]``. Raises Rejection if the file is no good."""
        tokens = self._tokens[path]
        if isinstance(tokens, Rejection):
            raise tokens
        return tokens

    def refuse(self, paths: Sequence[Path], reason: str) -> None:
        """Give up on files that nothing is known of, all for one reason."""
        self._tokens |= {path: Rejection(reason) for path in paths if path not in self._tokens}

    def encode(self, tokenizer: SpeechTokenizer, paths: Sequence[Path], tell: Tell) -> None:
        """Encode the files that have not been encoded; a file that cannot be is remembered with the reason."""
        missing = [path for path in paths if path not in self._tokens]
        for start in range(0, len(missing), _FILES_AT_ONCE):
            tell(f"recordings: {start} of {len(missing)} encoded")
            self._encode(tokenizer, missing[start : start + _FILES_AT_ONCE])

    def _encode(self, tokenizer: SpeechTokenizer, paths: Sequence[Path]) -> None:
        from spiritlm_core.speech.batches import encode_clips

        clips = dict(self._read(paths))
        sounds = {path: blake2b(clip.tobytes(), digest_size=16).digest() for path, clip in clips.items()}
        new = {sound: clips[path] for path, sound in sounds.items() if sound not in self._by_sound}
        self._by_sound |= zip(new, encode_clips(tokenizer, list(new.values())), strict=True)
        for path, sound in sounds.items():
            tokens = self._by_sound[sound]
            self._tokens[path] = Rejection(f"{path}: {tokens}") if isinstance(tokens, Rejection) else tokens

    def _read(self, paths: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray]]:
        from spiritlm_core.audio.waveform import as_waveform

        for path in paths:
            try:
                yield path, as_waveform(path)
            except SpiritLMError as problem:
                reason = str(problem)
                self._tokens[path] = Rejection(reason if reason.startswith(str(path)) else f"{path}: {reason}")
