/* Inference: runs an int8 program in place, in its slot (SPEC.md, program and slots).
 *
 * Its working memory is the upper end of the agent's arena. The learner, at the lower end, takes precedence: while the two
 * would overlap, predictions are refused. A set of classes is above both. */
#include <string.h>

#include "commands.h"

enum { MAGIC = 4, COUNT = 4, HASH = 8, HEADER = 40 };

static const tinyfl_slot *slot_of(const tinyfl_agent *agent) { return &agent->port->slots[TINYFL_PROGRAM_SLOT]; }

static const uint8_t *program_in(const tinyfl_agent *agent) { return slot_of(agent)->bytes + HEADER; }

/* Maximum bytes of a program in the slot. */
static uint32_t room(const tinyfl_agent *agent)
{
    return slot_of(agent)->count > HEADER ? slot_of(agent)->count - HEADER : 0;
}

static void drop_program(tinyfl_agent *agent)
{
    agent->program_upload = (tinyfl_upload){0};
    tinyfl_drop_prediction(agent);
}

/* Opens the completely uploaded program. 0 or a refusal. */
static int open_program(tinyfl_agent *agent)
{
    if (!tinyfl_upload_whole(agent->port, &agent->program_upload, program_in(agent)))
        return TINYFL_REFUSED_HASH;
    if (tinyfl_program_open(&agent->program, program_in(agent), agent->program_upload.count) != TINYFL_OK)
        return TINYFL_REFUSED_PLAN;
    return agent->program.arena_bytes <= agent->arena_bytes ? 0 : TINYFL_REFUSED_MEMORY;
}

void tinyfl_load_program(tinyfl_agent *agent)
{
    const uint8_t *slot = slot_of(agent)->bytes;
    if (room(agent) == 0 || memcmp(slot, "TFLS", MAGIC) != 0)
        return;
    const uint32_t count = tinyfl_word_at(slot + COUNT);
    if (count == 0 || count > room(agent))
        return;
    agent->program_upload = (tinyfl_upload){.count = count, .done = count};
    memcpy(agent->program_upload.sha, slot + HASH, TINYFL_SHA256_BYTES);
    if (open_program(agent) != 0)
        drop_program(agent);
}

/* Erases the slot for the program announced by the block. 0 or a refusal. */
static int start_program(tinyfl_agent *agent, const tinyfl_block *block)
{
    if (block->count > room(agent))
        return TINYFL_REFUSED_MEMORY;
    drop_program(agent);
    tinyfl_drop_sets_of(agent, TINYFL_OF_PROGRAM);
    if (agent->port->erase(TINYFL_PROGRAM_SLOT) != 0)
        return TINYFL_REFUSED_FLASH;
    tinyfl_upload_start(&agent->program_upload, block);
    return 0;
}

/* Validates the slot with its complete program by writing the header, its first word last. 0 or a refusal. */
static int finish_program(tinyfl_agent *agent)
{
    const tinyfl_port *port = agent->port;
    const int refusal = open_program(agent);
    if (refusal)
        return refusal;
    uint8_t header[HEADER] = "TFLS";
    tinyfl_put_word(header + COUNT, agent->program_upload.count);
    memcpy(header + HASH, agent->program_upload.sha, TINYFL_SHA256_BYTES);
    if (port->program(TINYFL_PROGRAM_SLOT, MAGIC, header + MAGIC, HEADER - MAGIC) != 0 ||
        port->program(TINYFL_PROGRAM_SLOT, 0, header, MAGIC) != 0)
        return TINYFL_REFUSED_FLASH;
    return 0;
}

/* Writes the block's whole words to flash, padding the program's last word. 0 or a refusal. */
static int take_program(tinyfl_agent *agent, const tinyfl_block *block)
{
    const tinyfl_port *port = agent->port;
    tinyfl_upload *upload = &agent->program_upload;
    const uint32_t left = upload->count - upload->done, at = HEADER + upload->done;
    const size_t whole = block->data.count / 4 * 4, rest = block->data.count == left ? left % 4 : 0;
    uint8_t last[4] = {0xff, 0xff, 0xff, 0xff};
    if (port->program(TINYFL_PROGRAM_SLOT, at, block->data.bytes, whole) != 0)
        return TINYFL_REFUSED_FLASH;
    if (rest > 0) {
        memcpy(last, block->data.bytes + whole, rest);
        if (port->program(TINYFL_PROGRAM_SLOT, at + (uint32_t)whole, last, sizeof last) != 0)
            return TINYFL_REFUSED_FLASH;
    }
    upload->done += (uint32_t)(whole + rest);
    return upload->done == upload->count ? finish_program(agent) : 0;
}

