"""Several processes of a command: they meet, agree and end together, whatever ends one of them."""

import contextlib
import random
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import processes
import pytest

from seqkd_jax import distributed
from seqkd_jax.cli import options
from seqkd_jax.config import SearchConfig
from seqkd_jax.distributed import clusters, hub, member, wire
from seqkd_jax.types import UserError
from seqkd_jax.utils import exits, progress, settings

READY = 'print("ready", flush=True)\n'
REDUCE = """
import jax, numpy
add = jax.pmap(lambda x: jax.lax.psum(x, "i"), axis_name="i")
ones = numpy.ones((1, 2), numpy.float32)
"""


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_two_processes_meet_agree_and_stop_at_the_same_step():
    """One start, several rules: values of all, work of process 0 alone that needs a device when none has been used, one
    log, results once on standard output, and one SIGTERM for all.
    """
    code = f"""{REDUCE}
import os, signal
from seqkd_jax.utils import progress
signal.signal(signal.SIGTERM, lambda *_: distributed.ask_to_stop())
progress.log("logged once")
exits.say("said once")
devices = distributed.by_first(lambda: len(jax.local_devices()))
values = distributed.gathered([index, float("inf"), "ü"]), distributed.agreed(index), devices
print(values, float(numpy.asarray(add(ones).addressable_data(0))[0, 0]), flush=True)
steps = 0
while not distributed.stopping():
    steps += 1
    add(ones).block_until_ready()
    if steps == 3 and index == 1:
        os.kill(os.getpid(), signal.SIGTERM)
print(steps, distributed.gathered(steps), flush=True)
raise SystemExit(75)
"""
    with processes.python(2, code) as started:
        ended = processes.results(started, 240)
    assert [process.status for process in ended] == [75, 75], ended
    lines = [process.out.splitlines() for process in ended]
    assert lines[0].pop(0) == "said once"
    assert lines[0][0] == lines[1][0] == "([[0, inf, 'ü'], [1, inf, 'ü']], 0, 1) 2.0"
    steps = int(lines[0][1].split()[0])
    assert lines[0][1] == lines[1][1] == f"{steps} [{steps}, {steps}]" and steps >= 3
    assert [process.err for process in ended] == ["logged once\n", ""]


KILLS = [(0, signal.SIGKILL), (1, signal.SIGKILL), pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("victim", "how"), KILLS)
def test_a_process_that_ends_ends_all(victim, how):
    """In a collective of JAX, where the others wait; process 0 has JAX's coordination service too."""
    code = f"{REDUCE}add(ones)\n{READY}import time\n"
    code += f"time.sleep(1000 * (index == {victim}))\nadd(ones).block_until_ready()"
    with processes.python(2, code) as started:
        wait_for(lambda: all("ready" in process.printed() for process in started))
        started[victim].process.send_signal(how)
        ended = processes.results(started, 60)
        pid = started[victim].process.pid
    other = 1 - victim
    why = "is gone" if how == signal.SIGKILL else "stopped by SIGTERM"
    assert ended[victim].status == (75 if how == signal.SIGTERM else -how)
    assert ended[other].status == 75, ended[other]
    (line,) = ended[other].err.splitlines()
    assert line.startswith(f"test: error: {'process 1: ' * other}process {victim} ({socket.gethostname()}, {pid})")
    assert why in line and line.endswith("the same command goes on")


def test_who_is_stopped_while_it_waits_for_the_others_says_one_line():
    program = """
import sys
from seqkd_jax import distributed
from seqkd_jax.utils import exits
def run():
    print("ready", flush=True)
    with distributed.joined("127.0.0.1:{port}", 2, {index}):
        return 0
sys.exit(exits.exit_status(run, program="test"))
"""
    alone = [["-c", program.format(port=processes.free_port(), index=index)] for index in range(2)]  # each at its port
    with processes.commands(alone) as started:
        wait_for(lambda: all("ready" in one.printed() for one in started))
        time.sleep(0.5)
        for one in started:
            one.process.send_signal(signal.SIGTERM)
        for ended in processes.results(started, 30):
            assert ended.status == 75 and ended.err == "test: error: stopped by SIGTERM; the same command goes on\n"


