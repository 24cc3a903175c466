"""SIGTERM, a preemption: noted when it comes, acted on where nothing is lost."""

import signal
import threading


class stop_signal:
    """A block that SIGTERM does not end at once. Yields a function: did it come?

    If it did, the block ends in SystemExit(143), also where it came too late to cut the work short, or where that ended
    in an `instead_of`: what would be next, another arm of a study, must not begin. Outside the main thread, where
    Python delivers no signals, nothing is noted.
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
