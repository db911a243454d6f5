"""Flower's simulation on Ray: an actor for each processor, and theta as one array in each message."""

import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # the actors' modules

import torch_job
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from job import asked, outer_step

FOLDER = Path(sys.argv[1]).resolve()


class TinyReptile(FedAvg):
    """The mean of the cohort, followed part of the way."""

    def __init__(self, cohort: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=cohort, min_available_nodes=cohort)

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: Any, grid: Grid) -> Any:
        self.theta = arrays.to_numpy_ndarrays()[0]
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        mean, metrics = super().aggregate_train(server_round, replies)
        assert mean is not None, "no device answered"
        theta = self.theta + outer_step(server_round - 1) * (mean.to_numpy_ndarrays()[0] - self.theta)
        return ArrayRecord([theta.astype("float32")]), metrics


client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    theta = message.content["arrays"].to_numpy_ndarrays()[0]
    learner = torch_job.learner(FOLDER)
    phi = learner.learn(theta, int(context.node_config["partition-id"]))
    metrics = MetricRecord({"num-examples": learner.held[0].shape[1]})
    return Message(RecordDict({"arrays": ArrayRecord([phi]), "metrics": metrics}), reply_to=message)


def main() -> None:
    job, _, after = asked()
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        def evaluate(round: int, arrays: ArrayRecord) -> None:
            if round:
                after(lambda: torch_job.to_keras(job.name, arrays.to_numpy_ndarrays()[0]))

        theta = ArrayRecord([torch_job.from_keras(job.name, job.theta)])
        try:
            TinyReptile(job.cohort).start(grid, theta, num_rounds=10**6, timeout=10**6, evaluate_fn=evaluate)
        except SystemExit:
            return

    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"include_dashboard": False, "log_to_driver": False},
    }
    run_simulation(server, client, num_supernodes=job.cohort, backend_config=backend)


if __name__ == "__main__":
    main()
