"""The steps of the pipelines: one folder, one verb, one KFP component. No arithmetic here."""

import time

STARTED = time.monotonic()
"""When this process first imported a step's code: in a step, when its body began."""
