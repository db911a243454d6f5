/* Running standardisation, a head that learns from one sample at a time, and a monitor of drift. */
#include "online.h"

#if TINYFL_LANES != 1
#error "online learning knows one device: build it without lanes"
#endif

#include "dense.h"
#include "losses.h"

#define LARGEST 3.4e38f /* of a loss, or what is made of losses */

static int aligned(const void *pointer) { return pointer && (uintptr_t)pointer % sizeof(float) == 0; }
static int within(float value, float limit) { return value >= 0.0f && value < limit; } /* NaN and -0.5 are not */
static int is_size(uint32_t count) { return count > 0 && count <= TINYFL_MAX_VALUES; }

/* One more, up to a cap; 0: the largest. */
static uint32_t counted(uint32_t count, uint32_t cap)
{
    const uint32_t most = cap > 0 ? cap : TINYFL_MAX_ONLINE;
    return count < most ? count + 1 : most;
}

/* A running mean with its next value, the count-th. */
static float towards(float mean, float value, uint32_t count) { return mean + (value - mean) * (1.0f / (float)count); }

static int fixed_outputs(const tinyfl_online_set *set)
{
    return set->head == TINYFL_HEAD_VALUES || set->head == TINYFL_HEAD_RECONSTRUCT;
}

static size_t standardised(const tinyfl_online_set *set)
{
    return set->standardised == TINYFL_NOT_STANDARDISED     ? 0
           : set->standardised == TINYFL_INPUTS_STANDARDISED ? set->inputs
                                                             : set->size;
}

static int is_set(const tinyfl_online_set *s)
{
    if (!s || s->head > TINYFL_HEAD_RECONSTRUCT || s->standardised > TINYFL_EMBEDDINGS_STANDARDISED || s->embedded > 1)
        return 0;
    if (s->unsure > 0 && fixed_outputs(s))
        return 0;
    if (!is_size(s->inputs) || !is_size(s->size) || !is_size(s->places))
        return 0;
    if (!s->embedded && (s->size != s->inputs || s->standardised == TINYFL_EMBEDDINGS_STANDARDISED))
        return 0;
    if ((uint64_t)(s->size + 1) * s->places > TINYFL_MAX_VALUES || (uint64_t)s->ring * s->size > TINYFL_MAX_VALUES)
        return 0;
    if (s->head != TINYFL_HEAD_RECONSTRUCT ? s->ring == 0
                                           : !s->embedded || s->size >= s->inputs || s->places != s->inputs || s->ring > 0)
        return 0;
    return s->cap <= TINYFL_MAX_ONLINE && s->window <= TINYFL_MAX_ONLINE && within(s->rate, TINYFL_LIMIT) &&
           within(s->clip, TINYFL_LIMIT) && s->threshold >= 0.0f && within(s->tolerance, TINYFL_LIMIT) &&
           within(s->alarm, TINYFL_LIMIT);
}

static size_t learnt_bytes(const tinyfl_online_set *set, uint32_t outputs)
{
    return sizeof(tinyfl_online_state) +
           (2 * standardised(set) + set->places + ((size_t)set->size + 1) * outputs) * sizeof(float);
}

TINYFL_API size_t tinyfl_online_bytes(const tinyfl_online_set *set)
{
    if (!is_set(set))
        return 0;
    return learnt_bytes(set, set->places) +
           (((size_t)set->size + 1) * set->ring + 3 * (size_t)set->places) * sizeof(float);
}

TINYFL_API size_t tinyfl_online_learnt_bytes(const tinyfl_online *online)
{
    return learnt_bytes(&online->set, online->state->outputs);
}

TINYFL_API int tinyfl_online_init(tinyfl_online *online, const tinyfl_online_set *set, uint32_t outputs, void *memory)
{
    const size_t bytes = tinyfl_online_bytes(set);
    if (!online || bytes == 0 || !aligned(memory) || outputs == 0 || outputs > set->places ||
        (fixed_outputs(set) && outputs != set->places))
        return TINYFL_EINVAL;
    const size_t n = standardised(set), places = set->places;
    tinyfl_online_state *state = memory;
    float *mean = (float *)(void *)(state + 1), *head = mean + 2 * n + places, *ring = head + (set->size + 1) * places;
    float *output = ring + ((size_t)set->size + 1) * set->ring;
    memset(memory, 0, bytes);
    state->outputs = outputs;
    *online = (tinyfl_online){.set = *set,
                              .state = state,
                              .mean = mean,
                              .variance = mean + n,
                              .counts = (void *)(mean + 2 * n),
                              .head = head,
                              .ring = ring,
                              .numbers = (void *)(ring + (size_t)set->size * set->ring),
                              .output = output,
                              .target = output + places,
                              .gradient = output + 2 * places};
    return TINYFL_OK;
}

