"""Fine-tune a classifier on recordings that lie as FOLDER/LABEL/*.wav, and ask it about each of them.

python examples/own_classifier.py MODEL FOLDER OUT [options of `spiritlm finetune`]
"""

import json
import subprocess
import sys
from pathlib import Path

from spiritlm_core import SpiritLM
from spiritlm_core.lm.generate.presets import classify

model, folder, out, *options = sys.argv[1:]
recordings = sorted(Path(folder).glob("*/*.wav"))
data = Path(out).with_suffix(".jsonl")
lines = [json.dumps({"audio": str(audio.absolute()), "label": audio.parent.name}) for audio in recordings]
data.write_text("\n".join(lines), encoding="utf-8")
command = [sys.executable, "-m", "spiritlm_core.cli", "finetune", "classification", "--base", model]
subprocess.run([*command, "--data", str(data), "--out", out, *options], check=True)

tuned = SpiritLM.from_pretrained(out)
labels = sorted({audio.parent.name for audio in recordings})
for audio in recordings:
    print(f"{audio}\t{classify(tuned, audio, labels).label}")
