"""Answer a spoken question by voice: python examples/answer_by_voice.py MODEL QUESTION ANSWER.wav.

The model goes on after the question, first in text and then in speech, as it does between two people of its recordings.
"""

import sys
from pathlib import Path

from spiritlm_core import SpiritLM
from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.lm.generate.content import Text
from spiritlm_core.lm.generate.presets import ask
from spiritlm_core.lm.generate.speaking import said

model, question, out = sys.argv[1:]
spirit = SpiritLM.from_pretrained(model)
reply = spirit.generate([Path(question)], "text", max_new_tokens=40, temperature=0.7, seed=1).text or "sorry"
(spoken,) = ask(spirit, "tts", [Text(reply)], max_new_tokens=300)
Path(out).write_bytes(encode_wav(said(spirit, spoken)))
print(reply)
