"""pfl: SimulatedBackend with a PyTorchModel, in one process."""

import itertools
from functools import cache, partial
from typing import Any

import torch
import torch_job
from job import Turns, asked, outer_step
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters


class Network(nn.Module):
    """The job's network, with pfl's ``loss`` and ``metrics``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.layers, self.error = torch_job.model(name), torch_job.loss_function(name)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return self.error(self.layers(x), y)  # type: ignore[no-any-return]

    @torch.no_grad()
    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        """pfl evaluates in the first round, whatever its frequency."""
        return {"loss": Weighted(float(self.loss(x, y)) * len(x), len(x))}


class AfterRound(TrainingProcessCallback):
    def __init__(self, name: str, after: Turns) -> None:
        self.name, self.after = name, after

    def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> tuple[bool, Metrics]:
        try:
            self.after(lambda: torch_job.to_keras(self.name, torch_job.flat(model.pytorch_model)))
        except SystemExit:
            return True, Metrics()
        return False, Metrics()


def main() -> None:
    job, _, after = asked()
    network = Network(job.name)
    vector_to_parameters(torch.from_numpy(torch_job.from_keras(job.name, job.theta)), network.parameters())

    @cache  # so that no round but the first takes time for samples
    def dataset(device: int) -> Dataset:
        return Dataset(raw_data=torch_job.samples(job, device))

    data = FederatedDataset(dataset, partial(next, itertools.cycle(range(job.cohort))))
    central = torch.optim.SGD(network.parameters(), lr=1.0)
    model = PyTorchModel(
        network,
        local_optimizer_create=partial(torch.optim.SGD, foreach=True),
        central_optimizer=central,
        central_learning_rate_scheduler=torch.optim.lr_scheduler.LambdaLR(central, outer_step),
    )
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=10**6, evaluation_frequency=10**6, train_cohort_size=job.cohort, val_cohort_size=None
        ),
        SimulatedBackend(training_data=data, val_data=data),
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=job.rate, local_batch_size=1),
        callbacks=[AfterRound(job.name, after)],
        send_metrics_to_platform=False,
    )


if __name__ == "__main__":
    main()
