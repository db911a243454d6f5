/* Acts of fuzz_agent.c against online learning. */
enum { START_ONLINE, SAMPLE_ONLINE, LABEL_ONLINE, FORGET_ONLINE, LISTEN, READ_ONLINE, PUT_LEARNT, PUT_HEAD, COMMIT_ONLINE, ONLINE_CUT,
       ONLINE_ACTS };

static const tinyfl_online *learning(void) { return agent->online.core.state ? &agent->online.core : NULL; }

/* A set's record over the learner's network or the inputs alone; with a byte changed if the first byte says so. */
static void start_online(const uint8_t *data, size_t count)
{
    uint8_t d[16] = {0}, record[TINYFL_ONLINE_RECORD] = {0};
    memcpy(d, data, count < sizeof d ? count : sizeof d);
    const int alone = d[1] & 1 || agent->state == TINYFL_EMPTY;
    tinyfl_online_set set = {.head = d[2] % 4, .standardised = d[3] % 3, .embedded = (uint8_t)!alone, .unsure = d[2] >> 2};
    const int all = set.head == TINYFL_HEAD_VALUES || set.head == TINYFL_HEAD_RECONSTRUCT;
    set.inputs = alone ? d[4] % 6 + 1u : agent->inputs;
    set.size = alone ? set.inputs : agent->outputs;
    set.places = set.head == TINYFL_HEAD_RECONSTRUCT ? set.inputs : d[5] % 6 + 1u;
    set.ring = set.head == TINYFL_HEAD_RECONSTRUCT ? 0 : d[6] % 4 + 1u;
    set.unsure = all ? 0 : set.unsure;
    set.cap = d[7], set.window = d[8];
    set.rate = (float)d[9] / 64.0f, set.clip = (float)(d[10] & 3), set.alarm = (float)(d[10] >> 4), set.threshold = 8.0f;
    tinyfl_put_word(record, alone ? 2 : 0);
    tinyfl_put_word(record + 4, all ? set.places : d[11] % 6 + 1u);
    tinyfl_put_word(record + 8, d[12] % 4);
    if (!alone)
        memcpy(record + 12, agent->hash, TINYFL_SHA256_BYTES);
    memcpy(record + 44, &set, sizeof set);
    if (d[0] & 0x80)
        record[d[13] % sizeof record] ^= d[14];
    put(19, record, sizeof record, d[0] & 0x40 ? d[15] : sizeof record);
}

static void sample_online(const uint8_t *data, size_t count)
{
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 3);
    number(&w, "number", learning() ? learning()->state->samples - (count > 0 && data[0] == 7) : 0);
    number(&w, "off", agent->online.fed);
    tinyfl_put_text(&w, "data");
    tinyfl_put_bytes(&w, data, count);
    request(20, &w);
}

static void label_online(const uint8_t *data, size_t count)
{
    if (count < 3)
        return;
    tinyfl_writer w = body();
    tinyfl_put_map(&w, data[0] & 1 ? 3 : 2);
    number(&w, "sample", (uint32_t)((learning() ? learning()->state->samples : 0) - data[1] % 4u));
    if (data[0] & 1) {
        number(&w, "label", data[2] % 8u);
        tinyfl_put_text(&w, "name");
        tinyfl_put_string(&w, (tinyfl_string){(const uint8_t *)"abcdefghijklmnopqrstuvwxyz" + data[1] % 3u, count % 20});
    } else {
        const size_t whole = learning() ? 4u * learning()->state->outputs : 0;
        tinyfl_put_text(&w, "data");
        tinyfl_put_bytes(&w, data + 2, !(data[0] & 2) && whole < count - 2 ? whole : count - 2);
    }
    request(21, &w);
}

static void forget_online(const uint8_t *data, size_t count)
{
    tinyfl_writer w = body();
    const int one = count > 0 && data[0] < 250;
    tinyfl_put_map(&w, one ? 2 : 0);
    if (one) {
        number(&w, "number", data[0] % 6u);
        number(&w, "outputs", (learning() ? learning()->state->outputs : 0) + (data[0] >> 6 == 1));
    }
    request(22, &w);
}

