"""The user's rule for who a file is of: a regular expression whose one group is the patient's id."""

import re


class PatientRuleError(ValueError):
    """A rule that cannot be used; the message says why and gives one that can."""


class PatientRule:
    """Finds the patient's id in a file's path."""

    def __init__(self, expression: str) -> None:
        """Compile the expression; raises `PatientRuleError`."""
        try:
            self._expression = re.compile(expression)
        except re.error as error:
            raise PatientRuleError(f"the patient rule '{expression}' is no regular expression ({error})") from error
        if self._expression.groups != 1:
            raise PatientRuleError(
                f"the patient rule '{expression}' has {self._expression.groups} groups, not the one that is the "
                r"patient's id, as in '(patient\d+)_'"
            )

    def patient(self, path: str) -> str | None:
        """Return the id that the rule finds in a path (relative to the data set, with /), or None."""
        found = self._expression.search(path)
        return (found[1] or None) if found else None
