"""The one way in which tests wait for what another process or thread does."""

import time

DEADLINE_SECONDS = 60.0


def wait_until(condition, what="the condition", seconds=DEADLINE_SECONDS, pause=0.01):
    """Wait until `condition()` is true, and return what it returns. It is tried again after `pause` seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(pause)
    return value
