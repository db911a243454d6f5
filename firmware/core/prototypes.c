/* Prototypes: class means of the support set, the loss of queries, and both ways back. */
#include "prototypes.h"

#include "functions.h"
#include "plan.h"

TINYFL_API real tinyfl_prototypes_loss(real *distances, tinyfl_word own, size_t places, mask *counted)
{
    const float infinite = __builtin_inff();
    real least = real_of(infinite), of_own = real_of(infinite), sum = real_of(0.0f);
    for (size_t k = 0; k < places; k++) {
        least = where(distances[k] < least, distances[k], least);
        of_own = where(own == word_of((uint32_t)k), distances[k], of_own);
    }
    *counted = of_own < infinite;
    for (size_t k = 0; k < places; k++) {
        const mask there = *counted & (distances[k] < infinite);
        const real apart = where(there, least - distances[k], real_of(0.0f));
        distances[k] = where(there, real_exp(apart), real_of(0.0f));
        sum += distances[k];
    }
    sum = where(*counted, sum, real_of(1.0f));
    for (size_t k = 0; k < places; k++) {
        const mask here = *counted & (own == word_of((uint32_t)k));
        distances[k] = where(here, real_of(1.0f), real_of(0.0f)) - distances[k] / sum;
    }
    return where(*counted, real_log(sum) + (of_own - least), real_of(0.0f));
}

TINYFL_API size_t tinyfl_prototypes_reals(size_t size, uint32_t ways) { return 2 * ((size + 1) * ways); }

static const tinyfl_phase *phase_of(const tinyfl_loop *loop) { return &loop->inner->phases[loop->phase]; }

/* The class means, in the loop's memory. */
static tinyfl_means means_of(const tinyfl_loop *loop)
{
    const tinyfl_plan *plan = loop->learner->plan;
    const size_t size = outputs_of(&plan->layers[plan->count - 1]);
    const uint32_t ways = phase_of(loop)->ways;
    real *sums = loop->prototypes;
    return (tinyfl_means){.size = (uint32_t)size, .places = ways, .sums = sums, .counts = (void *)(sums + size * ways)};
}

/* The gradients with respect to the class means, behind them, and then the distances. */
static real *pulls_of(const tinyfl_means *means) { return means->sums + ((size_t)means->size + 1) * means->places; }

static real *distances_of(const tinyfl_means *means) { return pulls_of(means) + (size_t)means->size * means->places; }

TINYFL_API void tinyfl_prototypes_clear(tinyfl_loop *loop)
{
    const tinyfl_means means = means_of(loop);
    memset(loop->prototypes, 0, tinyfl_prototypes_reals(means.size, means.places) * sizeof(real));
}

/* The place of the largest target, the first on a tie. */
static tinyfl_word class_of(const real *y, size_t count)
{
    tinyfl_word found = word_of(0);
    real most = y[0];
    for (size_t j = 1; j < count; j++) {
        const mask more = y[j] > most;
        most = where(more, y[j], most);
        found = bits_of(where(more, from_bits(word_of((uint32_t)j)), from_bits(found)));
    }
    return found;
}

/* 1 over a class's number of samples. */
static real share_of(const tinyfl_means *means, size_t k)
{
    return 1.0f / where(means->counts[k] != word_of(0), to_real((whole)means->counts[k]), real_of(1.0f));
}

/* The loss of a query, and its gradient with respect to the embedding, 2 sum_k g_k (e - c_k). Each class mean c_k gets
 * -2 g_k (e - c_k). */
static real query(const tinyfl_means *means, const real *embedding, tinyfl_word own, real *gradient)
{
    real *pulls = pulls_of(means), *g = distances_of(means);
    mask counted;
    tinyfl_means_distances(means, embedding, g);
    const real loss = tinyfl_prototypes_loss(g, own, means->places, &counted);
    memset(gradient, 0, means->size * sizeof *gradient);
    for (size_t k = 0; k < means->places; k++) {
        const real share = share_of(means, k), twice = 2.0f * g[k];
        for (size_t i = 0, at = k * means->size; i < means->size; i++, at++) {
            const real part = twice * (embedding[i] - means->sums[at] * share);
            gradient[i] += part;
            pulls[at] -= part;
        }
    }
    return loss;
}

/* The gradient with respect to a support sample's embedding: its share of that with respect to its class's mean. */
static void support(const tinyfl_means *means, tinyfl_word own, real *gradient)
{
    memset(gradient, 0, means->size * sizeof *gradient);
    for (uint32_t k = 0; k < means->places; k++) {
        const mask here = own == word_of(k);
        const real share = share_of(means, k), *pulls = pulls_of(means) + (size_t)k * means->size;
        for (size_t i = 0; i < means->size && any(here); i++)
            gradient[i] = where(here, share * pulls[i], gradient[i]);
    }
}

TINYFL_API int tinyfl_prototypes_learn(tinyfl_loop *loop, const real *x, const real *y)
{
    tinyfl_learner *learner = loop->learner;
    const tinyfl_phase *p = phase_of(loop);
    tinyfl_means means = means_of(loop);
    mask ok;
    real *output;
    const int code = tinyfl_look(learner, x, y, &ok, &output);
    if (code != TINYFL_OK)
        return code;
    const tinyfl_word own = class_of(y, means.size);
    real *gradient = tinyfl_gradient_at(learner, means.size), loss = real_of(0.0f);
    if (loop->sample < p->support) {
        learner->alive &= ok;
        (void)tinyfl_means_add(&means, own, output); /* a class beyond the ways has no place, and does not count */
    } else {
        if (loop->sample < p->samples)
            loss = query(&means, output, own, gradient);
        else
            support(&means, own, gradient);
        ok &= below(gradient, means.size, TINYFL_LIMIT);
        if (!any(learner->alive & ok))
            return TINYFL_ENUMERIC;
        learner->alive &= ok;
        loop->loss += loss;
        tinyfl_sweep(learner, x, output, loop->gradient);
    }
    return any(learner->alive) ? TINYFL_OK : TINYFL_ENUMERIC;
}
