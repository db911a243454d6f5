"""The gateway's SuperNode: Flower's own loop and state, with what our program changes in them."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module, reload
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from apps import bundle
from fleet_of_24 import FLEET
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode, Status
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.run import Run, RunNotRunningException

from tinyfl.deployment import supernode_main
from tinyfl.errors import InstallError
from tinyfl.flower.allowed import read_allowed, why_refused
from tinyfl.flower.grid import FleetGrid

RUN = 7


@pytest.fixture
def loop() -> Iterator[Any]:
    """Flower's loop as it is; what a test changes in it is put back."""
    module = import_module(supernode_main.flower()[0].__name__)
    yield module
    reload(module)


def node_state() -> Any:
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode.nodestate import NodeStateFactory

    return NodeStateFactory(objectstore_factory=ObjectStoreFactory()).state()


class Node:
    """A SuperNode's state, and a SuperLink that has ``messages`` for it and takes its answers."""

    def __init__(self, loop: Any, app: bytes = b"") -> None:
        FleetGrid(FLEET)  # gives this process the identity that Message() asks for
        self.loop, self.app = loop, app
        self.state = node_state()
        self.store = self.state.object_store
        self.state.set_node_id(1)
        self.sent: list[Message] = []

    def message(self, number: int = 0) -> Message:
        made = Message(RecordDict({"c": ConfigRecord({"number": number})}), 1, MessageType.TRAIN)
        made.metadata.__dict__.update({"_message_id": made.object_id, "_run_id": RUN})
        return made

    def pull(self, message: Message | None, *, known: bool = True, object: Callable[[str], bytes] | None = None) -> int | None:
        """What Flower's loop does first, where the SuperLink gives ``message``."""
        objects = {id: each.deflate() for id, each in get_all_nested_objects(message).items()} if message else {}
        if known and self.state.get_run(RUN) is None:
            self.state.store_run(_run(""))
        got: int | None = self.loop._pull_and_store_message(
            state=self.state,
            object_store=self.store,
            node_config={},
            receive=lambda: (message, get_object_tree(message)) if message else None,
            get_run=lambda _: _run("hash"),
            get_fab=lambda name, run: Fab("", self.app, {}),
            pull_object=lambda _, id: (object or objects.__getitem__)(id),
            confirm_message_received=lambda *_: None,
            trusted_entities=None,
        )
        return got

    def push(self) -> None:
        """And what it does next."""
        self.loop._push_messages(
            state=self.state, object_store=self.store, send=lambda message, *_: (self.sent.append(message), (set(), ""))[1],
            push_object=lambda *_: None,
        )  # fmt: skip

    def answer(self, message: Message) -> None:
        self.loop._insert_message(Message(RecordDict(), reply_to=message), self.state, self.store)

    def open_tasks(self) -> list[int]:
        return [task.task_id for task in self.state.get_tasks() if task.status.status != Status.FINISHED]

    def answered(self) -> list[tuple[str, bool]]:
        return [(message.metadata.reply_to_message_id, message.has_error()) for message in self.sent]


def _run(fab_hash: str) -> Run:
    made = Run.create_empty(RUN)
    made.fab_hash = fab_hash
    return made


def test_the_inner_parts_of_flowers_that_the_supernode_goes_by_are_there_or_missed_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, connection = supernode_main.flower()
    assert callable(connection.make_simple_http_retry_invoker)
    state = node_state()
    for name in ("get_tasks", "finish_task", "delete_messages", "lock_msg_store", "msg_store"):
        assert hasattr(state, name), name
    monkeypatch.delattr(loop, "_push_messages")
    with pytest.raises(InstallError, match=r"_push_messages.*flwr==1\.41\.0"):
        supernode_main.flower()


def test_a_message_whose_run_ended_while_it_came_leaves_nothing_behind(loop: Any) -> None:
    supernode_main.keep_step(loop)
    node = Node(loop)

    def ended(_: str) -> bytes:
        raise RunNotRunningException

    message = node.message()
    assert node.pull(message, object=ended) is None
    assert (dict(node.state.msg_store), node.open_tasks()) == ({}, [])
    assert not node.store.get(message.metadata.message_id)


def test_after_a_message_comes_its_own_answer(loop: Any) -> None:
    """As after a suspension: an answer that nobody waits for any more is there first."""
    supernode_main.keep_step(loop)
    node = Node(loop)
    stray, message = node.message(1), node.message(2)
    assert node.pull(message) == RUN
    node.answer(stray)
    threading.Timer(0.3, node.answer, [message]).start()
    node.push()
    assert node.answered() == [(stray.metadata.message_id, False), (message.metadata.message_id, False)]


def test_a_message_whose_process_ended_without_an_answer_is_answered_with_an_error(loop: Any) -> None:
    supernode_main.keep_step(loop)
    node = Node(loop)
    message = node.message()
    assert node.pull(message) == RUN
    (task,) = node.open_tasks()
    node.state.finish_task(task, sub_status="failed", details="killed")
    node.push()
    assert node.answered() == [(message.metadata.message_id, True)]
    assert node.sent[0].error.code == ErrorCode.CLIENT_APP_CRASHED
    assert node.pull(None) is None, "and the loop goes on"


