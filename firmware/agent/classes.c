/* Classes that come and go while the board runs: each is the mean of its samples' embeddings (core/means.h). An embedding is
 * the output of the learner's network, or of the int8 program, dequantised. The set lies at the upper end of the arena, above
 * the program's working memory; a commit keeps it in the store (SPEC.md, classes). */
#include <string.h>

#include "commands.h"

enum { CENTRED = 1, NORMALISED = 2 };
enum { STAGE = 0, FLAGS = 4, PLACES = 8, THRESHOLD = 12, SHA = 16, HEADER = 48 }; /* of the set's record; then the centre */
enum { LABEL = TINYFL_NAME_BYTES };

/* Numbers of the stage's embedding, and the hash of what gives it; 0 if the stage is not here. */
static uint32_t stage_size(const tinyfl_agent *agent, uint32_t stage, const uint8_t **sha)
{
    const tinyfl_tensor *output = &agent->program.output;
    *sha = stage == TINYFL_OF_LEARNER ? agent->hash : agent->program_upload.sha;
    if (stage == TINYFL_OF_LEARNER)
        return tinyfl_has_weights(agent) ? agent->outputs : 0;
    return tinyfl_has_program(agent) ? output->bytes / (output->dtype == TINYFL_INT8 ? 1 : 4) : 0;
}

/* Lays out an empty set below its complete record, which is at the upper end of the arena. 0 or a refusal. */
static int take_set(tinyfl_agent *agent, size_t count)
{
    tinyfl_classes *set = &agent->classes;
    const uint8_t *record = tinyfl_top(agent, count), *sha;
    if (count < HEADER)
        return TINYFL_REFUSED_INVALID;
    const uint32_t stage = tinyfl_word_at(record + STAGE), flags = tinyfl_word_at(record + FLAGS);
    const uint32_t places = tinyfl_word_at(record + PLACES);
    float threshold;
    memcpy(&threshold, record + THRESHOLD, sizeof threshold);
    if (stage > TINYFL_OF_PROGRAM || flags > (CENTRED | NORMALISED) || places == 0 || places > TINYFL_MAX_CLASSES ||
        !(threshold >= 0.0f))
        return TINYFL_REFUSED_INVALID;
    const uint32_t size = stage_size(agent, stage, &sha);
    if (size == 0)
        return TINYFL_REFUSED_STATE;
    if (memcmp(sha, record + SHA, TINYFL_SHA256_BYTES) != 0)
        return TINYFL_REFUSED_BASE;
    const size_t centre = flags & CENTRED ? size * sizeof(float) : 0, means = tinyfl_means_bytes(size, places);
    if (count != HEADER + centre)
        return TINYFL_REFUSED_INVALID;
    if (means == 0)
        return TINYFL_REFUSED_MEMORY;
    const size_t records = tinyfl_rounded((TINYFL_MAX_CLASSES + 3) * sizeof(tinyfl_record));
    const size_t labels = tinyfl_rounded((size_t)places * (LABEL + 4)), embedding = tinyfl_rounded(size * sizeof(float));
    uint8_t *memory = tinyfl_claim_classes(agent, records + labels + embedding + tinyfl_rounded(means) + tinyfl_rounded(count));
    if (!memory)
        return TINYFL_REFUSED_MEMORY;
    set->records = (void *)memory;
    set->labels = memory + records;
    set->embedding = (void *)(memory + records + labels);
    memset(set->labels, 0, labels);
    set->stage = stage;
    set->threshold = threshold;
    memcpy(set->sha, sha, sizeof set->sha);
    const float *middle = centre ? (const void *)(record + HEADER) : NULL;
    if (tinyfl_means_init(&set->means, size, places, middle, (flags & NORMALISED) != 0, memory + records + labels + embedding) !=
        TINYFL_OK)
        return TINYFL_REFUSED_NUMERIC;
    return 0;
}

int tinyfl_classes_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_block b;
    if (!tinyfl_block_read(request, agent->arena_bytes, &b))
        return TINYFL_REFUSED_INVALID;
    if (!tinyfl_block_continues(&b, &agent->classes.upload)) {
        tinyfl_drop_classes(agent);
        if (!tinyfl_claim_classes(agent, (size_t)b.count))
            return TINYFL_REFUSED_MEMORY;
        tinyfl_upload_start(&agent->classes.upload, &b);
    }
    tinyfl_upload *upload = &agent->classes.upload;
    const int last = tinyfl_take_block(agent->port, upload, &b, tinyfl_top(agent, upload->count));
    const int refusal = last < 0 ? -last : last ? take_set(agent, upload->count) : 0;
    if (refusal) {
        if (last)
            tinyfl_drop_classes(agent);
        return refusal;
    }
    return tinyfl_put_offset(reply, upload->done);
}

static uint8_t *label_of(const tinyfl_agent *agent, uint32_t number)
{
    return agent->classes.labels + 4 * agent->classes.means.places + (size_t)number * LABEL;
}

static tinyfl_string name_of(const tinyfl_agent *agent, uint32_t number)
{
    return tinyfl_padded(label_of(agent, number), LABEL);
}

