"""Everything that is still true without Prefect and Ray.

``from spiritlm_core import SpeechTokenizer, SpiritLM`` is the public surface; both load on first use, so that
importing a configuration does not import torch. What calls home is switched off
(``spiritlm_core.telemetry``).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spiritlm_core.telemetry import switch_off

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM
    from spiritlm_core.speech.tokenizer import SpeechTokenizer

__all__ = ["SpeechTokenizer", "SpiritLM"]

switch_off()

_HOMES = {"SpeechTokenizer": "spiritlm_core.speech.tokenizer", "SpiritLM": "spiritlm_core.lm.generate.spirit"}


def __getattr__(name: str) -> Any:
    """Import a public class when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
