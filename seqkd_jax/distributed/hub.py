"""Process 0's side: it knows every process, brings their values together, and tells all when one is gone.

Each process, process 0 too, holds one connection to the hub. Its messages, by their key, and the answers to all:

  value    of a meeting (at, name, minutes)     values      of all, once all are there
  stop     SIGTERM came                         freeze      tell how often you were asked whether to stop, and wait
  asked    so often                             stop_at     say yes from this time of asking on
  end      with status and line                 end         all end, with whose, status and line
  bye      its command is done, with status     over        all are done

The port serves JAX too: a connection whose first message asks for its service is passed on to that.
"""

import asyncio
import secrets
from typing import Any, NamedTuple

from seqkd_jax.distributed import AGAIN, GOES_ON, wire
from seqkd_jax.types import UserError
from seqkd_jax.utils.untrusted import require_form

INTRODUCTION = {"place": [int, str, int], "count": int}
SAID = {  # the key of a message of a process -> its form
    "value": {"at": int, "name": str, "minutes": float},
    "stop": {},
    "asked": {"asked": int},
    "end": {"end": int, "line": str},
    "bye": {"bye": int},
}
GRACE = 10.0  # seconds for the others to end as one did that ended with a status


class Place(NamedTuple):
    """A process among several, as messages name it."""

    index: int
    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.index} ({self.host}, {self.pid})"


class Member(NamedTuple):
    """A connected process."""

    place: Place
    writer: asyncio.StreamWriter


def listed(processes: Any) -> str:
    """process 2; processes 2, 3."""
    numbers = sorted(processes)
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _require(message: dict, form: dict) -> None:
    """NotOurs unless a message is of a form."""
    try:
        require_form(message, form, "a message", "")
    except UserError:
        raise wire.NotOurs from None


