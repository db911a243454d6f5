"""JAX: vmap over devices, a scan over each one's samples, and one jitted call a round, with theta donated.

Convolutions are patches times a matrix: under vmap, XLA turns a convolution with a kernel for each device into a grouped one,
which is much slower. Samples stay where XLA has them from the start. The variants are PROCESSORS-CHUNK-UNROLL: the
processors with an XLA device each, the devices learning side by side (0: all), since a few fit the caches, and the steps in
one turn of the loop.
"""

# ruff: noqa: E402 (XLA reads the environment when it is imported)

import os
import sys

PROCESSORS, CHUNK, UNROLL = map(int, sys.argv[2].split("-"))
if PROCESSORS == 1:
    os.environ["NPROC"] = "1"  # no pool of threads, which costs more than it brings with operations this small
else:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={PROCESSORS}"

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec
from job import Floats, Job, asked, outer_step

Weights = tuple[tuple[Array, Array], ...]
"""(kernel, bias) of each layer, kernels as (inputs, outputs)."""

SHAPES = {"J1": ((1, 32), (32, 32), (32, 1)), "J2": ((9, 8), (72, 16), (784, 5))}


def split(theta: Floats, name: str) -> Weights:
    parts, at = [], 0
    for inputs, outputs in SHAPES[name]:
        size = inputs * outputs
        kernel, bias = theta[at : at + size].reshape(inputs, outputs), theta[at + size : at + size + outputs]
        parts.append((jnp.asarray(kernel), jnp.asarray(bias)))
        at += size + outputs
    return tuple(parts)


def joined(theta: Weights) -> Floats:
    return np.concatenate([np.asarray(part).ravel() for layer in theta for part in layer])


def patches(image: Array) -> Array:
    """The 3 x 3 windows of ``image`` (height, width, channels) at a stride of 2, (height / 2, width / 2, 9 channels)."""
    height, width, _ = image.shape
    padded = jnp.pad(image, ((0, 1), (0, 1), (0, 0)))
    windows = [padded[i : i + height - 1 : 2, j : j + width - 1 : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate(windows, axis=-1)


def loss_j1(theta: Weights, x: Array, y: Array) -> Array:
    (w1, b1), (w2, b2), (w3, b3) = theta
    h = jnp.tanh(jnp.tanh(x @ w1 + b1) @ w2 + b2)
    return ((h @ w3 + b3 - y) ** 2).mean()


def loss_j2(theta: Weights, x: Array, y: Array) -> Array:
    (w1, b1), (w2, b2), (w3, b3) = theta
    h = jax.nn.relu(patches(x.astype(jnp.float32).reshape(28, 28, 1)) @ w1 + b1)
    h = jax.nn.relu(patches(h) @ w2 + b2)
    return -(jax.nn.log_softmax(h.reshape(-1) @ w3 + b3) * y).sum()


class Rounds:
    """The rounds of a job. Their cohort is a multiple of the processors and of the chunks."""

    def __init__(self, job: Job) -> None:
        share = job.cohort // PROCESSORS
        self.chunk = next(n for n in range(min(CHUNK or share, share), 0, -1) if share % n == 0)
        self.cohort, self.rate = job.cohort, job.rate
        self.gradient = jax.grad(loss_j1 if job.name == "J1" else loss_j2)
        mesh = jax.make_mesh((PROCESSORS,), ("processor",))
        each, same = PartitionSpec("processor"), PartitionSpec()
        self.x, self.y = (jax.device_put(np.asarray(part), NamedSharding(mesh, each)) for part in (job.x, job.y))
        self.sums = jax.shard_map(self.sum_of_share, mesh=mesh, in_specs=(same, each, each), out_specs=same)
        self.run = jax.jit(self.round, donate_argnums=0)

    def device(self, theta: Weights, x: Array, y: Array) -> Weights:
        """A device's phi."""

        def step(phi: Weights, sample: tuple[Array, Array]) -> tuple[Weights, None]:
            return jax.tree.map(lambda w, g: w - self.rate * g, phi, self.gradient(phi, *sample)), None

        return lax.scan(step, theta, (x, y), unroll=UNROLL)[0]

    def sum_of_share(self, theta: Weights, x: Array, y: Array) -> Weights:
        """The sum of phi over the whole cohort, from one processor's share of it."""
        theta = lax.pcast(theta, "processor", to="varying")

        def sum_of_chunk(samples: tuple[Array, Array]) -> Weights:
            phis = jax.vmap(self.device, in_axes=(None, 0, 0))(theta, *samples)
            return jax.tree.map(lambda phi: phi.sum(0), phis)

        chunks = jax.tree.map(lambda part: part.reshape(-1, self.chunk, *part.shape[1:]), (x, y))
        return jax.tree.map(lambda part: lax.psum(part.sum(0), "processor"), lax.map(sum_of_chunk, chunks))

    def round(self, theta: Weights, alpha: Array, x: Array, y: Array) -> Weights:
        sums = self.sums(theta, x, y)
        return jax.tree.map(lambda old, total: old + alpha * (total / self.cohort - old), theta, sums)


def main() -> None:
    job, _, after = asked()
    rounds, theta, done = Rounds(job), split(job.theta, job.name), 0
    while True:
        theta = jax.block_until_ready(rounds.run(theta, np.float32(outer_step(done)), rounds.x, rounds.y))
        done += 1
        after(partial(joined, theta))


if __name__ == "__main__":
    main()
