"""Train without Prefect and Ray: ``torchrun --nproc-per-node 8 -m spiritlm_core.lm job.yaml``.

The file holds the same arguments as the stage; one process needs no ``torchrun``::

    lm: {steps: 1000}                 # LmConfig
    tokens: {context_length: 1024}    # TokensConfig
    compute: {micro_batch: 8}         # LmCompute
    sequences: [part-0.parquet]       # files of the table `sequences`
    text: []                          # files of the table `text`, if there are texts
    tokenizer: tokenizer/             # folder of the text tokenizer
    base: null                        # folder or .gguf file of the base model
    quantizer: null                   # folder of the units' quantizer, for lm.new_token_init: centres
    work: work/                       # checkpoints; run again to go on from the last one
    out: model/                       # the finished model
    resume_from: null                 # or a checkpoint folder
"""

import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from pydantic import Field, ValidationError

from spiritlm_core.config import FrozenConfig
from spiritlm_core.config_files import load_config_file
from spiritlm_core.errors import RecipeError
from spiritlm_core.fit.job import FitJob, main
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute, LmConfig, ModelConfig
from spiritlm_core.lm.train.stage import ModelStage
from spiritlm_core.tokens.config import TokensConfig
from spiritlm_core.tokens.corpus import check_tokenizer
from spiritlm_core.tokens.text import TextTokenizer


class Arguments(FrozenConfig):
    """The content of the file."""

    lm: LmConfig = Field(LmConfig(), description="Language model and training")
    tokens: TokensConfig = Field(TokensConfig(), description="Vocabulary, interleaving and mixing")
    compute: LmCompute = Field(LmCompute(), description="How training runs")
    sequences: tuple[Path, ...] = Field(min_length=1, description="Parquet files of the table `sequences`")
    text: tuple[Path, ...] = Field((), description="Parquet files of the table `text`")
    tokenizer: Path = Field(description="Folder of the text tokenizer")
    base: Path | None = Field(None, description="Folder or .gguf file of the base model")
    quantizer: Path | None = Field(None, description="Folder of the units' quantizer")
    work: Path = Field(description="Checkpoints")
    out: Path = Field(description="The finished model")
    resume_from: Path | None = Field(None, description="Checkpoint to start from")


def read_job(path: Path) -> FitJob:
    """Read a YAML or JSON file of :class:`Arguments`.

    Raises RecipeError: the file is missing, or something in it is wrong; LakeError: the sequences were made with
    another tokenizer.
    """
    given = load_config_file(Arguments, path, "job")
    try:
        sequences = TableView.of_files(given.sequences)
        tables = {"sequences": sequences, **({"text": TableView.of_files(given.text)} if given.text else {})}
        config = ModelConfig(lm=given.lm, tokens=given.tokens)
    except (OSError, ValidationError, pa.ArrowException) as error:
        raise RecipeError(f"{path}: {error}") from error
    check_tokenizer(sequences, TextTokenizer.load(given.tokenizer))  # the pipeline's own tables cannot be mixed up
    roles = {"tokenizer": given.tokenizer, "base": given.base, "quantizer": given.quantizer}
    models = {role: path for role, path in roles.items() if path is not None}
    job = FitJob.of(ModelStage(config, models), tables, given.out, given.work, given.compute)
    return replace(job, resume_from=given.resume_from)


if __name__ == "__main__":
    sys.exit(main("spiritlm_core.lm", __doc__ or "", read_job))