class Hub:
    """All of it runs in one event loop."""

    def __init__(self, count: int, address: str, seconds: float):
        """address: HOST:PORT, as the user names it. seconds: that all must be here in."""
        self.count, self.address = count, address
        self.run = secrets.token_hex(16)  # who asks for JAX's service must know it
        self.members: dict[int, Member] = {}
        self.meetings: dict[int, dict[int, dict]] = {}  # number -> process -> its message
        self.timers: dict[int, asyncio.TimerHandle] = {}  # of meetings where process 0 waits
        self.asked: dict[int, int] = {}  # process -> how often it was asked whether to stop
        self.stopping = self.complete = False  # complete: all have come
        self.done: dict[int, int] = {}  # process -> status
        self.ending = False
        self.left = asyncio.Event()  # the others have closed their connections
        self.service: asyncio.Future[int] = asyncio.get_running_loop().create_future()  # JAX's port
        self.started = asyncio.get_running_loop().call_later(seconds, self._not_all, seconds)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first message to its end."""
        try:
            hello = await asyncio.wait_for(wire.read(reader, wire.HELLO), wire.ANSWERED)
            if hello.get("run") == self.run:
                await self._pass_on(reader, writer)
                return
            _require(hello, INTRODUCTION)
            place, count = Place(*hello["place"]), hello["count"]
            if not 0 <= place.index < count:
                raise wire.NotOurs
        except (OSError, EOFError, wire.NotOurs, TimeoutError):
            writer.close()  # somebody else's, who has no place here
            return
        refused = self._refusal(place, count)
        wire.watch(writer)
        if refused:
            writer.write(wire.frame({"refused": refused}))
            writer.close()
            return
        await self._serve_member(Member(place, writer), reader)

    def _refusal(self, place: Place, count: int) -> str:
        if count != self.count:
            return f"--processes {count}: process 0 at {self.address} has --processes {self.count}"
        if place.index in self.members:
            return (
                f"--process {place.index}: {self.members[place.index].place} is there already; give each process its "
                f"own number, and each command its own port (--coordinator {self.address})"
            )
        return ""

    async def _serve_member(self, member: Member, reader: asyncio.StreamReader) -> None:
        index = member.place.index
        self.members[index] = member
        if index:
            self.left.clear()
        if len(self.members) == self.count:
            self.complete = True
            self.started.cancel()
            places = [tuple(self.members[index].place) for index in range(self.count)]
            self._tell({"welcome": places, "run": self.run})
        try:
            while True:
                self._take(index, await wire.read(reader))
        except wire.NotOurs:
            member.writer.close()
            if self.complete:  # before that processes say nothing: it is somebody else's, and none of them
                told = "says what no process of this command says; see whether something else uses its port"
                self.end(index, 1, f"{member.place} {told}")
        except (OSError, EOFError):
            if index not in self.done:
                self.end(index, AGAIN, f"{member.place} is gone; {GOES_ON}")
        finally:
            self.members.pop(index)
            if not self.members.keys() - {0}:
                self.left.set()

    def _tell(self, message: dict) -> None:
        data = wire.frame(message)
        for member in self.members.values():
            member.writer.write(data)

    def end(self, index: int, status: int, line: str) -> None:
        """All end, because of a process."""
        if not self.ending and len(self.done) < self.count:
            self.ending = True
            self.started.cancel()
            self._tell({"end": status, "process": index, "line": line})

    def _not_all(self, seconds: float) -> None:
        missing = listed(set(range(self.count)) - self.members.keys())
        told = f"{missing} of {self.count} did not come to {self.address} within {seconds:g} seconds"
        self.end(0, AGAIN, f"{told}; start each with the same command and its own --process")

    def _take(self, index: int, message: dict) -> None:
        """What a process says. NotOurs: it is none of the messages."""
        kind = next((kind for kind in SAID if kind in message), None)
        if kind is None or not self.complete:
            raise wire.NotOurs
        _require(message, SAID[kind])
        if "value" in message:
            self._meet(index, message)
        elif "stop" in message and not self.stopping:
            self.stopping = True
            self._tell({"freeze": index})
        elif "asked" in message:
            self.asked[index] = message["asked"]
            if len(self.asked) == self.count:
                self._tell({"stop_at": max(self.asked.values()) + 1})
        elif "end" in message:
            self.end(index, message["end"], message["line"])
            self.done[index] = message["end"]  # after it: the last one still ends those that are done and wait
        elif "bye" in message:
            self._bye(index, message["bye"])

    def _meet(self, index: int, message: dict) -> None:
        number, name = message["at"], message["name"]
        there = self.meetings.setdefault(number, {})
        there[index] = message
        for other, of_other in there.items():
            if of_other["name"] != name:
                self.end(index, 1, f"process {index} is at {name!r}, process {other} at {of_other['name']!r}")
                return
        if len(self.done) < self.count and self.done.keys() - there.keys():
            self._require_present(there)
        if len(there) == self.count:
            if timer := self.timers.pop(number, None):
                timer.cancel()
            self._tell({"values": [there[index]["value"] for index in range(self.count)], "at": number})
            self.meetings.pop(number)
        elif index == 0:  # who waits for process 0 waits as long as that lives
            late = asyncio.get_running_loop().call_later(60 * message["minutes"], self._late, number, message)
            self.timers[number] = late

    def _late(self, number: int, message: dict) -> None:
        missing = set(range(self.count)) - self.meetings[number].keys()
        places = ", ".join(str(self.members[index].place) for index in sorted(missing))
        told = f"{places} did not come to {message['name']!r} within {message['minutes']:g} minutes"
        self.end(0, AGAIN, f"{told}; {GOES_ON}")

    def _require_present(self, there: dict[int, dict]) -> None:
        gone = self.done.keys() - there.keys()
        name = next(iter(there.values()))["name"]
        self.end(min(gone), 1, f"{listed(gone)} ended, but {listed(there)} waits at {name!r}")

    def _bye(self, index: int, status: int) -> None:
        self.done[index] = status
        if len(self.done) == self.count:
            self._tell({"over": max(self.done.values())})
            return
        for there in self.meetings.values():
            if index not in there:
                self._require_present(there)
        if status:
            line = f"process {index} ended with status {status}"
            asyncio.get_running_loop().call_later(GRACE, self.end, index, status, line)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection to JAX's coordination service, which only this process can reach."""
        port = await asyncio.shield(self.service)
        while True:  # JAX may be about to listen
            try:
                inner, outer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                await asyncio.sleep(0.05)
        await asyncio.wait(
            [asyncio.ensure_future(wire.pump(reader, outer)), asyncio.ensure_future(wire.pump(inner, writer))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        outer.close()
        writer.close()
