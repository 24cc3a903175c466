"""Preemption: a SIGTERM does not end a block at once; the block asks whether it came, saves and ends."""

import signal
import threading


class stop_signal:
    """A block that SIGTERM does not end at once. Yields a function that says whether it came.

    If it came, the block ends in SystemExit(143), even if its work was already complete or ended in an `instead_of`:
    what follows the block, such as another arm of a study, must not begin. Python delivers signals to the main thread
    only; in another thread the function always says no.
    """

    def __init__(self, instead_of: type[Exception]):
        self.instead_of = instead_of

    def __enter__(self):
        self.came = False
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "came", True))
        return lambda: self.came

    def __exit__(self, error, *_):
        if self.main:
            signal.signal(signal.SIGTERM, self.before)
        if self.came and (error is None or issubclass(error, self.instead_of)):
            raise SystemExit(143)
