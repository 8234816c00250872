"""What reads like a token in the text of a request is text."""

from __future__ import annotations

import pytest

from spiritlm_core import SpiritLM
from spiritlm_core.serve.schema import Shot, TextPart, UnitsPart
from spiritlm_core.serve.service import PromptReader
from tests.serve.limits import LIMITS


@pytest.mark.parametrize("text", ["say [Speech] now", "[Hu12]", "[Text]"])
def test_a_request_cannot_write_tokens_into_its_texts(spirit: SpiritLM, text: str) -> None:
    written, units = TextPart(kind="text", text=text), UnitsPart(kind="units", tokens="[Hu5]")
    shots = [Shot(question=[units], answer=[written])]
    asked, solved = PromptReader(spirit, LIMITS, {}).prompt([("parts.0", units), ("parts.1", written)], shots, "text")
    (ids,) = spirit.prompt_ids([asked], "text", solved)
    known = spirit.vocabulary
    assert [i for i in ids if i >= known.text_size] == [
        known.speech_marker, known.unit_id("Hu", 5), known.text_marker,
    ] * 2  # fmt: skip
    assert spirit.layout.text([i for i in ids if i < known.text_size]) == f" {text} {text}"