def test_who_is_killed_when_all_is_done_is_not_waited_for():
    code = """
import os, signal
distributed.gathered("work")
if index:
    distributed._part = lambda: os.kill(os.getpid(), signal.SIGKILL)
else:
    distributed.PARTED = 2.0
"""
    with processes.python(2, code) as started:
        ended = processes.results(started, 60)
    assert [process.status for process in ended] == [0, -signal.SIGKILL], ended


def test_processes_that_other_code_has_joined_are_recognised_and_end_together():
    port = processes.free_port()
    programs = [
        f"""
import jax
jax.distributed.initialize("127.0.0.1:{port}", 2, {index})
from seqkd_jax import distributed
from seqkd_jax.types import UserError
distributed.start()
distributed.start()
print(distributed.index(), distributed.count(), distributed.gathered({index}), flush=True)
if {index}:
    raise UserError("data.en: no such file")
distributed.barrier("never")
"""
        for index in range(2)
    ]
    with processes.commands([["-c", program] for program in programs]) as started:
        ended = processes.results(started, 240)
    assert [process.out for process in ended] == ["0 2 [0, 1]\n", "1 2 [0, 1]\n"]
    assert [process.status for process in ended] == [2, 1]  # 1: of Python, which printed a traceback
    assert "UserError: data.en: no such file" in ended[1].err
    assert ended[0].err.startswith("error: process 1 (") and ended[0].err.endswith("): data.en: no such file\n")


# In this process, without JAX


def nothing(*_):
    pass


class Several:
    """Members of one hub, and what ended them."""

    def __init__(self, count, seconds=60.0, first_count=None):
        self.ended = {}
        self.members = [
            member.Member(hub.Place(i, "host", 100 + i), first_count if i == 0 and first_count else count, self._end(i))
            for i in range(count)
        ]
        self.port = self.members[0].open_hub("127.0.0.1", 0, "HOST:1", seconds)

    def _end(self, index):
        return lambda status, line: self.ended.update({index: (status, line)})

    def connect(self, index, seconds=60.0):
        self.members[index].connect("127.0.0.1", self.port, "HOST:1", seconds)

    def each(self, work):
        """What `work` returns for each member, all at once."""
        with ThreadPoolExecutor(len(self.members)) as pool:
            return list(pool.map(work, self.members))


def meet(count):
    several = Several(count)
    several.each(lambda one: several.connect(one.place.index))
    return several


def test_values_come_in_the_order_of_processes():
    several = meet(3)
    for name in "ab":
        found = several.each(lambda one, name=name: one.gathered(f"{name}{one.place.index}", name, 1))
        assert found == [[f"{name}0", f"{name}1", f"{name}2"]] * 3


def test_who_does_not_come_to_a_barrier_is_named_and_a_long_work_of_process_0_is_waited_for():
    several = meet(2)
    waiting = threading.Thread(target=several.members[1].gathered, args=(None, "the save", 0.0), daemon=True)
    waiting.start()
    time.sleep(0.3)
    assert not several.ended  # process 0 has not come, and may take its time
    several.members[0].gathered(None, "the save", 0.0)
    waiting.join(10)
    threading.Thread(target=several.members[0].gathered, args=(None, "the end", 0.001), daemon=True).start()
    wait_for(lambda: len(several.ended) == 2)
    assert set(several.ended.values()) == {
        (75, "process 1 (host, 101) did not come to 'the end' within 0.001 minutes; the same command goes on")
    }


def test_processes_at_different_places_end():
    several = meet(2)
    for one, name in zip(several.members, ("a", "b"), strict=True):
        threading.Thread(target=one.gathered, args=(None, name, 1), daemon=True).start()
    wait_for(lambda: len(several.ended) == 2)
    assert {status for status, _ in several.ended.values()} == {1}


