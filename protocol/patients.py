"""How patients are told apart without being named: one key for one id, under a secret of the site."""

import hashlib
import hmac


def patient_key(secret: bytes, patient_id: str) -> str:
    """Hide a patient's id: equal for equal ids of a site, and of no use to anyone without the site's secret."""
    return hmac.new(secret, patient_id.encode(), hashlib.sha256).hexdigest()
