"""Preemption: a SIGTERM does not end a block at once; the block asks whether it came, saves and ends."""

import signal
import threading

from seqkd_jax import distributed


class stop_signal:
    """A block that SIGTERM does not end at once. Yields a function that says whether it came.

    If it came, the block ends in SystemExit(143), even if its work was already complete or ended in an `instead_of`:
    what follows the block, such as another arm of a study, must not begin. Python delivers signals to the main thread
    only; in another thread the function always says no.
    Of several processes one that gets it ends the blocks of all, in SystemExit(75), once all have left their blocks;
    all ask equally often.
    """

    def __init__(self, instead_of: type[Exception]):
        self.instead_of = instead_of

    def __enter__(self):
        self.came = False
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = signal.signal(signal.SIGTERM, self._terminate)
        return self._asked

    def __exit__(self, error, *_):
        if self.main:
            signal.signal(signal.SIGTERM, self.before)
        if (error is None or issubclass(error, self.instead_of)) and self._asked():
            distributed.barrier("the end after SIGTERM")  # process 0 may be saving, however long that takes
            raise SystemExit(143 if distributed.count() == 1 else distributed.AGAIN)

    def _terminate(self, *_):
        self.came = True
        distributed.ask_to_stop()

    def _asked(self) -> bool:
        return self.came if distributed.count() == 1 else distributed.stopping()
