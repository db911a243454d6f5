"""Online learning in a world that drifts: streams of samples through devices that learn from each (TinyOL).

TinyOL (Ren, Anicic, Runkler, IJCNN 2021, arXiv:2103.08295) keeps a trained network frozen and lets its output layer learn on
the device: each sample enters a running mean and variance, is standardised by them, predicted and, if its label comes, learnt,
then dropped. Only the abstract and notes of others could be read, so this is a reconstruction (firmware/SPEC.md, online
learning).
"""

from tinyfl.online.prequential import online
from tinyfl.online.sets import Head, OnlineSet, Standardised

__all__ = ["Head", "OnlineSet", "Standardised", "online"]
