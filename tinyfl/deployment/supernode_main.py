"""A gateway's SuperNode: Flower's own program, changed to run known apps only and to fail visibly.

    python -P -m tinyfl.deployment.supernode_main ARGUMENTS

ARGUMENTS is a private file with the arguments of `flower-supernode` as a JSON list, so that no key is in a command line.
Messages for people go to standard output, one per line; Flower's log goes to standard error. The changes:

- A refused app is rejected before it is unpacked.
- A message whose run has ended is dropped, with its task. Flower keeps both; the task's process waits for the rest of the
  message, and its late reply is taken for the reply to the next message, and so on without end.
- Each message is followed by its own reply, or by an error if its process ended without one.
- Any permanent failure ends the program: of Flower's SuperExec, a thread, or the loop itself. The gateway restarts it.

All of these patch Flower's private modules.
"""

import errno
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tinyfl.deployment.inner import inner
from tinyfl.errors.words import plain
from tinyfl.flower.allowed import allowed_here, why_refused
from tinyfl.system.proxies import proxy_note

POLL_SECONDS = 0.1
"""Polling interval for a reply, in seconds."""

CONNECTED = "SuperNode ID:"
"""Flower's message when a SuperNode has joined the federation: after any later failure, another try makes sense."""

Tell = Callable[[str], None]


def flower() -> tuple[Any, Any]:
    """Flower's modules with the SuperNode's loop and its connection.

    Raises InstallError for another version, or a missing name.
    """
    parts = ("_pull_and_store_message", "_push_messages", "_insert_message", "_verify_fab", "FAB_VERIFICATION_ERROR")
    loop = inner("flwr.supernode.start_client_internal", *parts)
    return loop, inner("flwr.supernode.fleet_http_connection", "make_simple_http_retry_invoker")


def guard(loop: Any, why_refused: Callable[[bytes], str], tell: Tell) -> None:
    """Patches the loop to reject a message of an app for which ``why_refused`` gives a reason, without unpacking or starting
    it. The check takes the place of Flower's check of an app's signatures."""
    from flwr.app import Error
    from flwr.common.constant import ErrorCode
    from flwr.supercore.fab import Fab

    pull = loop._pull_and_store_message

    def pull_known(*, get_fab: Callable[[str, int], Any], trusted_entities: object, **rest: Any) -> int | None:
        def to_be_checked(name: str, run: int) -> Any:
            fab = get_fab(name, run)
            return Fab(fab.hash_str, fab.content, {"valid_license": "none, but Flower asks for one"})

        run_id: int | None = pull(get_fab=to_be_checked, trusted_entities={"tinyfl": ""}, **rest)
        return run_id

    def is_allowed(fab: Any, _: object) -> bool:
        if why := why_refused(fab.content):
            tell(f"refused: {why}")
            loop.FAB_VERIFICATION_ERROR = Error(ErrorCode.INVALID_FAB, plain(f"this gateway says: {why}", 600))
        return not why

    loop._pull_and_store_message, loop._verify_fab = pull_known, is_allowed


def keep_step(loop: Any) -> None:
    """Patches the loop so that each message is followed by its own reply, and a message of an ended run leaves nothing
    behind."""
    from flwr.app import Error, Message
    from flwr.common.constant import ErrorCode, Status, SubStatus

    pull, push = loop._pull_and_store_message, loop._push_messages
    current: list[Any] = []

    def open_tasks(state: Any, run_id: int) -> list[int]:
        return [task.task_id for task in state.get_tasks(run_ids=[run_id]) if task.status.status != Status.FINISHED]

    def pull_whole(*, state: Any, object_store: Any, receive: Callable[[], Any], **rest: Any) -> int | None:
        def receive_and_note() -> Any:
            got = receive()
            current[:] = [got[0]] if got else []
            return got

        run_id: int | None = pull(state=state, object_store=object_store, receive=receive_and_note, **rest)
        if run_id is None and current:
            metadata = current.pop().metadata
            state.delete_messages(message_ids=[metadata.message_id])
            object_store.delete(metadata.message_id)
            for task in open_tasks(state, metadata.run_id):
                state.finish_task(task, sub_status=SubStatus.FAILED, details="its run has ended")
        return run_id

    def push_own(*, state: Any, object_store: Any, **rest: Any) -> None:
        (message,) = current
        answered = False
        while not answered:
            open_before = open_tasks(
                state, message.metadata.run_id
            )  # before the check for replies: a task ends after its reply
            if _answers(state):
                push(state=state, object_store=object_store, **rest)
                answered = message.metadata.message_id not in state.msg_store  # removed with its own reply
            elif not open_before:
                why = Error(ErrorCode.CLIENT_APP_CRASHED, "the gateway's process for this message ended without a reply")
                loop._insert_message(Message(why, reply_to=message), state, object_store)
            else:
                time.sleep(POLL_SECONDS)

    loop._pull_and_store_message, loop._push_messages = pull_whole, push_own


def _answers(state: Any) -> bool:
    """Whether replies wait to be sent."""
    with state.lock_msg_store:
        return any(each.message.metadata.reply_to_message_id and not each.is_retrieved for each in state.msg_store.values())


