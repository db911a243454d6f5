"""Requests from Flower's process for a message to the gateway's, over a Unix socket: one request, one reply.

The socket is in a folder that only its user may enter. Messages are Flower's records in Flower's serialisation.
"""

from collections.abc import Callable, Mapping
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from threading import Event, Thread
from time import sleep
from typing import Any

from flwr.app import ConfigRecord, Error, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as Bytes

from tinyfl.errors import LinkError

WORK_SECONDS, GRACE_SECONDS = 60.0, 60.0
"""Time limit of a reply if the run config sets none, and the allowance added to it."""

ASK = "ask"
"""The ConfigRecord of a question to a site (tinyfl.flower.sites)."""

ANSWER_SECONDS = 3600.0
"""Time for the answer to a question, in seconds: a pass over a site's data, or a measurement."""

ENVELOPE = "tinyfl"
"""The ConfigRecord added to a message: its type, or an error."""

RUN_CONFIG = "tinyfl-run-config"

Answer = Callable[[str, RecordDict, Mapping[str, Any]], RecordDict | Error]
"""Replies to a message, given its type, its content and the run config."""


def ask(socket: str, message_type: str, content: RecordDict, run_config: Mapping[str, Any]) -> RecordDict | Error:
    """Sends a message to the gateway at ``socket`` and returns its reply.

    Raises LinkError if no gateway listens there, or it ends before it replies.
    """
    request = RecordDict({**content, ENVELOPE: ConfigRecord({"type": message_type}), RUN_CONFIG: ConfigRecord({**run_config})})
    work = ANSWER_SECONDS if ASK in content else float(run_config.get("seconds") or WORK_SECONDS)
    limit = work + GRACE_SECONDS
    try:
        with Client(socket, family="AF_UNIX") as connection:
            connection.send_bytes(_packed(request))
            if not connection.poll(limit):
                raise LinkError(f"the gateway at {socket} did not reply within {limit:g} s.")
            reply = _unpacked(connection.recv_bytes())
    except (OSError, EOFError) as error:
        raise LinkError(f"the gateway at {socket} does not answer ({error!r}). Start it again: tinyfl gateway.") from error
    if ENVELOPE in reply:
        trouble: Any = reply.config_records[ENVELOPE]
        return Error(int(trouble["code"]), str(trouble["reason"]))
    return reply


def serve(listener: Listener, answer: Answer, closed: Event) -> None:
    """Serves each connection in its own thread until the listener is closed; set ``closed`` before that."""
    while True:
        try:
            connection = listener.accept()
        except AuthenticationError:
            continue
        except OSError:
            if closed.is_set():
                return
            sleep(0.1)  # for example too many open files: clients wait
            continue
        Thread(target=_serve_one, args=(connection, answer), daemon=True).start()


def _serve_one(connection: Connection, answer: Answer) -> None:
    with connection:
        try:
            request = _unpacked(connection.recv_bytes())
            message_type: Any = request.config_records.pop(ENVELOPE)["type"]
            reply = answer(message_type, request, request.config_records.pop(RUN_CONFIG))
            if isinstance(reply, Error):
                reply = RecordDict({ENVELOPE: ConfigRecord({"code": reply.code, "reason": str(reply.reason)})})
            connection.send_bytes(_packed(reply))
        except (OSError, EOFError):
            return  # the client is gone, and will ask again


def _packed(record: RecordDict) -> bytes:
    packed: bytes = recorddict_to_proto(record).SerializeToString()
    return packed


def _unpacked(data: bytes) -> RecordDict:
    record: RecordDict = recorddict_from_proto(Bytes.FromString(data))
    return record
