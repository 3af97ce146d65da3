"""Settings of the tests with made-up input."""

from hypothesis import HealthCheck, settings

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("prelabel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("prelabel")