def watch(connection: Any, address: str, tell: Tell, scheme: str = "https") -> None:
    """Patches the connection to report when the SuperLink at ``address`` cannot be reached, by way of a proxy perhaps, and when
    it is back: once each."""
    from httpx import TimeoutException

    host = address.rpartition(":")[0].strip("[]")
    way = proxy_note(host, scheme)
    make = connection.make_simple_http_retry_invoker

    def watched() -> Any:
        invoker = make()
        failed, succeeded = invoker.on_backoff, invoker.on_success
        away: list[float] = []

        def on_backoff(attempt: Any) -> None:
            failed(attempt)
            if not away and (attempt.tries > 1 or isinstance(attempt.exception, TimeoutException)):
                away.append(time.monotonic() - attempt.elapsed_time)
                why = f"({_in_words(attempt.exception, host)}){way and ' ' + way}"
                tell(f"the SuperLink at {address} cannot be reached {why}; trying until it can")

        def on_success(attempt: Any) -> None:
            succeeded(attempt)
            if away:
                tell(f"the SuperLink at {address} answers again, after {time.monotonic() - away.pop():.0f} s")

        invoker.on_backoff, invoker.on_success = on_backoff, on_success
        return invoker

    connection.make_simple_http_retry_invoker = watched


def _in_words(error: Exception, host: str) -> str:
    """Why a SuperLink at ``host`` cannot be reached: the usual reasons in plain words, which a system's numbers are not."""
    number = re.match(r"\[Errno (-?\d+)\]", str(error))
    reason = int(number[1]) if number else 0
    if reason in (socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_NODATA):
        return f"the name {host} is unknown here: check its spelling, or give an address"
    if reason == errno.ECONNREFUSED:
        return "nothing listens there: start it, or check the port"
    if reason in (errno.EINVAL, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN):
        return f"this machine has no route to {host}"
    return plain(error, 100)


def announce(address: str, tell: Tell) -> None:
    """Tells once when the SuperLink at ``address`` has accepted this node, with the node's number there."""

    def note(line: logging.LogRecord) -> bool:
        said = line.getMessage()
        if said.startswith(CONNECTED):
            tell(f"connected to {address} as node {said.removeprefix(CONNECTED).strip()}")
        return True

    logging.getLogger("flwr").addFilter(note)


def report_failures(loop: Any, tell: Tell) -> None:
    """Patches the loop to report the exception that ends it, and to end the program when a thread fails."""

    def reporting(part: Callable[..., Any]) -> Callable[..., Any]:
        def reported(**given: Any) -> Any:
            try:
                return part(**given)
            except Exception as error:
                tell(f"the SuperNode failed: {plain(repr(error))}")
                raise

        return reported

    def end(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_type is SystemExit:
            return
        traceback.print_exception(failed.exc_type, failed.exc_value, failed.exc_traceback)
        tell(f"a part of the SuperNode failed: {plain(repr(failed.exc_value))}")
        os.kill(os.getpid(), signal.SIGTERM)  # Flower's handler signs off from the SuperLink and ends the other threads

    loop._pull_and_store_message, loop._push_messages = reporting(loop._pull_and_store_message), reporting(loop._push_messages)
    threading.excepthook = end


def start_superexec(port: str, secret: str) -> None:
    """Starts Flower's SuperExec, which starts a process for each message. It polls the runtime API at ``port``, with the
    ``secret`` in a file as authentication."""
    process = subprocess.Popen(
        [
            sys.executable, "-P", "-m", "tinyfl.deployment.superexec", "--insecure",
            "--runtime-api-address", f"127.0.0.1:{port}", "--parent-pid", str(os.getpid()),
            "--superexec-auth-secret-file", secret,
        ]
    )  # fmt: skip

    def wait() -> None:
        raise RuntimeError(f"Flower's SuperExec ended with code {process.wait()}")

    threading.Thread(target=wait, name="superexec", daemon=True).start()


def _line_writer() -> Tell:
    """A function that writes lines to standard output; all other output, here or from a child, goes to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def tell(line: str) -> None:
        print(plain(line, 1000), file=out, flush=True)

    return tell


def main(file: Path) -> None:
    """Runs the program. Returns only if Flower's loop has failed."""
    os.umask(0o077)
    tell, arguments, allowed = _line_writer(), json.loads(file.read_text()), allowed_here()
    given = dict(pairwise(arguments))
    loop, connection = flower()
    from flwr.supercore.logger import update_console_handler
    from flwr.supernode.cli import flower_supernode

    update_console_handler(colored=False)  # it goes to a file

    guard(loop, lambda app: why_refused(app, allowed), tell)
    keep_step(loop)
    watch(connection, given["--superlink"], tell, "http" if "--insecure" in arguments else "https")
    announce(given["--superlink"], tell)
    report_failures(loop, tell)
    start_superexec(given["--port"], given["--superexec-auth-secret-file"])
    sys.argv = ["flower-supernode", *arguments]
    flower_supernode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(1)  # a server thread of Flower's would keep the process alive
