/* The built-in table of sources. */
#include "source.h"

__attribute__((weak)) const tinyfl_source tinyfl_sources[] = {
    {.name = "sine", .sample = tinyfl_sine_source},
    {.name = NULL},
};
