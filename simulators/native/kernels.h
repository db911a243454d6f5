/* The host's faster twins of the kernels in firmware/core, which learner.c takes by TINYFL_KERNELS: fast_ and the plain name. */
#include "dense_tiles.h"
#include "conv_tiles.h"
