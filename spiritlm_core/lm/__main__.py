"""Train with plain ``torchrun``: ``torchrun --nproc-per-node 8 -m spiritlm_core.lm job.yaml``."""
