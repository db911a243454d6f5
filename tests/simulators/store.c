/* Instead of the agent's main, for an emulated board: 'c' and a number commits the set of that number, and says the code; 'f'
 * leaves no room for it in the area; 'r' says the set. */
#include "store.h"
#include "string.h"

int main(void);

static const tinyfl_port *port;
static tinyfl_store store;

static int next_byte(void)
{
    int byte;
    while ((byte = port->read()) < 0) {
        port->alive();
        port->idle();
    }
    return byte;
}

/* "a" is new in each set, "b" there in each second, "c" always the same. */
static int commit(int number)
{
    static uint32_t a[2], b[6], c[2] = {1, 2};
    const uint32_t there = number % 2 ? sizeof b : 0;
    const tinyfl_record records[] = {{"a", a, sizeof a}, {"b", b, there}, {"c", c, sizeof c}, {"filler", a, 0}};
    for (uint32_t i = 0; i < 6; i++)
        a[i % 2] = b[i] = (uint32_t)number * 1000 + i;
    return tinyfl_store_commit(&store, records, 4);
}

static int fill(void)
{
    const tinyfl_slot *area = &port->slots[TINYFL_STORE_SLOT];
    const tinyfl_record filler = {"filler", port->slots[0].bytes, area->count - store.end - 76};
    return tinyfl_store_commit(&store, &filler, 1);
}

static void say(const char *name)
{
    uint32_t count;
    const uint8_t *data = tinyfl_store_find(&store, name, &count);
    port->write((const uint8_t *)&count, sizeof count);
    if (data)
        port->write(data, count);
}

int main(void)
{
    port = tinyfl_port_start();
    tinyfl_store_open(&store, port);
    for (;;) {
        const int what = next_byte();
        if (what == 'c') {
            const uint8_t code = (uint8_t)commit(next_byte());
            port->write(&code, 1);
        } else if (what == 'f') {
            const uint8_t code = (uint8_t)fill();
            port->write(&code, 1);
        } else if (what == 'r') {
            say("a");
            say("b");
            say("c");
        }
    }
}
