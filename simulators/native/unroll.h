/* Makes the host's compiler unroll what the core marks; before the core's headers. */
#ifndef TINYFL_UNROLL
#if defined(__clang__)
#define TINYFL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TINYFL_UNROLL _Pragma("GCC unroll 32")
#endif
#endif
