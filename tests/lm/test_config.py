from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from spiritlm_core.lm.config import ArchitectureConfig, LmCompute, LmConfig, ModelConfig
from spiritlm_core.tokens.config import TokensConfig


def test_unknown_keys_and_impossible_shapes_are_errors() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden|Extra inputs"):
        LmConfig.model_validate({"stepz": 3})
    with pytest.raises(ValidationError, match="hidden_size 100"):
        ArchitectureConfig(hidden_size=100, heads=3)
    with pytest.raises(ValidationError, match="kv_heads 3"):
        ArchitectureConfig(heads=4, kv_heads=3)
    with pytest.raises(ValidationError, match="tokens_per_step 1000"):
        ModelConfig(lm=LmConfig(tokens_per_step=1000), tokens=TokensConfig(context_length=512))


def test_patience_needs_something_to_look_at_and_makes_the_looks_count() -> None:
    with pytest.raises(ValidationError, match="patience looks at held-out sequences, but validation_sequences is 0"):
        LmConfig(patience=2, validation_sequences=0)
    assert LmConfig(validate_every=7).key() == LmConfig().key()
    assert LmConfig(patience=2, validate_every=7).key() != LmConfig(patience=2).key()
    assert "new_rows_learning_rate" not in LmConfig().key()["optimizer"]


def test_defaults_fit_together() -> None:
    config = ModelConfig()
    assert config.sequences_per_step * config.tokens.context_length == config.lm.tokens_per_step
    assert not set(LmCompute.model_fields) & set(LmConfig.model_fields)


def test_configuration_stage_and_public_package_load_without_torch() -> None:
    code = (
        "import sys, spiritlm_core, spiritlm_core.lm.config, spiritlm_core.lm.train.stage, spiritlm_core.fit.job\n"
        "assert {'SpiritLM', 'SpeechTokenizer'} <= set(dir(spiritlm_core))\n"
        "bad = {'torch', 'transformers', 'ray', 'prefect'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_surface_is_lazy_and_honest() -> None:
    import spiritlm_core
    from spiritlm_core import SpeechTokenizer, SpiritLM

    assert SpiritLM.__module__ == "spiritlm_core.lm.generate.spirit"
    assert SpeechTokenizer.__module__ == "spiritlm_core.speech.tokenizer"
    with pytest.raises(AttributeError, match="nothing_here"):
        spiritlm_core.nothing_here  # noqa: B018 - the access is the test
