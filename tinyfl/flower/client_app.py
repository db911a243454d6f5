"""The package's ClientApp: it forwards each message to its gateway; without a gateway it simulates its part of the fleet.

Flower may start a process for each message, so everything that must outlive a message, above all the boards, is in the gateway.
This app only needs its address, from the node config: ``gateway="/path/of/a/socket"``. A node without one, as in Flower's
simulation engine, serves part ``partition-id`` of ``num-partitions`` of a simulated fleet.
"""

from functools import lru_cache

from flwr.app import ConfigRecord, Context, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from tinyfl.errors import ConfigError, LinkError, TinyflError
from tinyfl.fleet import Fleet
from tinyfl.flower.ipc import ask
from tinyfl.flower.messages import Trouble, shard_record
from tinyfl.networks import Network

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """This node's devices."""
    return _reply(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """This node's part of a round."""
    return _reply(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """The loss on this node's part, without learning."""
    return _reply(message, context)


def _reply(message: Message, context: Context) -> Message:
    try:
        socket = context.node_config.get("gateway")
        if socket:
            answer = ask(str(socket), message.metadata.message_type, message.content, context.run_config)
        else:
            answer = _simulated(message, context)
    except LinkError as error:  # the gateway is away, and may be back for the next request
        answer = Error(Trouble.silent, str(error))
    except TinyflError as error:
        answer = Error(Trouble.failed, str(error))
    return Message(answer, reply_to=message)


def _simulated(message: Message, context: Context) -> RecordDict | Error:
    from tinyfl.flower.allowed import allowed_here
    from tinyfl.flower.extensions import refuse_task
    from tinyfl.flower.grid import shard
    from tinyfl.flower.node import answer, read_request

    refuse_task(message.content, allowed_here())
    part, parts = context.node_config.get("partition-id"), context.node_config.get("num-partitions")
    if not isinstance(part, int) or not isinstance(parts, int):
        raise ConfigError('this node has no gateway. Start it with tinyfl gateway, or with "partition-id=0 num-partitions=1".')
    run = tuple(sorted(context.run_config.items()))
    if message.metadata.message_type == MessageType.QUERY:
        return shard_record(f"part {part} of {parts}", shard(_fleet(run, None).size, parts, part))
    request = read_request(message.content, message.metadata.message_type, ConfigRecord())
    fleet = _fleet(run, request.network)
    return answer(fleet, shard(fleet.size, parts, part), request)


@lru_cache(maxsize=2)
def _fleet(run_config: tuple[tuple[str, object], ...], network: tuple[Network, str] | None) -> Fleet:
    """The complete simulated fleet of a run, for the coordinator's network and what its algorithm trains, if it says; built
    once in a long-lived process, such as Ray's."""
    from tinyfl.config import resolve
    from tinyfl.fleets.assembly import simulated
    from tinyfl.flower.allowed import allowed_here, refuse_extensions, refuse_paths
    from tinyfl.flower.settings import of_a_node
    from tinyfl.runs.learner import fitted, task_for

    options, allowed = of_a_node(dict(run_config)), allowed_here()
    refuse_extensions(options, allowed)
    refuse_paths(options, allowed)
    config = resolve(options, installed=True)
    if network is None:
        config, learner = fitted(config)
        return simulated(learner.task, learner.network, config.devices)
    task = task_for(config, *network)
    config, _ = fitted(config, lambda _: task)  # for the number of devices; the data are read once
    return simulated(task, network[0], config.devices)
