"""Transcribe every recording of a folder: python examples/transcribe_folder.py MODEL FOLDER."""

import sys
from pathlib import Path

from spiritlm_core import SpiritLM
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.generate.presets import ask

model, folder = sys.argv[1:]
spirit = SpiritLM.from_pretrained(model)
for audio in sorted(path for path in Path(folder).rglob("*") if path.suffix in (".wav", ".flac", ".mp3")):
    try:
        (answer,) = ask(spirit, "asr", [audio], max_new_tokens=200)
    except SpiritLMError as error:
        print(error, file=sys.stderr)
        continue
    audio.with_suffix(".txt").write_text(f"{answer.text}\n", encoding="utf-8")
    print(f"{audio}\t{answer.text}")