@pytest.mark.parametrize("seed", range(3))
def test_all_stop_at_the_same_time_of_asking(seed):
    several, draw = meet(3), random.Random(seed)
    delays = {one.place.index: draw.uniform(0, 0.004) for one in several.members}
    at = draw.randrange(5, 20)

    def run(one):
        asked = 0
        while not one.stopping():
            asked += 1
            if asked == at and one.place.index == seed:
                one.ask_to_stop()
            time.sleep(delays[one.place.index])
        return asked

    assert len(set(several.each(run))) == 1


def test_an_error_of_one_ends_the_others_with_its_status_and_words():
    several = meet(3)
    several.members[2].ending.acquire()
    several.members[2].fail(2, "process 2 (host, 102): data.en: no such file")
    wait_for(lambda: len(several.ended) == 2)
    assert set(several.ended) == {0, 1} and set(several.ended.values()) == {
        (2, "process 2 (host, 102): data.en: no such file")
    }


def test_the_last_to_end_tells_those_that_are_done():
    several = meet(2)
    registered = several.members[0]._hub
    threading.Thread(target=several.members[0].bye, args=(0,), daemon=True).start()
    wait_for(lambda: registered.done == {0: 0})
    several.members[1].ending.acquire()
    several.members[1].fail(2, "process 1 (host, 101): the disk is full")
    wait_for(lambda: several.ended)
    assert several.ended == {0: (2, "process 1 (host, 101): the disk is full")}


def test_a_command_is_done_when_all_are_done():
    several = meet(2)
    done = threading.Thread(target=several.members[1].bye, args=(0,), daemon=True)
    done.start()
    time.sleep(0.2)
    assert done.is_alive()
    assert several.members[0].bye(0) == 0
    done.join(10)
    assert not done.is_alive() and not several.ended


def test_who_ended_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(hub, "GRACE", 0.05)
    several = meet(2)
    threading.Thread(target=several.members[1].bye, args=(7,), daemon=True).start()
    wait_for(lambda: len(several.ended) == 2)
    assert set(several.ended.values()) == {(7, "process 1 ended with status 7")}


def test_processes_that_do_not_come():
    several = Several(3, seconds=0.3)
    told = "of 3 did not come to HOST:1 within 0.3 seconds; start each with the same"
    assert all(told in line for line in awaited(several).values()) and not several.ended


def test_who_goes_while_others_are_awaited_ends_all():
    several = Several(3)
    registered = several.members[0]._hub
    assert registered

    def go():
        wait_for(lambda: len(registered.members) == 2)
        gone = several.members[1]
        gone._loop.call_soon_threadsafe(gone._writer.close)

    threading.Thread(target=go, daemon=True).start()
    lines = awaited(several)
    assert lines[0] == "process 1 (host, 101) is gone; the same command goes on" and lines[1] and not several.ended


def awaited(several):
    """What the first two of three say, that wait for the third."""

    def line(one):
        if one.place.index < 2:
            with pytest.raises(member.Late) as caught:
                several.connect(one.place.index, seconds=10)
            return str(caught.value)
        return ""

    return dict(enumerate(several.each(line)[:2]))


def test_a_number_twice_and_another_count_are_refused():
    several = Several(2)
    others = [member.Member(hub.Place(*place), count, nothing) for place, count in (((0, "h", 1), 2), ((1, "h", 1), 3))]
    threading.Thread(target=several.connect, args=(0,), daemon=True).start()
    registered = several.members[0]._hub
    assert registered
    wait_for(lambda: 0 in registered.members)
    for other, message in zip(
        others, ("--process 0: process 0 .host, 100. is there already", "--processes 3"), strict=True
    ):
        with pytest.raises(UserError, match=message):
            other.connect("127.0.0.1", several.port, "HOST:1", 10)


