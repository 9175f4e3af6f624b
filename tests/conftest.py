"""What holds for all tests."""

import os

# Before anything imports torch: threads that wait by spinning starve whatever else is running, and
# the servers and pipelines that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
