"""EASY (Bendou et al. 2022; arXiv:2201.09699, section 3): the embedding of one classifier of all training classes, centred by
the mean of those classes, with augmented shots.

    training      as tinyfl.algorithms.embedding
    afterwards    z <- f(x) - mean of f over training samples;   z <- z / |z|;   a class is the mean of its samples' z, and of
                  those of the same images moved by a pixel

Of the paper's parts these are what a microcontroller can do; its mix-up, self-supervision and ensembles are left out.
"""

from dataclasses import dataclass
from typing import ClassVar

from tinyfl.algorithms.embedding import Embedding


@dataclass(frozen=True)
class Easy(Embedding):
    centred: ClassVar[bool] = True
    augmented: ClassVar[bool] = True
