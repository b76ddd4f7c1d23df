"""Finds what goes wrong on devices in the field, and says what to do about each.

`checks.py` has every check in its order, `examination.py` makes them. A check is a function of plain values that
returns a `Diagnosis`; one module holds the checks of one subject. None of them changes anything but for one small
object in the bucket (`cloud.upload`), takes a lock, or disturbs an agent that runs beside; each ends within a time that
is named. No secret is in what they say.
"""

from lightkeeper.doctor.checks import Patient
from lightkeeper.doctor.diagnosis import Diagnosis, Result, State
from lightkeeper.doctor.examination import examine

__all__ = ["Diagnosis", "Patient", "Result", "State", "examine"]
