"""What holds for all tests: no test fails because a machine is slow; and what several folders share.

Fixtures that more than one folder asks for lie in tests/support, those of one folder in its conftest.py. No test
imports another test.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.support.filled_lake",
    "tests.support.ray_runtime",
    "tests.support.released",
    "tests.support.server_fixtures",
    "tests.support.small_model",
]

settings.register_profile(
    "any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("any machine")
