/* Multiply-adds a second of one core, in vectors of LANES floats: 12 independent sums, each in a register of its own. Compiled
 * with -ffp-contract=fast for fused multiply-adds, with off for a multiply and an add apart, as SPEC.md has them. */
#include <stdio.h>
#include <time.h>

typedef float v __attribute__((vector_size(4 * LANES)));

/* The compiler must take the value for a new one, in a register: an array of sums would live in memory. */
#if defined(__aarch64__)
#define NEW(x) __asm__ volatile("" : "+w"(x))
#elif LANES == 16
#define NEW(x) __asm__ volatile("" : "+v"(x))
#else
#define NEW(x) __asm__ volatile("" : "+x"(x))
#endif

#define EACH(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7) what(8) what(9) what(10) what(11)
#define BEGIN(k) v sum##k = (v){0} + (float)k;
#define STEP(k)                                                                                                               \
    sum##k = sum##k + x * y;                                                                                                  \
    NEW(sum##k);                                                                                                              \
    NEW(x);

int main(void)
{
    enum { ROUNDS = 1000000 };
    double best = 0;
    for (int repeat = 0; repeat < 60; repeat++) {
        v x = (v){0} + 0.999f, y = (v){0} + 0.001f;
        EACH(BEGIN)
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (int i = 0; i < ROUNDS; i++) {
            EACH(STEP)
        }
        clock_gettime(CLOCK_MONOTONIC, &end);
        const double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
        const double speed = 12.0 * ROUNDS * LANES / seconds;
        best = speed > best ? speed : best;
    }
    printf("%.0f\n", best);
    return 0;
}