@pytest.mark.parametrize("strange", [True, False])
def test_a_strangers_app_is_refused_before_any_of_it_is_unpacked(loop: Any, strange: bool) -> None:
    told: list[str] = []
    allowed = read_allowed()
    supernode_main.guard(loop, lambda app: why_refused(app, allowed), told.append)
    supernode_main.keep_step(loop)
    node = Node(loop, bundle(files={"evil/client.py": "open('marker', 'w')"} if strange else {}))
    message = node.message()
    assert node.pull(message, known=False) == RUN
    assert [bool(node.open_tasks()), bool(node.state.get_run(RUN)), bool(told)] == [not strange, not strange, strange]
    if strange:
        node.push()
        assert node.answered() == [(message.metadata.message_id, True)]
        assert node.sent[0].error.code == ErrorCode.INVALID_FAB
        for words in (told[0], node.sent[0].error.reason):
            assert "it has files of its own (evil/client.py)" in words


def test_a_superlink_that_is_away_is_told_once_and_so_is_its_return() -> None:
    told: list[str] = []
    connection = SimpleNamespace(make_simple_http_retry_invoker=_invoker)
    supernode_main.watch(connection, "lab:8000", told.append)
    invoker = connection.make_simple_http_retry_invoker()
    for failures in (3, 1, 0, 2):
        answers: list[Any] = [httpx.ConnectError("Connection refused")] * failures + ["well"]
        assert invoker.invoke(_from(answers)) == "well"
    assert [line.split(" at lab:8000 ")[1].split(",")[0].split(";")[0] for line in told] == [
        "cannot be reached (Connection refused)", "answers again",
    ] * 2  # fmt: skip
    assert invoker.invoke(_from([httpx.ReadTimeout("timed out"), "well"])) == "well"
    assert len(told) == 6, "one that hangs is said at once"


@pytest.mark.parametrize(
    ("address", "reason", "words"),
    [
        ("no-such-name.invalid:8000", "[Errno -2] Name or service not known", "the name no-such-name.invalid is unknown here"),
        ("lab:8000", "[Errno -3] Temporary failure in name resolution", "the name lab is unknown here: check its spelling"),
        ("10.0.0.1:8000", "[Errno 22] Invalid argument", "this machine has no route to 10.0.0.1"),
        ("10.0.0.1:8000", "[Errno 113] No route to host", "this machine has no route to 10.0.0.1"),
        ("10.0.0.1:8000", "[Errno 111] Connection refused", "nothing listens there: start it, or check the port"),
        ("10.0.0.1:8000", "the server hung up", "the server hung up"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the numbers are Linux's")
def test_a_superlink_that_is_away_is_told_with_the_reason_in_plain_words(address: str, reason: str, words: str) -> None:
    told: list[str] = []
    connection = SimpleNamespace(make_simple_http_retry_invoker=_invoker)
    supernode_main.watch(connection, address, told.append)
    failing: list[Any] = [httpx.ConnectError(reason), httpx.ConnectError(reason), "well"]
    connection.make_simple_http_retry_invoker().invoke(_from(failing))
    assert told[0].startswith(f"the SuperLink at {address} cannot be reached ({words}")


def test_a_gateway_says_once_that_it_is_connected_and_as_which_node(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log, told = logging.getLogger("flwr"), list[str]()
    monkeypatch.setattr(log, "filters", [])
    caplog.set_level(logging.INFO, "flwr")
    supernode_main.announce("lab:8000", told.append)
    for words in ("Starting Flower SuperNode", "SuperNode ID: 1204234329046899961", "Run ended"):
        log.info(words)
    assert told == ["connected to lab:8000 as node 1204234329046899961"]


def _invoker() -> Any:
    from flwr.supercore.retry import make_simple_http_retry_invoker

    invoker = make_simple_http_retry_invoker()
    invoker.wait_function = lambda _: None
    return invoker


def _from(answers: list[Any]) -> Callable[[], Any]:
    def next_answer() -> Any:
        said = answers.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    return next_answer


FAILING = """
import sys, threading
from types import SimpleNamespace
from tinyfl.deployment import supernode_main
def fails(**_): raise ValueError("the SuperLink answered 500")
loop = SimpleNamespace(_pull_and_store_message=fails, _push_messages=None)
tell = supernode_main._line_writer()
print("a child's words")
supernode_main.report_failures(loop, tell)
if sys.argv[1] == "thread":
    threading.Thread(target=fails).start()
    threading.Event().wait(60)
loop._pull_and_store_message()
"""


@pytest.mark.parametrize("where", ["thread", "loop"])
def test_a_part_that_fails_is_told_and_ends_the_program(where: str) -> None:
    import sys

    done = subprocess.run([sys.executable, "-c", FAILING, where], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0
    assert "the SuperLink answered 500" in done.stdout
    assert "a child's words" not in done.stdout, "standard output is for what a person should know"
    assert "ValueError" in done.stderr