int tinyfl_program_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_block block;
    if (!tinyfl_block_read(request, UINT32_MAX, &block))
        return TINYFL_REFUSED_INVALID;
    int refusal = tinyfl_block_continues(&block, &agent->program_upload) ? 0 : start_program(agent, &block);
    if (refusal)
        return refusal;
    const int next = tinyfl_upload_next(&agent->program_upload, &block);
    if (next < 0)
        return -next;
    refusal = next ? take_program(agent, &block) : 0;
    if (refusal) {
        drop_program(agent);
        return refusal;
    }
    return tinyfl_put_offset(reply, agent->program_upload.done);
}

/* The program's working memory; NULL if it overlaps the learner's. */
static uint8_t *program_arena(const tinyfl_agent *agent)
{
    const size_t start = (tinyfl_arena_end(agent) - agent->program.arena_bytes) / sizeof(uint64_t) * sizeof(uint64_t);
    const int fits = agent->program.arena_bytes <= tinyfl_arena_end(agent) && start >= tinyfl_learner_end(agent);
    return fits ? agent->arena + start : NULL;
}

/* Adds to the input, and runs the program once it is complete. 0 or a refusal. */
static int add_input(tinyfl_agent *agent, uint8_t *arena, tinyfl_string data)
{
    const tinyfl_program *program = &agent->program;
    const uint32_t missing = program->input.bytes - agent->predicted;
    if (data.count > missing)
        return TINYFL_REFUSED_INVALID;
    if (data.count == 0)
        return 0;
    memcpy(arena + program->input.offset + agent->predicted, data.bytes, data.count);
    agent->predicted += (uint32_t)data.count;
    if (data.count < missing)
        return 0;
    return tinyfl_program_run(program, arena, program->arena_bytes) == TINYFL_OK ? 0 : TINYFL_REFUSED_MEMORY;
}

/* Adds a request's block to the input. 1 once the output is ready, 0 before, or minus a refusal. */
static int take_block(tinyfl_agent *agent, const tinyfl_map *request, uint8_t **arena)
{
    uint64_t off;
    tinyfl_string data;
    if (!tinyfl_get_uint(request, "off", UINT32_MAX, &off) || !tinyfl_get_bytes(request, "data", &data))
        return -TINYFL_REFUSED_INVALID;
    if (!tinyfl_has_program(agent))
        return -TINYFL_REFUSED_STATE;
    *arena = program_arena(agent);
    if (!*arena)
        return -TINYFL_REFUSED_MEMORY;
    if (off == 0)
        tinyfl_drop_prediction(agent);
    const int refusal = off == agent->predicted ? add_input(agent, *arena, data) : 0;
    return refusal ? -refusal : agent->predicted == agent->program.input.bytes;
}

int tinyfl_predict(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    const tinyfl_tensor *output = &agent->program.output;
    uint8_t *arena;
    const int complete = take_block(agent, request, &arena);
    if (complete < 0)
        return -complete;
    if (!complete)
        return tinyfl_put_offset(reply, agent->predicted);
    return tinyfl_put_part(reply, agent->predicted, arena + output->offset, output->bytes, 0);
}

int tinyfl_take_input(tinyfl_agent *agent, const tinyfl_map *request, float *outputs, uint64_t *off)
{
    const tinyfl_tensor *output = &agent->program.output;
    uint8_t *arena;
    const int complete = take_block(agent, request, &arena);
    *off = agent->predicted;
    if (complete <= 0)
        return complete;
    if (output->dtype == TINYFL_FLOAT32)
        memcpy(outputs, arena + output->offset, output->bytes);
    for (uint32_t i = 0; output->dtype == TINYFL_INT8 && i < output->bytes; i++)
        outputs[i] = output->scale * (float)((int8_t)arena[output->offset + i] - output->zero);
    return 1;
}

int tinyfl_prediction(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    const tinyfl_tensor *output = &agent->program.output;
    const uint8_t *arena = tinyfl_has_program(agent) ? program_arena(agent) : NULL;
    uint64_t off;
    if (!arena || agent->predicted < agent->program.input.bytes)
        return TINYFL_REFUSED_STATE;
    if (!tinyfl_get_uint(request, "off", output->bytes, &off))
        return TINYFL_REFUSED_INVALID;
    return tinyfl_put_part(reply, off, arena + output->offset, output->bytes, off);
}
