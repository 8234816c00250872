"""A file for llama.cpp, a hub, an answer from there: python examples/share_model.py MODEL OUT.gguf hf://ORG/NAME."""

import sys
from pathlib import Path

from spiritlm_core import SpiritLM
from spiritlm_core.export.gguf import export_gguf
from spiritlm_core.publish.hub import publish

model, file, place = sys.argv[1:]
print(f"{file}\t{export_gguf(Path(model), Path(file), 'f16')} bytes")
print(publish(Path(model), place, private=True))
print(SpiritLM.from_pretrained(place).generate(["hello"], "speech", max_new_tokens=20).tokens)
