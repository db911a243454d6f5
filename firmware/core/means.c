/* Class means, and the nearest of them. */
#include "means.h"

#include "functions.h"

TINYFL_API size_t tinyfl_means_bytes(uint32_t size, uint32_t places)
{
    if (size == 0 || places == 0 || (uint64_t)size * places > TINYFL_MAX_VALUES)
        return 0;
    return ((size_t)size + 1) * places * sizeof(real);
}

TINYFL_API int tinyfl_means_init(tinyfl_means *means, uint32_t size, uint32_t places, const real *centre, int normalised,
                                 void *memory)
{
    const size_t bytes = tinyfl_means_bytes(size, places);
    if (!means || bytes == 0 || !memory || (uintptr_t)memory % sizeof(real) != 0 || (uintptr_t)centre % sizeof(real) != 0)
        return TINYFL_EINVAL;
    if (centre && !any(below(centre, size, TINYFL_LIMIT)))
        return TINYFL_ENUMERIC;
    real *sums = memory;
    *means = (tinyfl_means){.size = size,
                            .places = places,
                            .centre = centre,
                            .normalised = normalised,
                            .sums = sums,
                            .counts = (void *)(sums + (size_t)size * places)};
    memset(memory, 0, bytes);
    return TINYFL_OK;
}

TINYFL_API void tinyfl_means_prepare(const tinyfl_means *means, real *embedding)
{
    real sum = real_of(0.0f);
    for (size_t i = 0; i < means->size; i++) {
        if (means->centre)
            embedding[i] -= means->centre[i];
        sum += embedding[i] * embedding[i];
    }
    if (!means->normalised)
        return;
    const real scale = where(sum > 0x1p-100f, real_rsqrt(sum), real_of(1.0f)); /* rsqrt takes no subnormal number */
    for (size_t i = 0; i < means->size; i++)
        embedding[i] = embedding[i] * scale;
}

TINYFL_API int tinyfl_means_add(tinyfl_means *means, tinyfl_word class_number, const real *embedding)
{
    const mask ok = below(embedding, means->size, TINYFL_LIMIT);
    mask found = none();
    for (uint32_t k = 0; k < means->places; k++) {
        const mask here = class_number == word_of(k), added = here & ok & (means->counts[k] < word_of(TINYFL_MAX_MEAN));
        found |= here;
        if (!any(added))
            continue;
        real *sum = means->sums + (size_t)k * means->size;
        for (size_t i = 0; i < means->size; i++)
            sum[i] += where(added, embedding[i], real_of(0.0f));
        means->counts[k] += (tinyfl_word)added & word_of(1);
    }
    return !any(found) ? TINYFL_EINVAL : any(found & ok) ? TINYFL_OK : TINYFL_ENUMERIC;
}

TINYFL_API int tinyfl_means_clear(tinyfl_means *means, uint32_t class_number)
{
    if (!means || class_number >= means->places)
        return TINYFL_EINVAL;
    memset(means->sums + (size_t)class_number * means->size, 0, means->size * sizeof(real));
    means->counts[class_number] = word_of(0);
    return TINYFL_OK;
}

/* The squared distance to the mean of class k. */
static real distance_to(const tinyfl_means *means, size_t k, const real *embedding)
{
    const mask there = means->counts[k] != word_of(0);
    const real share = 1.0f / where(there, to_real((whole)means->counts[k]), real_of(1.0f));
    const real *sum = means->sums + k * means->size;
    real distance = real_of(0.0f);
    for (size_t i = 0; i < means->size; i++) {
        const real difference = embedding[i] - sum[i] * share;
        distance += difference * difference;
    }
    return where(there, distance, real_of(__builtin_inff()));
}

TINYFL_API void tinyfl_means_distances(const tinyfl_means *means, const real *embedding, real *distances)
{
    for (size_t k = 0; k < means->places; k++)
        distances[k] = distance_to(means, k, embedding);
}

TINYFL_API void tinyfl_means_nearest(const tinyfl_means *means, const real *embedding, float threshold,
                                     tinyfl_word *class_number, real *distance)
{
    const mask ok = below(embedding, means->size, TINYFL_LIMIT);
    tinyfl_word nearest = word_of(TINYFL_NO_CLASS);
    real least = real_of(__builtin_inff());
    for (uint32_t k = 0; k < means->places; k++) {
        const real next = distance_to(means, k, embedding);
        const mask nearer = ok & (next < least);
        least = where(nearer, next, least);
        nearest = bits_of(where(nearer & (next <= threshold), from_bits(word_of(k)), from_bits(nearest)));
    }
    *class_number = nearest;
    if (distance)
        *distance = least;
}
