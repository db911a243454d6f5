"""A good embedding (Tian, Wang, Krishnan, Tenenbaum, Isola 2020; arXiv:2003.11539, section 3): one classifier of all training
classes is all that is learnt; a new device needs no more than its embedding.

    training      phi_i <- SGD(theta; the samples of device i, labelled among all classes);   theta <- mean_i phi_i
    afterwards    the last layer is dropped; each embedding is scaled to norm 1, and a class is the mean of its samples'

The paper trains in one place, and fits a logistic regression on each device; here the classifier is trained as by FedAvg.
"""

from dataclasses import dataclass
from typing import ClassVar

from tinyfl.algorithms.fedavg import FedAvg


@dataclass(frozen=True)
class Embedding(FedAvg):
    trains: ClassVar[str] = "classes"
    normalised: ClassVar[bool] = True
