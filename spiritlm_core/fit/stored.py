"""A model of this project in a folder: ``config.json`` says what it is made of, ``model.safetensors`` holds weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from pydantic import ValidationError

from spiritlm_core.config import FrozenConfig, sentence_of
from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.references.content import check_finite

if TYPE_CHECKING:
    from torch import nn

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
Model = TypeVar("Model", bound="nn.Module")


class StoredConfig(FrozenConfig):
    """What a model of this project is made of."""

    kind_of_model: ClassVar[str]  # with its article, such as "a vocoder"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """That of the model in `folder`. Raises ModelReferenceError."""
        try:
            return cls.model_validate_json((folder / CONFIG_FILE).read_bytes())
        except (OSError, ValueError) as error:
            raise cls._not_here(folder, error) from error

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write both files into `folder`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)

    @classmethod
    def load(cls, folder: Path, build: Callable[[Self], Model], device: str = "cpu") -> Model:
        """The model that `build` makes of the configuration in `folder`, with its weights, in evaluation mode.

        Raises ModelReferenceError: the folder does not hold such a model, whole and with finite weights.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            model = build(cls.read(folder))
            weights = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
            model.load_state_dict(weights, assign=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise cls._not_here(folder, error) from error
        check_finite(weights.items(), folder / WEIGHTS_FILE)
        return model.to(device).eval()

    @classmethod
    def _not_here(cls, folder: Path, error: Exception) -> ModelReferenceError:
        file = f"{CONFIG_FILE}: " if isinstance(error, ValidationError) else ""
        return ModelReferenceError(f"{folder} is not {cls.kind_of_model} of this project: {file}{sentence_of(error)}")
