"""A folder with everything that goes wrong with recordings, around a few good ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import soundfile

from spiritlm_core.audio.waveform import as_waveform

RATE = 16_000


def bad_folder(speech: Path, root: Path, long_minutes: float = 3.0) -> Path:
    """Copy the good recordings of `speech` to `root` and put the bad ones beside them."""
    shutil.copytree(speech, root)
    clips = [_read(path) for path in sorted(speech.glob("*.g722"))]
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    one = clips[0]
    (root / "empty.wav").touch()
    (root / "text.wav").write_text("this is no audio")
    soundfile.write(root / "short.wav", one[: RATE // 20], RATE)
    soundfile.write(root / "noise.wav", noise, RATE)
    soundfile.write(root / "studio.wav", np.stack([np.repeat(one, 6)] * 2, axis=1), 6 * RATE, subtype="PCM_24")
    soundfile.write(root / "old.wav", one, RATE, subtype="PCM_U8")
    soundfile.write(root / "whole.flac", one, RATE)
    (root / "truncated.flac").write_bytes(
        (root / "whole.flac").read_bytes()[: (root / "whole.flac").stat().st_size // 2]
    )
    (root / "whole.flac").unlink()
    soundfile.write(root / "name.wav", clips[1], RATE)
    (root / "name.wav").rename(root / os.fsdecode(b"caf\xe9.wav"))
    outside = root.parent / "outside.wav"
    soundfile.write(outside, clips[2], RATE)
    (root / "link.wav").symlink_to(outside)
    (root / "gone.txt").write_text("there is no recording of this name")
    _long(root / "long.wav", clips, long_minutes)
    return root


BAD = {
    "empty.wav": "empty",
    "text.wav": "",
    "short.wav": "short",
    "noise.wav": "no speech",
    "truncated.flac": "",
    "link.wav": "link",
    "gone.txt": "no recording",
}
"""Name of each item that cannot be used, and a word of its reason."""


def _read(path: Path) -> np.ndarray:
    return as_waveform(path)


def _long(path: Path, clips: list[np.ndarray], minutes: float) -> None:
    pause = np.zeros(RATE, np.float32)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < minutes * 60 * RATE:
        parts += [clips[len(parts) // 2 % len(clips)], pause]
    soundfile.write(path, np.concatenate(parts), RATE)