TINYFL_API int tinyfl_online_enter(tinyfl_online *online, float *values)
{
    const size_t n = standardised(&online->set);
    if (n > 0 && !aligned(values))
        return TINYFL_EINVAL;
    if (!below(values, n, TINYFL_LIMIT))
        return TINYFL_ENUMERIC;
    if (n > 0)
        online->state->count = counted(online->state->count, online->set.cap);
    for (size_t i = 0; i < n; i++) {
        const float before = values[i] - online->mean[i];
        const float mean = online->mean[i] = towards(online->mean[i], values[i], online->state->count);
        const float after = values[i] - mean;
        const float variance = towards(online->variance[i], before * after, online->state->count);
        online->variance[i] = variance;
        values[i] = variance > 0x1p-100f ? after * real_rsqrt(variance) : 0.0f; /* rsqrt takes no subnormal number */
    }
    return TINYFL_OK;
}

static dense head_of(const tinyfl_online *online)
{
    const size_t outputs = online->state->outputs;
    return (dense){online->set.size, outputs, online->head, online->head + online->set.size * outputs};
}

/* The outputs for an embedding; whether both are good. */
static int forward(tinyfl_online *online, const float *embedding)
{
    const dense head = head_of(online);
    if (!below(embedding, head.inputs, TINYFL_LIMIT))
        return 0;
    dense_forward(&head, embedding, online->output);
    return below(online->output, head.outputs, TINYFL_LIMIT);
}

static uint8_t loss_number(const tinyfl_online_set *set)
{
    return set->head == TINYFL_HEAD_CLASSES  ? TINYFL_SOFTMAX_CROSS_ENTROPY
           : set->head == TINYFL_HEAD_LABELS ? TINYFL_SIGMOID_CROSS_ENTROPY
                                             : TINYFL_MEAN_SQUARED_ERROR;
}

/* The loss of `count` outputs and its gradient, from output and target; whether a step may follow. */
static int measure(tinyfl_online *online, const float *target, size_t count, float *loss)
{
    const float limit = TINYFL_LIMIT / (online->set.rate > 1.0f ? online->set.rate : 1.0f);
    *loss = loss_of(loss_number(&online->set), online->output, target, count, online->gradient);
    if (!(magnitude(*loss) < LARGEST) || !below(online->gradient, count, TINYFL_LIMIT))
        return 0;
    if (online->set.clip > 0.0f)
        clip_norm(online->gradient, count, online->set.clip);
    return below(online->gradient, count, limit);
}

static void step(tinyfl_online *online, const float *embedding)
{
    const dense head = head_of(online);
    if (online->set.rate > 0.0f)
        dense_backward(&head, embedding, online->gradient, online->set.rate, NULL, DENSE_UPDATE);
}

/* The monitor hears of an error: the running mean, and Page's test for a rise above what is usual. */
static void hear(tinyfl_online *online, float error)
{
    tinyfl_online_state *s = online->state;
    const float alarm = online->set.alarm;
    s->measured += s->measured < UINT32_MAX;
    s->error = towards(s->error, error, counted(s->measured - 1, online->set.window));
    if (!(alarm > 0.0f))
        return;
    s->compared = counted(s->compared, 0);
    s->usual = towards(s->usual, error, s->compared);
    const float excess = s->excess + (error - s->usual - online->set.tolerance);
    s->excess = excess > 0.0f ? excess : 0.0f;
    if (s->excess > alarm) {
        s->drifts += s->drifts < UINT32_MAX;
        s->drifted = s->samples;
        s->compared = 0;
        s->usual = s->excess = 0.0f;
    }
}

