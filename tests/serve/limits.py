"""The address and the limits of the server under test."""

from __future__ import annotations

from spiritlm_core.serve.errors import ServeConfig

HOME = "http://localhost"
LIMITS = ServeConfig(max_upload_mb=0.5, max_seconds=2, queue=4, max_new_tokens=40, timeout=120)
