/* What sources find as <math.h>: the core's functions of floats, for there is no C library (firmware/agent/source.h has their
 * errors). Their bits are the same on every board and on the host. */
#ifndef TINYFL_MATH_H
#define TINYFL_MATH_H

#include "source.h"

#define M_PI 3.14159265358979323846
#define M_PI_F 3.14159265f
#define NAN (__builtin_nanf(""))
#define INFINITY (__builtin_inff())

/* Macros: a compiler knows the names, and would compute constants by other functions. */
#define sinf tinyfl_sinf
#define cosf tinyfl_cosf
#define expf tinyfl_expf
#define logf tinyfl_logf
#define tanhf tinyfl_tanhf
#define sqrtf tinyfl_sqrtf
#define fabsf __builtin_fabsf
#define isnan(x) __builtin_isnan(x)
#define isinf(x) __builtin_isinf(x)
#define isfinite(x) __builtin_isfinite(x)

#endif
