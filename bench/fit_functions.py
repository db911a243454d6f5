"""Fits the coefficients of tanh and sin in firmware/core/functions.h: minimax in relative error, by linear programming.

Run as `python bench/fit_functions.py` (needs scipy). It prints each coefficient as a float32 and the largest error,
first of the fit itself and then of the whole function in float32.
"""

from collections.abc import Callable
from math import factorial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

TANH_END = 7.9  # beyond it tanh in float32 is within a few ulp of 1
SIN_END = np.pi / 2 * 1.0005  # slightly above the maximum of the reduced argument


def powers(z: F64, degree: int) -> F64:
    return np.vander(z, degree + 1, increasing=True)


def chebyshev_nodes(end: float, count: int) -> F64:
    x = np.cos(np.linspace(0, np.pi / 2, count)) * end
    return x[x > 1e-3]


def minimax(matrix: F64, target: F64) -> F64:
    """c with the least max |matrix c - target|."""
    count = matrix.shape[1]
    error = np.ones((len(target), 1))
    solution = linprog(
        np.r_[np.zeros(count), 1],
        A_ub=np.block([[matrix, -error], [-matrix, -error]]),
        b_ub=np.r_[target, -target],
        bounds=[(None, None)] * count + [(0, None)],
        method="highs",
    )
    return np.asarray(solution.x[:count])


def fit_tanh(p_degree: int = 5, q_degree: int = 3) -> tuple[F64, F64, float]:
    """p and q, lowest power first, of tanh x = x P(x^2) / Q(x^2), Q(0) = 1, and the relative error.

    P - t Q is linear in the coefficients, the error (P / Q - t) / t is not: each turn weighs by the last turn's 1 / Q
    (Loeb). The solver's tolerance of 1e-7 ends this at an error of 1.0e-7, where 0.5e-7 is the least; in float32 the better
    fit gains 0.3 of 6 ulp.
    """
    x = np.append(chebyshev_nodes(TANH_END, 2000), np.linspace(1e-3, 1, 300))
    t = np.tanh(x) / x
    scale = TANH_END**2  # keeps the powers near 1
    z = x * x / scale
    weight = np.ones_like(z)
    for _ in range(30):
        matrix = np.hstack([powers(z, p_degree) / t[:, None], -powers(z, q_degree)[:, 1:]])
        c = minimax(matrix * weight[:, None], weight)
        p, q = c[: p_degree + 1], np.r_[1, c[p_degree + 1 :]]
        weight = 1 / np.abs(powers(z, q_degree) @ q)
    error = np.abs(powers(z, p_degree) @ p / (powers(z, q_degree) @ q) / t - 1).max()
    p = p / scale ** np.arange(p_degree + 1)
    p[0] = 1  # within the error; exact near 0
    return p, q / scale ** np.arange(q_degree + 1), float(error)


def fit_sin(degree: int = 4) -> tuple[F64, float]:
    """p, lowest power first, of sin x = x P(x^2), P(0) = 1, and the relative error.

    Fits what is missing to the Taylor series, in units that lift the error far above the solver's tolerance of 1e-7.
    """
    unit = 1e-8
    x = chebyshev_nodes(SIN_END, 3000)
    matrix = powers(x * x, degree) / (np.sin(x) / x)[:, None]
    taylor = np.array([(-1) ** k / factorial(2 * k + 1) for k in range(degree + 1)])
    c = taylor + unit * np.r_[0, minimax(matrix[:, 1:], (1 - matrix @ taylor) / unit)]
    return c, float(np.abs(matrix @ c - 1).max())


def horner(coefficients: F64, z: F32) -> F32:
    value = np.full_like(z, np.float32(coefficients[-1]))
    for c in coefficients[-2::-1]:
        value = value * z + np.float32(c)
    return value


def ulps(y: F32, exact: F64) -> float:
    _, exponent = np.frexp(np.abs(exact))
    return float((np.abs(y - exact) / np.ldexp(1.0, exponent - 24)).max())


def show(name: str, coefficients: F64) -> None:
    print(f"  {name}:", ", ".join(f"{np.float32(c):.9g}" for c in coefficients[::-1]), "(highest power first)")


def float32_error(function: Callable[[F32], F32], exact: Callable[[F64], F64], end: float) -> float:
    x = np.linspace(1e-6, end, 4_000_001).astype(np.float32)
    return ulps(function(x), exact(x.astype(np.float64)))


def main() -> None:
    p, q, error = fit_tanh()
    print(f"tanh x = x P(x^2) / Q(x^2) to {TANH_END}, relative error {error:.2g} before P(0) is set to 1")
    show("P", p)
    show("Q", q)
    worst = float32_error(lambda x: x * horner(p, x * x) / horner(q, x * x), np.tanh, TANH_END)
    print(f"  in float32: within {worst:.2f} ulp")

    c, error = fit_sin()
    print(f"sin x = x P(x^2) to pi/2, relative error {error:.2g}")
    show("P", c)
    rest = np.r_[0, c[1:]]
    worst = float32_error(lambda x: horner(rest, x * x) * x + x, np.sin, np.pi / 2)
    print(f"  in float32: within {worst:.2f} ulp")


if __name__ == "__main__":
    main()
