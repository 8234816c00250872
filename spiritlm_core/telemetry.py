"""What calls home in the libraries that we use, and the switches that keep it from doing so.

Importing ``spiritlm_core`` sets them, in every process that runs our code; what those start inherits them. Programs
that start without our code (a Prefect worker, the images) get the same variables where they are started.
"""

import os

OFF = {
    "DO_NOT_TRACK": "1",  # Prefect's client, Hugging Face, and whoever else keeps to it
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",  # a head reports that it is switched off; nobody is there
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # of data sets and metrics
    "GRADIO_ANALYTICS_ENABLED": "False",  # the check for a newer version, too
    "PYANNOTE_METRICS_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime
}
"""Environment variables and their values."""


def switch_off() -> None:
    """Set the switches that the user has not set."""
    os.environ.update({**OFF, **os.environ})
