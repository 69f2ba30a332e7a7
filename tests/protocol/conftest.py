"""One hypothesis profile for the properties of the protocol: no deadline, since a busy core is no fault."""

from hypothesis import HealthCheck, settings

settings.register_profile("sliceloop", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sliceloop")
