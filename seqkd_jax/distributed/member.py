"""A process among several: its connection to the hub, in a thread of its own, which ends the process if another did."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from seqkd_jax.distributed import AGAIN, GOES_ON, LAST, wire
from seqkd_jax.distributed.hub import Hub, Place, listed
from seqkd_jax.types import UserError
from seqkd_jax.utils import progress

SAID_AFTER, OTHERS_SAY_AFTER = 5.0, 30.0  # seconds of waiting for others until it is said


class Late(Exception):
    """The others did not come in time; the same command goes on."""


class Member:
    """Process 0 has the hub as well. Messages are those of `hub`."""

    def __init__(self, place: Place, count: int, end: Callable[[int, str], None]):
        """end: called in the thread when this process must end, with its status and a line that says why."""
        self.place, self.count = place, count
        self.places = [Place(0, "", 0)]
        self._end = end
        self.ending = threading.Lock()  # held by who ends this process: so one line is printed
        self._answers: dict[int, concurrent.futures.Future] = {}
        self._numbers = itertools.count()
        self._welcome: concurrent.futures.Future[str] = concurrent.futures.Future()
        self._over: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._asking = threading.Condition()
        self._asked, self._frozen, self._stop_at = 0, False, None
        self._hub: Hub | None = None
        self._held: list[Any] = []  # connections that must stay open
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="processes", daemon=True).start()

    def _do(self, work: Coroutine, seconds: float | None = None) -> Any:
        """Run in the thread, and wait here; a signal interrupts it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def close(self) -> None:
        """End what the thread does, after the others were not found."""

        async def cancel() -> None:
            self._loop.set_exception_handler(lambda *_: None)  # of connections that are cut off now
            running = asyncio.all_tasks() - {asyncio.current_task()}
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)

        with contextlib.suppress(TimeoutError):
            self._do(cancel(), LAST)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def open_hub(self, host: str | None, port: int, address: str, seconds: float) -> int:
        """Be process 0; returns the port. host: to listen at, None for all interfaces. OSError: it cannot."""

        async def listen() -> int:
            self._hub = Hub(self.count, address, seconds)
            server = await asyncio.start_server(self._hub.serve, host, port)
            self._held.append(server)
            return server.sockets[0].getsockname()[1]

        return self._do(listen())

    def connect(self, host: str, port: int, address: str, seconds: float) -> None:
        """Find the others. Late: process 0 does not answer. UserError: it refuses this one, or is something else."""
        self._do(self._connect(host, port, address, seconds))
        try:
            # Process 0 knows who is missing; the others speak later, of what may be no process of this command at all.
            with contextlib.suppress(TimeoutError):
                self._run = self._welcome.result(SAID_AFTER if self._hub else OTHERS_SAY_AFTER)
                return
            missing = f"waiting for {self._do(self._missing())}" if self._hub else f"process {self.place.index} waits"
            progress.log(f"{missing} at {address}, {seconds:g} seconds at most")
            self._run = self._welcome.result(seconds + wire.ANSWERED)
        except TimeoutError:
            raise Late(f"--coordinator {address}: answers nothing for {seconds:.0f} seconds") from None

    async def _missing(self) -> str:
        assert self._hub
        return f"{listed(set(range(self.count)) - self._hub.members.keys())} of {self.count}"

    async def _connect(self, host: str, port: int, address: str, seconds: float) -> None:
        start, said = time.monotonic(), False
        while True:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 10)
                if writer.get_extra_info("sockname") != writer.get_extra_info("peername"):
                    break  # else it is connected to itself, as is possible where nobody listens
                writer.close()
            except (OSError, TimeoutError) as error:
                unknown, why = isinstance(error, socket.gaierror), getattr(error, "strerror", None) or "no answer"
                waited = time.monotonic() - start
                if not said and (unknown or waited > SAID_AFTER):  # a name may become known: that of a pod that starts
                    said = True
                    told = f"process {self.place.index} waits for process 0 at {address} ({why})"
                    progress.log(f"{told}, {seconds:g} seconds at most")
                if waited > seconds:
                    if unknown:
                        raise UserError(f"--coordinator {address}: there is no host of that name") from None
                    raise Late(f"process 0 is not at {address} within {seconds:g} seconds ({why})") from None
            await asyncio.sleep(0.1)
        wire.watch(writer)
        self._at, self._writer = (host, port), writer
        await self._say({"place": self.place, "count": self.count})
        self._held.append(asyncio.ensure_future(self._listen(reader, address)))

    async def _say(self, message: dict) -> None:
        self._writer.write(wire.frame(message))
        await self._writer.drain()

    async def _listen(self, reader: asyncio.StreamReader, address: str) -> None:
        try:
            while True:
                self._take(await wire.read(reader))
        except wire.NotOurs:
            self._welcome.set_exception(UserError(f"--coordinator {address}: something else answers there"))
        except (OSError, EOFError):
            if not self._welcome.done():
                self._welcome.set_exception(Late(f"process 0 at {address} ended while the others were awaited"))
            elif not self._over.done():
                self.leave_others(AGAIN, f"{self.places[0]} is gone; {GOES_ON}")

    def _take(self, message: dict) -> None:
        """What the hub says."""
        if "values" in message:
            self._answers.pop(message["at"]).set_result(message["values"])
        elif "freeze" in message:
            with self._asking:
                self._frozen = True
                self._writer.write(wire.frame({"asked": self._asked}))
        elif "stop_at" in message:
            with self._asking:
                self._stop_at = message["stop_at"]
                self._asking.notify_all()
        elif "welcome" in message:
            self.places = [Place(*place) for place in message["welcome"]]
            self._welcome.set_result(message["run"])
        elif "refused" in message:
            self._welcome.set_exception(UserError(message["refused"]))
        elif "over" in message:
            self._over.set_result(message["over"])
        elif "end" in message and not self._welcome.done():  # `connect` waits, and says it
            self._welcome.set_exception(Late(message["line"]))
        elif "end" in message:
            self.leave_others(message["end"], message["line"])

    def leave_others(self, status: int, line: str) -> None:
        """End this process from its thread, unless it is ending."""
        if self.ending.acquire(blocking=False):
            threading.Thread(target=self._end, args=(status, line), daemon=True).start()

    def gathered(self, value: Any, name: str, minutes: float, seconds: float | None = None) -> list:
        """The values of all processes; see `seqkd_jax.distributed.gathered`. TimeoutError: after so many seconds."""
        number = next(self._numbers)
        answer = self._answers[number] = concurrent.futures.Future()
        self._do(self._say({"value": value, "at": number, "name": name, "minutes": minutes}))
        return answer.result(seconds)

    def ask_to_stop(self) -> None:
        """SIGTERM came; safe in a handler of signals."""
        self._loop.call_soon_threadsafe(lambda: self._writer.write(wire.frame({"stop": True})))

    def stopping(self) -> bool:
        """See `seqkd_jax.distributed.stopping`: every process asks equally often, so a number of times is a moment."""
        with self._asking:
            while self._frozen and self._stop_at is None:
                self._asking.wait()
            self._asked += 1
            return self._stop_at is not None and self._asked >= self._stop_at

    def bye(self, status: int) -> int:
        """The command is done here: wait until it is done everywhere; the greatest status of all."""
        self._do(self._say({"bye": status}))
        return self._over.result()

    def fail(self, status: int, line: str) -> None:
        """The command failed here: all others end, too."""
        with contextlib.suppress(OSError, TimeoutError):
            self._do(self._say({"end": status, "line": line}), LAST)
        self.wait_for_others()

    def wait_for_others(self) -> None:
        """Process 0 waits a moment for the others to leave: what it told them is on its way."""
        if self._hub:
            with contextlib.suppress(TimeoutError):
                self._do(self._hub.left.wait(), LAST)

    def serve_jax(self, port: int) -> None:
        """Process 0: JAX's coordination service is at this port of this host."""
        assert self._hub
        self._loop.call_soon_threadsafe(self._hub.service.set_result, port)

    def relay(self) -> int:
        """A local port that leads to JAX's coordination service in process 0.

        JAX ends a process by SIGABRT, with lines of its own, as soon as that connection breaks. This one stays open
        when process 0 is gone, so that it is `_listen` that ends the process.
        """

        async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._held.append(writer)
            far, near = await asyncio.open_connection(*self._at)
            near.write(wire.frame({"run": self._run}))
            await asyncio.gather(wire.pump(reader, near), wire.pump(far, writer))

        async def listen() -> int:
            server = await asyncio.start_server(passed_on, "127.0.0.1", 0)
            self._held.append(server)
            return server.sockets[0].getsockname()[1]

        return self._do(listen())
