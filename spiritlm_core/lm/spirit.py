"""A published model with one call: text and speech in, text and speech tokens out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.prompts import Kind, Modality, Part, parts_of, prompt_ids
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.speech import merge_streams, to_string
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from spiritlm_core.lm.generate import Sampling
    from spiritlm_core.lm.model import CausalLM
    from spiritlm_core.tokens.speech import UnitStreams

Content = tuple[Kind, "str | UnitStreams"]
"""A part of a prompt: ``("text", "hello")``, ``("speech", "[St3][Pi1][Hu7]")`` or ``("speech", units)``."""


@dataclass(frozen=True)
class Output:
    """A part of an answer.

    Attributes:
        kind: ``text`` or ``speech``.
        content: the words, or speech tokens such as ``[St3][Pi1][Hu7]``.
        ids: int ids of its tokens.
    """

    kind: Kind
    content: str
    ids: tuple[int, ...]


class SpiritLM:
    """A language model over text and speech units, from a published folder.

    Example:
        >>> model = SpiritLM.from_pretrained("published")  # doctest: +SKIP
        >>> model.generate([("text", "the number you have dialed")], "speech")  # doctest: +SKIP
    """

    def __init__(self, model: CausalLM, text: TextTokenizer, vocabulary: Vocabulary) -> None:
        self.model, self.text, self.vocabulary = model, text, vocabulary

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str | None = None) -> Self:
        """Load a folder written by ``publish`` or by training.

        Args:
            path: local folder.
            device: where the model runs; a GPU if there is one.

        Raises:
            ModelReferenceError: `path` is no such folder, or its parts cannot be loaded.
        """
        import torch

        from spiritlm_core.lm.model import load_pretrained

        folder = Path(path)
        vocabulary = load_vocabulary(folder)
        model = load_pretrained(folder)
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model.to(where).eval(), TextTokenizer.load(folder), vocabulary)

    def generate(
        self,
        prompt: Iterable[Content],
        output_modality: Modality = "any",
        *,
        max_new_tokens: int = 200,
        sampling: Sampling | None = None,
    ) -> list[Output]:
        """Continue a prompt.

        Args:
            prompt: parts in order; a marker is put wherever the modality changes.
            output_modality: ``text`` and ``speech`` answer in that modality alone, ``any`` in both.
            max_new_tokens: most tokens in the answer.
            sampling: greedy if None.

        Returns:
            The answer, one entry for each stretch of one modality; empty if the model ends at once.

        Raises:
            SpiritLMError: a part is not text or speech, or the prompt is longer than the model's context.
        """
        from spiritlm_core.lm.generate import Sampling, generate

        ids = prompt_ids([self._part(*content) for content in prompt], self.vocabulary, output_modality)
        if not ids:
            raise SpiritLMError("the prompt is empty and this model has no BOS token to start from")
        (new,) = generate(
            self.model,
            self.vocabulary,
            [ids],
            modality=output_modality,
            max_new_tokens=max_new_tokens,
            sampling=sampling or Sampling(),
        )
        return [Output(kind, self.decode(part), tuple(part)) for kind, part in parts_of(new, self.vocabulary)]

    def _part(self, kind: str, content: str | UnitStreams) -> Part:
        if kind == "text" and isinstance(content, str):
            return "text", [i for i in self.text.encode_words(content).ids.tolist() if i < self.vocabulary.text_size]
        if kind == "speech":
            string = content if isinstance(content, str) else to_string(merge_streams(content))
            return "speech", self.speech_ids(string)
        raise SpiritLMError(f"a prompt part is ('text', str) or ('speech', token string or units), not {kind!r}")

    def speech_ids(self, string: str) -> list[int]:
        """Ids of speech tokens such as ``[St3][Pi1][Hu7]``.

        Raises:
            SpiritLMError: something in `string` is no speech token of this model.
        """
        known = {token: self.vocabulary.text_size + i for i, token in enumerate(self.vocabulary.tokens) if i > 1}
        tokens = [f"{token}]" for token in string.replace("\n", "").split("]")]
        if tokens.pop() != "]":
            raise SpiritLMError("a string of speech tokens ends with ']'")
        if unknown := [token for token in tokens if token not in known]:
            raise SpiritLMError(f"{unknown[0]!r} is not a speech token of this model")
        return [known[token] for token in tokens]

    def decode(self, ids: Sequence[int]) -> str:
        """Text or speech tokens of `ids`, as one string."""
        first = self.vocabulary.text_size
        if all(i < first for i in ids):
            return self.text.decode(ids).strip()
        return "".join(self.vocabulary.tokens[i - first] for i in ids)
