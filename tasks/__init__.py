"""How a stage runs: one Prefect task per stage, the Ray fan-out, progress and reports."""