def test_what_is_at_the_port_instead():
    """Nobody; something that speaks otherwise; something that closes."""
    late = member.Member(hub.Place(1, "h", 1), 2, nothing)
    with pytest.raises(member.Late, match="process 0 is not at HOST:1 within 0.2 seconds"):
        late.connect("127.0.0.1", processes.free_port(), "HOST:1", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(UserError, match="--coordinator HOST:1: something else answers there"):
            late.connect("127.0.0.1", server.getsockname()[1], "HOST:1", 5)


def test_a_stranger_disturbs_nobody():
    several = meet(2)
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"sqkd" + bytes(8), b"sqkd" + b"\xff" * 8, b""):
        with socket.create_connection(("127.0.0.1", several.port)) as stranger:
            stranger.sendall(sent)
    assert several.each(lambda one: one.gathered(1, "all", 1)) == [[1, 1]] * 2


STRANGE = [
    {"place": [9, "h", 1], "count": 2},
    {"place": [-1, "h", 1], "count": 2},
    {"place": [[1], "h", 1], "count": 2},
    {"place": [1, "h"], "count": 2},
    {"place": [True, "h", 1], "count": 2},
    {"run": None},
    [1],
    None,
]


def unhandled(caplog):
    """What asyncio logs of exceptions that nobody caught; of members of earlier tests it says that they ended."""
    return [record.getMessage() for record in caplog.records if record.exc_info]


def test_what_strangers_send_before_all_are_there_ends_nothing(caplog):
    """An introduction that is none, and words after one that could be a process's: no process says any so early."""
    several = Several(2)
    sent = [wire.frame(one) for one in STRANGE]
    sent += [wire.HEADER.pack(wire.MAGIC, 60_000) + b"[" * 60_000, wire.HEADER.pack(wire.MAGIC, 2) + b"\xff\xff"]
    introduced = wire.frame({"place": [1, "stranger", 1], "count": 2})
    sent += [introduced + wire.frame(one) for one in ({"stop": True}, {"bye": "x"}, {"value": 1, "at": []}, 5)]
    for one in sent:
        with socket.create_connection(("127.0.0.1", several.port)) as stranger:
            stranger.sendall(one)
            stranger.settimeout(10)
            with contextlib.suppress(ConnectionError):
                assert stranger.recv(1) == b"", one
    several.each(lambda one: several.connect(one.place.index))
    assert several.each(lambda one: one.gathered(1, "all", 1)) == [[1, 1]] * 2
    assert not several.ended and not unhandled(caplog)


@pytest.mark.parametrize("said", [{"bye": "x"}, {"asked": None}, {"value": 1, "at": [], "name": "n", "minutes": 1}, []])
def test_a_process_that_says_nonsense_ends_all_in_one_line(said, caplog):
    several = meet(2)
    other = several.members[1]
    other._loop.call_soon_threadsafe(other._writer.write, wire.frame(said))
    wait_for(lambda: 0 in several.ended)
    status, line = several.ended[0]
    assert status == 1 and line.startswith("process 1 (host, 101) says what no process of this command says")
    assert not unhandled(caplog)


def test_who_waits_at_the_start_says_for_what(monkeypatch, capfd):
    monkeypatch.setattr(member, "SAID_AFTER", 0.05)
    monkeypatch.setattr(member, "OTHERS_SAY_AFTER", 0.1)
    awaited(Several(3, seconds=0.3))
    said = ["process 1 waits at HOST:1, 10 seconds at most", "waiting for process 2 of 3 at HOST:1, 10 seconds at most"]
    assert sorted(capfd.readouterr().err.splitlines()) == said

    async def unknown(*_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="HOST:1: there is no host of that name"):
        patch.setattr("asyncio.open_connection", unknown)
        patch.setattr(member, "SAID_AFTER", 100)
        member.Member(hub.Place(1, "h", 1), 2, nothing).connect("HOST", 1, "HOST:1", 0.2)
    told = "process 1 waits for process 0 at HOST:1 (Name or service not known), 0.2 seconds at most\n"
    assert capfd.readouterr().err == told