static void listen(const uint8_t *data, size_t count)
{
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 3);
    tinyfl_put_text(&w, "source");
    tinyfl_put_text(&w, count > 0 && data[0] & 4 ? "" : "sine");
    number(&w, "samples", count > 1 ? data[1] % 8u : 0);
    number(&w, "labels", count > 0 ? data[0] % 2u : 0);
    request(27, &w);
}

/* What is learnt, the head, or the monitor. */
static void read_online(const uint8_t *data, size_t count)
{
    static const uint8_t commands[] = {19, 23, 26};
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 2);
    number(&w, "off", count > 1 ? data[1] : 0);
    number(&w, "first", count > 1 ? data[1] % 8u : 0);
    ask(READ, commands[count > 0 ? data[0] % 3 : 0], &w);
}

/* What is learnt as it is, or a head of zeros with its names and perhaps further outputs; with a byte changed if the first says
 * so. */
static void put_back(int head, const uint8_t *data, size_t count)
{
    static uint8_t bytes[TINYFL_BUFFER];
    uint8_t d[6] = {0};
    memcpy(d, data, count < sizeof d ? count : sizeof d);
    const tinyfl_online *o = learning();
    if (!o)
        return;
    const size_t outputs = o->state->outputs + d[5] % 3u, weights = ((size_t)o->set.size + 1) * outputs * sizeof(float);
    const size_t names = tinyfl_online_names(agent) > 0 ? TINYFL_NAME_BYTES * outputs : 0;
    const size_t whole = head ? names + weights : tinyfl_online_learnt_bytes(o);
    if (whole > sizeof bytes - 100)
        return;
    memset(bytes, 0, whole);
    if (!head)
        memcpy(bytes, o->state, whole);
    else if (names > 0)
        memcpy(bytes, agent->online.names, TINYFL_NAME_BYTES * (size_t)o->state->outputs);
    if (d[0] & 0x80)
        bytes[(d[2] + 256u * d[3]) % whole] ^= d[4];
    put(head ? 26 : 23, bytes, whole, d[0] & 0x40 ? d[1] : whole);
}

static void commit_online(int back)
{
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 0);
    request(back ? 25 : 24, &w);
}

static void act_online(int which, const uint8_t *data, size_t count)
{
    switch (which) {
    case START_ONLINE:
        start_online(data, count);
        break;
    case SAMPLE_ONLINE:
        sample_online(data, count);
        break;
    case LABEL_ONLINE:
        label_online(data, count);
        break;
    case FORGET_ONLINE:
        forget_online(data, count);
        break;
    case LISTEN:
        listen(data, count);
        break;
    case READ_ONLINE:
        read_online(data, count);
        break;
    case PUT_LEARNT:
    case PUT_HEAD:
        put_back(which == PUT_HEAD, data, count);
        break;
    case COMMIT_ONLINE:
        commit_online(count > 0 && data[0] & 1);
        break;
    default:
        events_left = count > 0 ? data[0] : 0;
        commit_online(0);
        board_start(1024, 0);
    }
}

/* What is learnt lies in the arena, beside the learner, and the core would put it back. */
static void check_online(void)
{
    const tinyfl_online *o = learning();
    tinyfl_online twin;
    if (!o)
        return;
    if (agent->online.claimed > agent->arena_bytes || o->state->outputs == 0 || o->state->outputs > o->set.places)
        abort();
    if (agent->state != TINYFL_EMPTY && tinyfl_learner_end(agent) > tinyfl_arena_end(agent))
        abort();
    const size_t count = tinyfl_online_learnt_bytes(o);
    uint8_t *copy = malloc(count), *memory = malloc(tinyfl_online_bytes(&o->set));
    memcpy(copy, o->state, count);
    if (tinyfl_online_init(&twin, &o->set, o->state->outputs, memory) != TINYFL_OK ||
        tinyfl_online_restore(&twin, copy, count) != TINYFL_OK)
        abort();
    free(copy), free(memory);
}
