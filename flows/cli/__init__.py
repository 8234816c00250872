"""The subcommands of ``spiritlm`` that run the pipeline."""
