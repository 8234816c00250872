"""``python -m spiritlm_core.cli``."""

from spiritlm_core.cli import main

main()
