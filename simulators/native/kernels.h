#include "dense_tiles.h"
#include "conv_tiles.h"
