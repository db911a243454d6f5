/* The built-in table of sources. */
#include "source.h"

__attribute__((weak)) const tinyfl_source tinyfl_sources[] = {{"sine", tinyfl_sine_source}, {NULL, NULL}};
