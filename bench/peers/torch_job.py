"""The job in PyTorch, for Flower and pfl: the networks, their weights' layout, and one device's learning."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from job import Floats, Job
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

torch.set_num_threads(1)  # a step takes microseconds: threads only wait for each other


def model(name: str) -> nn.Sequential:
    """The network of job ``name``. Images come padded by one row and column, as TensorFlow's SAME has it, to (1, 29, 29)."""
    if name == "J1":
        return nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 16, 3, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(784, 5),
    )  # fmt: skip


def loss_function(name: str) -> nn.Module:
    return nn.MSELoss() if name == "J1" else nn.CrossEntropyLoss()


def from_keras(name: str, theta: Floats) -> Floats:
    """``theta`` in PyTorch's layout: output channels first, and rows of dense layers by channel, row and column."""
    return _permuted(name, theta, np.arange(len(theta)))


def to_keras(name: str, theta: Floats) -> Floats:
    back = np.argsort(_permuted(name, np.arange(len(theta)), np.arange(len(theta))))
    return theta[back]


def _permuted(name: str, theta: np.ndarray, index: np.ndarray) -> np.ndarray:
    dense = [(1, 32), (32, 32), (32, 1)]
    shapes = dense if name == "J1" else [(3, 3, 1, 8), (3, 3, 8, 16), (7, 7, 16, 5)]
    parts, at = [], 0
    for shape in shapes:
        size, outputs = int(np.prod(shape)), shape[-1]
        kernel = index[at : at + size].reshape(shape)
        order = (1, 0) if len(shape) == 2 else (3, 2, 0, 1)
        parts += [kernel.transpose(order).ravel(), index[at + size : at + size + outputs]]
        at += size + outputs
    return theta[np.concatenate(parts)]


def samples(job: Job, device: int) -> tuple[Tensor, Tensor]:
    """A device's samples: x (samples, 1) or (samples, 1, 29, 29), and y (samples, 1) or classes (samples,)."""
    x, y = torch.from_numpy(job.x[device].astype(np.float32)), torch.from_numpy(np.array(job.y[device]))
    if job.name == "J1":
        return x, y
    return nn.functional.pad(x.reshape(-1, 1, 28, 28), (0, 1, 0, 1)), y.argmax(1)


class Learner:
    """One network for all devices of a process."""

    def __init__(self, folder: Path) -> None:
        self.job = Job.read(folder)
        self.model, self.loss = model(self.job.name), loss_function(self.job.name)
        self.weights = list(self.model.parameters())
        self.held = (self.job.x, self.job.y)

    def learn(self, theta: Floats, device: int) -> Floats:
        """A device's phi, from ``theta``, both in PyTorch's layout."""
        phi = torch.from_numpy(theta.copy())
        vector_to_parameters(phi, self.weights)  # views: steps move phi itself
        for x, y in zip(*(part.split(1) for part in samples(self.job, device)), strict=True):
            gradients = torch.autograd.grad(self.loss(self.model(x), y), self.weights)
            with torch.no_grad():
                torch._foreach_add_(self.weights, gradients, alpha=-self.job.rate)
        return phi.numpy()


@cache
def learner(folder: Path) -> Learner:
    """This process's learner for the job in ``folder``."""
    return Learner(folder)


def flat(module: nn.Module) -> Floats:
    result: Floats = parameters_to_vector(module.parameters()).detach().numpy()
    return result