/* The first class from `number` on that is there. */
static uint32_t next_class(const tinyfl_agent *agent, uint32_t number)
{
    while (number < agent->classes.means.places && agent->classes.means.counts[number] == 0)
        number++;
    return number;
}

int tinyfl_classes_read(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    enum { AROUND = 120, EACH = 5 + 5 + LABEL + 1 }; /* maximum bytes of the reply besides the classes, and of each */
    const tinyfl_means *means = &agent->classes.means;
    const size_t most = (reply->room - AROUND) / EACH;
    uint64_t from;
    if (!tinyfl_get_uint(request, "first", UINT32_MAX, &from))
        return TINYFL_REFUSED_INVALID;
    const uint32_t first = next_class(agent, (uint32_t)from);
    size_t found = 0;
    uint32_t end = first;
    for (; end < means->places && found < most; end = next_class(agent, end + 1))
        found++;
    tinyfl_put_map(reply, 6);
    tinyfl_put_text(reply, "set");
    tinyfl_put_bytes(reply, agent->classes.upload.sha, tinyfl_has_classes(agent) ? TINYFL_SHA256_BYTES : 0);
    tinyfl_put_text(reply, "places");
    tinyfl_put_uint(reply, means->places);
    tinyfl_put_text(reply, "next"); /* to ask for: the number of places at the end */
    tinyfl_put_uint(reply, end < means->places ? end : means->places);
    tinyfl_put_text(reply, "numbers");
    tinyfl_put_array(reply, found);
    for (uint32_t i = first, k = 0; k < found; i = next_class(agent, i + 1), k++)
        tinyfl_put_uint(reply, i);
    tinyfl_put_text(reply, "counts");
    tinyfl_put_array(reply, found);
    for (uint32_t i = first, k = 0; k < found; i = next_class(agent, i + 1), k++)
        tinyfl_put_uint(reply, means->counts[i]);
    tinyfl_put_text(reply, "names");
    tinyfl_put_array(reply, found);
    for (uint32_t i = first, k = 0; k < found; i = next_class(agent, i + 1), k++)
        tinyfl_put_string(reply, name_of(agent, i));
    return 0;
}

/* Adds a block to the current sample. 1 if it is complete, and its prepared embedding ready; 0 if not, or minus a refusal. `off`
 * gets the expected offset. */
static int take_sample(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_feed feed, uint64_t *off)
{
    tinyfl_classes *set = &agent->classes;
    if (!tinyfl_has_classes(agent))
        return -TINYFL_REFUSED_STATE;
    const uint8_t *sha;
    if (stage_size(agent, set->stage, &sha) == 0)
        return -TINYFL_REFUSED_STATE;
    if (memcmp(sha, set->sha, sizeof set->sha) != 0)
        return -TINYFL_REFUSED_BASE;
    const int complete = set->stage == TINYFL_OF_LEARNER ? tinyfl_take_x(agent, request, feed, set->embedding, off)
                                               : tinyfl_take_input(agent, request, set->embedding, off);
    if (complete > 0)
        tinyfl_means_prepare(&set->means, set->embedding);
    return complete;
}

int tinyfl_enrol(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_means *means = &agent->classes.means;
    tinyfl_string name = {NULL, 0};
    uint64_t number, count, off = 0;
    const int named = tinyfl_get_text(request, "name", &name);
    if (!tinyfl_get_uint(request, "number", UINT32_MAX, &number) || !tinyfl_get_uint(request, "count", UINT32_MAX, &count) ||
        name.count > LABEL)
        return TINYFL_REFUSED_INVALID;
    if (!tinyfl_has_classes(agent))
        return TINYFL_REFUSED_STATE;
    if (number >= means->places)
        return TINYFL_REFUSED_INVALID;
    const uint32_t before = means->counts[number];
    const int again = before == count + 1 && agent->classes.last == number + 1; /* a repeat of the sample added last */
    if (!again && before != count)
        return TINYFL_REFUSED_BASE;
    const int complete = again ? 1 : take_sample(agent, request, TINYFL_ENROL, &off);
    if (complete < 0)
        return -complete;
    if (complete && !again) {
        if (tinyfl_means_add(means, (uint32_t)number, agent->classes.embedding) != TINYFL_OK)
            return TINYFL_REFUSED_NUMERIC;
        agent->classes.last = (uint32_t)number + 1;
        agent->feed = TINYFL_NO_STREAM; /* the next sample starts anew */
        tinyfl_drop_prediction(agent);
        if (named) {
            memset(label_of(agent, (uint32_t)number), 0, LABEL);
            if (name.count > 0)
                memcpy(label_of(agent, (uint32_t)number), name.bytes, name.count);
        }
    }
    if (again)
        off = agent->classes.stage == TINYFL_OF_LEARNER ? agent->inputs * sizeof(float) : agent->program.input.bytes;
    tinyfl_put_map(reply, complete ? 2 : 1);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, off);
    if (complete) {
        tinyfl_put_text(reply, "count");
        tinyfl_put_uint(reply, means->counts[number]);
    }
    return 0;
}

