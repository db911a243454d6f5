"""From Flower's process for a message to the gateway's: one request, one answer, over a socket of this machine.

The socket lies in a folder that only its user may enter. What goes over it are Flower's own records, in Flower's own bytes.
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
"""What an answer may take where the run config does not say, and beside that."""

ENVELOPE = "tinyfl"
"""The ConfigRecord beside a message's own: its type, or what went wrong."""

RUN_CONFIG = "tinyfl-run-config"

Answer = Callable[[str, RecordDict, Mapping[str, Any]], RecordDict | Error]
"""Answers a message of a type, of a run with a run config."""


def ask(socket: str, message_type: str, content: RecordDict, run_config: Mapping[str, Any]) -> RecordDict | Error:
    """The gateway's answer to a message.

    Raises LinkError where no gateway listens at ``socket``, or it ends before it has answered.
    """
    asked = RecordDict({**content, ENVELOPE: ConfigRecord({"type": message_type}), RUN_CONFIG: ConfigRecord({**run_config})})
    limit = float(run_config.get("seconds") or WORK_SECONDS) + GRACE_SECONDS
    try:
        with Client(socket, family="AF_UNIX") as connection:
            connection.send_bytes(_packed(asked))
            if not connection.poll(limit):
                raise LinkError(f"the gateway at {socket} has not answered within {limit:g} s.")
            said = _unpacked(connection.recv_bytes())
    except (OSError, EOFError) as error:
        raise LinkError(f"the gateway at {socket} does not answer ({error!r}). Start it again: tinyfl gateway.") from error
    if ENVELOPE in said:
        trouble: Any = said.config_records[ENVELOPE]
        return Error(int(trouble["code"]), str(trouble["reason"]))
    return said


def serve(listener: Listener, answer: Answer, closed: Event) -> None:
    """Answers whoever asks, each in a thread of its own, until the listener is closed, which ``closed`` says beforehand."""
    while True:
        try:
            connection = listener.accept()
        except AuthenticationError:
            continue
        except OSError:
            if closed.is_set():
                return
            sleep(0.1)  # too many open files, say: whoever asks waits
            continue
        Thread(target=_serve_one, args=(connection, answer), daemon=True).start()


def _serve_one(connection: Connection, answer: Answer) -> None:
    with connection:
        try:
            asked = _unpacked(connection.recv_bytes())
            message_type: Any = asked.config_records.pop(ENVELOPE)["type"]
            said = answer(message_type, asked, asked.config_records.pop(RUN_CONFIG))
            if isinstance(said, Error):
                said = RecordDict({ENVELOPE: ConfigRecord({"code": said.code, "reason": str(said.reason)})})
            connection.send_bytes(_packed(said))
        except (OSError, EOFError):
            return  # whoever asked is gone, and asks again


def _packed(record: RecordDict) -> bytes:
    packed: bytes = recorddict_to_proto(record).SerializeToString()
    return packed


def _unpacked(data: bytes) -> RecordDict:
    record: RecordDict = recorddict_from_proto(Bytes.FromString(data))
    return record
