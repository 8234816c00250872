"""How a stage runs: one Prefect task per stage, the fan-out over workers, progress and reports."""