int tinyfl_classify(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    const tinyfl_classes *set = &agent->classes;
    uint64_t off;
    const int complete = take_sample(agent, request, TINYFL_CLASSIFY, &off);
    if (complete < 0)
        return -complete;
    tinyfl_put_map(reply, complete ? 4 : 1);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, off);
    if (!complete)
        return 0;
    tinyfl_word number;
    float distance;
    tinyfl_means_nearest(&set->means, set->embedding, set->threshold, &number, &distance);
    tinyfl_put_text(reply, "number");
    tinyfl_put_int(reply, number == TINYFL_NO_CLASS ? -1 : (int32_t)number);
    tinyfl_put_text(reply, "distance");
    tinyfl_put_float(reply, distance);
    tinyfl_put_text(reply, "name");
    tinyfl_put_string(reply, number == TINYFL_NO_CLASS ? (tinyfl_string){(const uint8_t *)"", 0} : name_of(agent, number));
    return 0;
}

/* Without a class the whole set is dropped. */
int tinyfl_forget(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    uint64_t number;
    if (!tinyfl_get_uint(request, "number", UINT32_MAX, &number))
        tinyfl_drop_classes(agent);
    else if (number >= agent->classes.means.places)
        return tinyfl_has_classes(agent) ? TINYFL_REFUSED_INVALID : TINYFL_REFUSED_STATE;
    else {
        (void)tinyfl_means_clear(&agent->classes.means, (uint32_t)number);
        memset(label_of(agent, (uint32_t)number), 0, LABEL);
        agent->classes.last = 0;
    }
    uint32_t left = 0;
    for (uint32_t i = next_class(agent, 0); i < agent->classes.means.places; i = next_class(agent, i + 1))
        left++;
    tinyfl_put_map(reply, 1);
    tinyfl_put_text(reply, "left");
    tinyfl_put_uint(reply, left);
    return 0;
}

/* "sum/N", of class N. */
static void name_sum(char name[TINYFL_NAME_BYTES], uint32_t number)
{
    memset(name, 0, TINYFL_NAME_BYTES);
    memcpy(name, "sum/000", 7);
    for (int at = 6; at > 3; at--, number /= 10)
        name[at] = (char)('0' + number % 10);
}

/* The set's record, the counts and names, and the sums of each class that is there. */
int tinyfl_classes_commit(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    (void)request;
    const tinyfl_classes *set = &agent->classes;
    const tinyfl_means *means = &set->means;
    tinyfl_record *records = set->records;
    if (!tinyfl_has_classes(agent))
        return TINYFL_REFUSED_STATE;
    records[0] = (tinyfl_record){"classes", tinyfl_top(agent, set->upload.count), set->upload.count};
    memcpy(set->labels, means->counts, 4 * means->places);
    records[1] = (tinyfl_record){"labels", set->labels, (4 + LABEL) * means->places};
    for (uint32_t i = 0; i < TINYFL_MAX_CLASSES; i++) {
        const int there = i < means->places && means->counts[i] > 0;
        records[2 + i].data = there ? means->sums + (size_t)i * means->size : means->sums;
        records[2 + i].count = there ? means->size * (uint32_t)sizeof(float) : 0;
        name_sum(records[2 + i].name, i);
    }
    records[TINYFL_MAX_CLASSES + 2] = (tinyfl_record){"online", set->labels, 0};
    const int refusal = tinyfl_store_commit(&agent->store, records, TINYFL_MAX_CLASSES + 3);
    return refusal ? refusal : tinyfl_put_commits(agent, reply);
}

/* Fills an empty set from the store. */
static int restore(tinyfl_agent *agent)
{
    tinyfl_classes *set = &agent->classes;
    tinyfl_means *means = &set->means;
    char name[TINYFL_NAME_BYTES];
    uint32_t count;
    const void *labels = tinyfl_store_find(&agent->store, "labels", &count);
    if (!labels || count != (4 + LABEL) * means->places)
        return 0;
    memcpy(set->labels, labels, count);
    memcpy(means->counts, labels, 4 * means->places);
    for (uint32_t i = next_class(agent, 0); i < means->places; i = next_class(agent, i + 1)) {
        name_sum(name, i);
        const void *sum = tinyfl_store_find(&agent->store, name, &count);
        if (!sum || count != means->size * sizeof(float))
            return 0;
        memcpy(means->sums + (size_t)i * means->size, sum, count);
    }
    return 1;
}

void tinyfl_load_classes(tinyfl_agent *agent)
{
    uint32_t count;
    tinyfl_store_open(&agent->store, agent->port);
    const void *record = tinyfl_store_find(&agent->store, "classes", &count);
    uint8_t *place = record ? tinyfl_claim_classes(agent, count) : NULL;
    if (!place)
        return;
    memcpy(place, record, count);
    agent->classes.upload = (tinyfl_upload){.count = count, .done = count};
    tinyfl_sha256_of(place, count, agent->classes.upload.sha);
    if (take_set(agent, count) != 0 || !restore(agent))
        tinyfl_drop_classes(agent);
}