static size_t largest(const float *values, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/* How probable the prediction is that the outputs make; 0 for outputs that are no probabilities. */
static float confidence_of(const tinyfl_online *online)
{
    const size_t count = online->state->outputs;
    const float *o = online->output;
    float sum = 0.0f;
    if (online->set.head == TINYFL_HEAD_CLASSES) {
        const float top = o[largest(o, count)];
        for (size_t i = 0; i < count; i++)
            sum += real_exp(o[i] - top);
        return 1.0f / sum;
    }
    if (online->set.head == TINYFL_HEAD_LABELS)
        for (size_t i = 0; i < count; i++)
            sum += 1.0f / (1.0f + real_exp(-magnitude(o[i])));
    return sum / (float)count;
}

static void keep(tinyfl_online *online, const float *embedding)
{
    const size_t size = online->set.size, slot = online->state->samples % online->set.ring;
    memcpy(online->ring + slot * size, embedding, size * sizeof(float));
    online->numbers[slot] = online->state->samples;
}

TINYFL_API int tinyfl_online_sample(tinyfl_online *online, const float *embedding, const float *input,
                                    tinyfl_online_result *result)
{
    tinyfl_online_state *s = online->state;
    const int reconstructs = online->set.head == TINYFL_HEAD_RECONSTRUCT;
    float score = 0.0f;
    if (!result || !aligned(embedding) || (reconstructs && !aligned(input)))
        return TINYFL_EINVAL;
    if (!forward(online, embedding))
        return TINYFL_ENUMERIC;
    if (reconstructs && (!below(input, online->set.inputs, TINYFL_LIMIT) || !measure(online, input, s->outputs, &score)))
        return TINYFL_ENUMERIC;
    s->samples = s->samples < UINT32_MAX ? s->samples + 1 : 1;
    *result = (tinyfl_online_result){.number = s->samples,
                                     .confidence = confidence_of(online),
                                     .score = score,
                                     .learnt = reconstructs && score < online->set.threshold};
    if (online->set.head == TINYFL_HEAD_CLASSES)
        result->class_number = (uint32_t)largest(online->output, s->outputs);
    const int knows_one = online->set.head == TINYFL_HEAD_CLASSES && s->outputs == 1; /* whose probability is always 1 */
    if (online->set.unsure > 0 && (knows_one || result->confidence * 256.0f < (float)online->set.unsure))
        online->unsure = s->samples;
    s->confidence = towards(s->confidence, result->confidence, counted(s->samples - 1, online->set.window));
    if (result->learnt)
        step(online, embedding);
    if (reconstructs)
        hear(online, score);
    else
        keep(online, embedding);
    return TINYFL_OK;
}

/* The place in the ring of a sample that waits for its label, or NULL. */
static uint32_t *waiting(const tinyfl_online *online, uint32_t sample)
{
    uint32_t *number = online->set.ring > 0 ? &online->numbers[sample % online->set.ring] : NULL;
    return number && sample > 0 && *number == sample ? number : NULL;
}

static const float *embedding_of(const tinyfl_online *online, const uint32_t *number)
{
    return online->ring + (size_t)(number - online->numbers) * online->set.size;
}

TINYFL_API uint32_t tinyfl_online_wanted(const tinyfl_online *online)
{
    return waiting(online, online->unsure) ? online->unsure : 0;
}

static void append(tinyfl_online *online)
{
    const size_t n = online->state->outputs++;
    for (size_t i = (size_t)online->set.size + 1; i-- > 0;) {
        memmove(online->head + i * (n + 1), online->head + i * n, n * sizeof(float));
        online->head[i * (n + 1) + n] = 0.0f;
    }
}

TINYFL_API int tinyfl_online_label(tinyfl_online *online, uint32_t sample, uint32_t class_number, float *loss)
{
    tinyfl_online_state *s = online->state;
    const size_t count = s->outputs + (class_number == s->outputs);
    float value;
    if (online->set.head != TINYFL_HEAD_CLASSES || class_number > s->outputs || (loss && !aligned(loss)))
        return TINYFL_EINVAL;
    if (count > online->set.places)
        return TINYFL_EFULL;
    uint32_t *number = waiting(online, sample);
    if (!number)
        return TINYFL_EGONE;
    const float *embedding = embedding_of(online, number);
    if (!forward(online, embedding))
        return TINYFL_ENUMERIC;
    const float error = largest(online->output, s->outputs) == class_number ? 0.0f : 1.0f;
    online->output[count - 1] = class_number == s->outputs ? 0.0f : online->output[count - 1];
    memset(online->target, 0, count * sizeof(float));
    online->target[class_number] = 1.0f;
    if (!measure(online, online->target, count, &value))
        return TINYFL_ENUMERIC;
    if (class_number == s->outputs)
        append(online);
    online->counts[class_number] += online->counts[class_number] < UINT32_MAX;
    hear(online, error);
    step(online, embedding);
    *number = 0;
    if (loss)
        *loss = value;
    return TINYFL_OK;
}

/* The error of outputs for a target: of labels the share that is on the wrong side, of values their loss. */
static float error_of(const tinyfl_online *online, const float *target, float loss)
{
    uint32_t wrong = 0;
    if (online->set.head != TINYFL_HEAD_LABELS)
        return loss;
    for (size_t i = 0; i < online->state->outputs; i++)
        wrong += (online->output[i] > 0.0f) != (target[i] > 0.5f);
    return (float)wrong / (float)online->state->outputs;
}

TINYFL_API int tinyfl_online_target(tinyfl_online *online, uint32_t sample, const float *target, float *loss)
{
    const size_t count = online->state->outputs;
    const int labels = online->set.head == TINYFL_HEAD_LABELS;
    float value;
    if ((!labels && online->set.head != TINYFL_HEAD_VALUES) || !aligned(target) || (loss && !aligned(loss)))
        return TINYFL_EINVAL;
    for (size_t i = 0; labels && i < count; i++)
        if (!(target[i] >= 0.0f && target[i] <= 1.0f))
            return TINYFL_EINVAL;
    uint32_t *number = waiting(online, sample);
    if (!number)
        return TINYFL_EGONE;
    const float *embedding = embedding_of(online, number);
    if (!below(target, count, TINYFL_LIMIT) || !forward(online, embedding) || !measure(online, target, count, &value))
        return TINYFL_ENUMERIC;
    for (size_t i = 0; labels && i < count; i++)
        online->counts[i] += target[i] > 0.5f && online->counts[i] < UINT32_MAX;
    hear(online, error_of(online, target, value));
    step(online, embedding);
    *number = 0;
    if (loss)
        *loss = value;
    return TINYFL_OK;
}

TINYFL_API int tinyfl_online_add(tinyfl_online *online)
{
    if (fixed_outputs(&online->set))
        return TINYFL_EINVAL;
    if (online->state->outputs == online->set.places)
        return TINYFL_EFULL;
    append(online);
    return TINYFL_OK;
}

TINYFL_API int tinyfl_online_remove(tinyfl_online *online, uint32_t number)
{
    const size_t n = online->state->outputs;
    if (fixed_outputs(&online->set) || number >= n)
        return TINYFL_EINVAL;
    if (n == 1)
        return TINYFL_EONLY;
    float *to = online->head;
    for (size_t i = 0; i < ((size_t)online->set.size + 1) * n; i++)
        if (i % n != number)
            *to++ = online->head[i];
    memmove(online->counts + number, online->counts + number + 1, (n - number - 1) * sizeof(uint32_t));
    online->counts[n - 1] = 0;
    online->state->outputs--;
    return TINYFL_OK;
}

TINYFL_API int tinyfl_online_replace(tinyfl_online *online, uint32_t outputs, const float *head)
{
    const size_t count = ((size_t)online->set.size + 1) * outputs;
    if (!aligned(head) || outputs < online->state->outputs || outputs > online->set.places)
        return TINYFL_EINVAL;
    if (!below(head, count, TINYFL_LIMIT))
        return TINYFL_ENUMERIC;
    memcpy(online->head, head, count * sizeof(float));
    online->state->outputs = outputs;
    return TINYFL_OK;
}

/* Whether a state could be one that this set left: its numbers, and its values. */
static int checked(const tinyfl_online_set *set, const tinyfl_online_state *s)
{
    const uint32_t cap = set->cap > 0 ? set->cap : TINYFL_MAX_ONLINE;
    if (s->outputs == 0 || s->outputs > set->places || (fixed_outputs(set) && s->outputs != set->places) || s->count > cap ||
        s->compared > TINYFL_MAX_ONLINE)
        return TINYFL_EINVAL;
    const int fine = within(s->confidence, 2.0f) && within(s->error, LARGEST) && within(s->usual, LARGEST) && s->excess >= 0.0f &&
                     s->excess <= set->alarm;
    return fine ? TINYFL_OK : TINYFL_ENUMERIC;
}

TINYFL_API int tinyfl_online_restore(tinyfl_online *online, const void *bytes, size_t count)
{
    const tinyfl_online_set *set = &online->set;
    if (!aligned(bytes) || count < sizeof(tinyfl_online_state))
        return TINYFL_EINVAL;
    const tinyfl_online_state *s = bytes;
    const int code = checked(set, s);
    if (code != TINYFL_OK)
        return code;
    if (count != learnt_bytes(set, s->outputs))
        return TINYFL_EINVAL;
    const size_t n = standardised(set);
    const float *mean = (const float *)(const void *)(s + 1), *head = mean + 2 * n + set->places;
    for (size_t i = 0; i < n; i++)
        if (!(magnitude(mean[i]) < TINYFL_LIMIT) || !within(mean[n + i], LARGEST))
            return TINYFL_ENUMERIC;
    if (!below(head, ((size_t)set->size + 1) * s->outputs, TINYFL_LIMIT))
        return TINYFL_ENUMERIC;
    memmove(online->state, bytes, count);
    memset(online->numbers, 0, set->ring * sizeof(uint32_t));
    online->unsure = 0;
    return TINYFL_OK;
}
