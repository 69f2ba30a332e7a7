"""One hypothesis profile for the properties of decoding and preparing: no deadline, as in tests/protocol."""

from hypothesis import HealthCheck, settings

settings.register_profile("sliceloop", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sliceloop")
