"""Captions of what is said into a microphone, while it is said; 16-bit mono PCM at 16 kHz comes in at standard input.

arecord -q -f S16_LE -r 16000 -c 1 -t raw | python examples/live_captions.py MODEL
"""

import sys

import numpy as np

from spiritlm_core import SpiritLM
from spiritlm_core.lm.generate.presets import ask

RATE, PIECE, QUIET, LONGEST = 16_000, 8_000, 0.01, 10 * 16_000  # samples; QUIET is a root mean square

spirit = SpiritLM.from_pretrained(sys.argv[1])
heard = np.zeros(0, np.float32)


def caption(end: str) -> None:
    """Say anew what was heard since the last pause."""
    (answer,) = ask(spirit, "asr", [heard], hearings=1, max_new_tokens=60)
    print(f"\r\033[K{answer.text}", end=end, flush=True)


while data := sys.stdin.buffer.read(2 * PIECE):
    piece = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 32768
    speaks = float(np.sqrt(np.mean(piece**2))) > QUIET
    if speaks:
        heard = np.concatenate([heard, piece])
    if len(heard) >= RATE // 5 and (speaks or len(heard)):
        done = not speaks or len(heard) >= LONGEST
        caption("\n" if done else "")
        heard = heard[:0] if done else heard
if len(heard) >= RATE // 5:
    caption("\n")
