"""The ids of markers and speech tokens, appended to those of a text tokenizer in one fixed order.

On Llama-2 (32000 text tokens) this gives the ids of the released Spirit LM models (arXiv 2402.05755):
``[Text]`` 32000, ``[Speech]`` 32001, ``[Hu0]`` 32002, ``[Pi0]`` 32503, ``[St0]`` 32567.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from spiritlm_core.errors import SpiritLMError

VOCABULARY_FILE = "vocabulary.json"
TEXT_MARKER, SPEECH_MARKER = "[Text]", "[Speech]"
PREFIXES = ("St", "Pi", "Hu")
"""Names of the unit kinds style, pitch and HuBERT, in the order in which they follow each other on a tie of time."""

_FORMAT = 1  # part of the fingerprint: raise it when the layout of ids changes


@dataclass(frozen=True)
class Vocabulary:
    """Layout of all token ids: text, ``[Text]``, ``[Speech]``, ``[Hu*]``, ``[Pi*]``, ``[St*]``."""

    text_size: int  # number of text tokens, special tokens of the tokenizer included: the first id that is free
    hubert: int = 501  # number of HuBERT units
    pitch: int = 64  # number of pitch units; 0 for Base
    style: int = 100  # number of style units; 0 for Base
    bos: int | None = None  # id put in front of every document; None puts nothing there
    eos: int | None = None  # id put behind the end of every recording; None puts nothing there

    def __post_init__(self) -> None:
        if self.text_size < 0 or self.hubert < 1 or self.pitch < 0 or self.style < 0:
            raise SpiritLMError(f"a vocabulary needs hubert ≥ 1 and no negative sizes, not {self}")
        for name in ("bos", "eos"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < self.text_size:
                raise SpiritLMError(f"{name} {value} is not among the {self.text_size} text tokens")

    @property
    def text_marker(self) -> int:
        """Id of ``[Text]``."""
        return self.text_size

    @property
    def speech_marker(self) -> int:
        """Id of ``[Speech]``."""
        return self.text_size + 1

    def unit_id(self, kind: str, unit: int) -> int:
        """Id of ``[{kind}{unit}]``, such as ``[Hu7]``; ValueError if there is no such token."""
        return self.text_size + self.tokens.index(f"[{kind}{unit}]")

    def _first(self, kind: int) -> int:
        """First id of a kind, numbered as in `PREFIXES`."""
        hubert = self.text_size + 2
        return (hubert + self.hubert + self.pitch, hubert + self.hubert, hubert)[kind]

    def units_beyond(self, sizes: Mapping[str, int]) -> list[int]:
        """Ids of the units from `sizes` of their stream (``hubert``, ``pitch``, ``style``) on; without a size, none."""
        mine = {"style": self.style, "pitch": self.pitch, "hubert": self.hubert}
        return [
            self._first(kind) + unit
            for kind, (name, size) in enumerate(mine.items())
            for unit in range(sizes.get(name, size), size)
        ]

    @property
    def size(self) -> int:
        """Number of ids; the last one is ``size - 1``."""
        return self.text_size + 2 + self.hubert + self.pitch + self.style

    @cached_property
    def tokens(self) -> list[str]:
        """The added tokens in the order of their ids, from `text_size` on."""
        sizes = (("Hu", self.hubert), ("Pi", self.pitch), ("St", self.style))
        return [TEXT_MARKER, SPEECH_MARKER, *(f"[{name}{i}]" for name, size in sizes for i in range(size))]

    def is_speech(self, ids: np.ndarray | list[int]) -> np.ndarray:
        """Of each id, int[N]: is it a speech token? The marker ``[Speech]`` is none. Returns bool[N]."""
        array = np.asarray(ids)
        return (array > self.speech_marker) & (array < self.size)

    def speech_ids(self, kinds: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Ids int32[N] of merged speech tokens: kinds int[N], index into `PREFIXES`, and units int[N].

        Raises SpiritLMError: a unit is not in this vocabulary.
        """
        sizes = np.array([self.style, self.pitch, self.hubert])
        wrong = np.flatnonzero((units < 0) | (units >= sizes[kinds]))
        if len(wrong):
            kind, unit = int(kinds[wrong[0]]), int(units[wrong[0]])
            raise SpiritLMError(
                f"unit [{PREFIXES[kind]}{unit}] is outside the vocabulary, which has {sizes[kind]} of that kind: "
                "set tokens.sequences.{hubert,pitch,style} to the sizes of the unit models"
            )
        firsts = np.array([self._first(kind) for kind in range(3)])
        return (firsts[kinds] + units).astype(np.int32)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; the inverse of :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`; other keys (such as a fingerprint) are ignored."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})

    def fingerprint(self) -> str:
        """sha256 over the layout, in hex: equal if and only if every id means the same."""
        return hashlib.sha256(json.dumps([_FORMAT, self.to_dict()], sort_keys=True).encode()).hexdigest()
