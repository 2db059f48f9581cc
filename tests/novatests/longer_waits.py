"""Nova's helpers wait five seconds; on a busy machine a boot inside of a boot takes longer."""

#: How often each is waited for: half a minute in all.
TIMES = 6


def _patient(name):
    def wait(self, *args, **kwargs):
        for left in reversed(range(TIMES)):
            try:
                return getattr(super(LongerWaits, self), name)(*args, **kwargs)
            except AssertionError:
                if not left:
                    raise
        return None

    return wait


class LongerWaits:
    """To be put before a test case of Nova's."""

    _wait_for_instance_action_event = _patient("_wait_for_instance_action_event")
    _wait_for_migration_status = _patient("_wait_for_migration_status")
    _wait_for_server_allocations = _patient("_wait_for_server_allocations")
    _wait_for_server_parameter = _patient("_wait_for_server_parameter")

    def setUp(self):
        super().setUp()
        wait = self.notifier.wait_for_versioned_notifications
        self.notifier.wait_for_versioned_notifications = lambda event, n_events=1, timeout=10.0: wait(
            event, n_events, TIMES * timeout
        )