@pytest.mark.parametrize(
    "host", ["256.1.1.1", "1.2.3", "a..b", "a b", "-a", "x" * 64, ".".join(["x" * 60] * 5), "fe80::zz", "a.invalid"]
)
def test_what_can_be_no_host_is_refused_at_once(host):
    with pytest.raises(UserError, match="is neither an address nor a name that a host can have"):
        clusters.split(f"{host}:1")


@pytest.mark.parametrize("host", ["localhost", "10.0.0.1", "[::1]", "::1", "a.b-c.d.", "node_1", "müller.de", "1a"])
def test_what_can_be_a_host_is_tried(host):
    assert clusters.split(f"{host}:1") == (host.strip("[]"), 1)


def test_a_port_that_is_taken_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=rf"--coordinator 127.0.0.1:{port}: process 0 cannot listen there"):
            distributed.start(f"127.0.0.1:{port}", 2, 0)


def test_processes_of_another_command_are_told_what_differs(monkeypatch):
    commands = [settings.flat(options.Evaluate((Path("a"),), search=SearchConfig(beam=beam))) for beam in (5, 4)]
    monkeypatch.setattr(distributed, "gathered", lambda *_, **__: commands)
    with pytest.raises(UserError, match="^process 0 has --beam 5, process 1 --beam 4: give every process the same"):
        distributed.require_same(commands[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1", None, None), "--coordinator without --processes and --process: give all three"),
        ((None, 2, 0), "--processes and --process without --coordinator"),
        (("host:1", 2, 2), "--process 2: must be from 0 to 1"),
        (("host", 2, 1), "--coordinator host: must be HOST:PORT"),
        (("host:port", 2, 1), "must be HOST:PORT"),
        (("host:70000", 2, 1), "must be HOST:PORT"),
    ],
)
def test_options_that_do_not_go_together(given, message):
    with pytest.raises(UserError, match=message):
        distributed.start(*given)


def test_one_process_does_nothing():
    with distributed.joined(processes=1):
        assert (distributed.index(), distributed.count(), distributed.first()) == (0, 1, True)
        assert distributed.gathered((1, 2)) == [[1, 2]] and distributed.agreed({"a": 1}) == {"a": 1}
        distributed.barrier("nobody")
        assert not distributed.stopping()


SLURM = {
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_NODELIST": "node[3-4]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (SLURM, clusters.Found("node3:61452", 4, 3, [1])),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0"}, clusters.Found("node3:61452", 4, 3)),  # its own, from SLURM
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, clusters.Found("node3:61452", 4, 3)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),  # one step of a job of four
        ({"SLURM_JOB_ID": "12", "SLURM_NTASKS": "4"}, None),  # the script of a job, outside of srun
        (MPI, clusters.Found("10.96.0.1:61470", 2, 1)),
    ],
)
def test_what_started_the_processes(monkeypatch, environment, expected):
    for name in {*SLURM, *MPI, "CUDA_VISIBLE_DEVICES"}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = clusters.found()
    assert found == expected or (expected and found and found._replace(coordinator=expected.coordinator) == expected)


def test_a_launcher_that_says_too_little_is_one_line(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "nonsense")
    with pytest.raises(UserError, match="one of several processes .ompi., but which one was not found"):
        clusters.found()


def test_several_processes_of_jax_that_nobody_joined_are_refused(monkeypatch):
    import jax

    monkeypatch.setattr(jax, "process_count", lambda: 4)
    jax.devices()
    with pytest.raises(UserError, match="JAX has 4 processes here"):
        distributed.start()


def test_errors_of_other_processes_have_their_number_and_their_log_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_process", 3)
    progress.log("nothing")
    exits.say("nothing")
    assert exits.report("seqkd", "a fault", 2) == 2
    assert capsys.readouterr() == ("", "seqkd: error: process 3: a fault\n")
    assert sys.stderr is not None
