/* Who has which part of the arena, and what a change makes stale. From the lower end: the plan, the weights and the learner, with
 * what a round adds behind them; then the program's working memory; at the upper end a set of class means, or one that learns
 * online. */
#include "commands.h"

size_t tinyfl_weights_bytes(const tinyfl_agent *agent) { return tinyfl_plan_weights(&agent->plan) * sizeof(float); }

void tinyfl_drop_plan(tinyfl_agent *agent)
{
    agent->state = TINYFL_EMPTY;
    agent->plan_upload = agent->weights_upload = (tinyfl_upload){0};
    agent->held = (tinyfl_held){0};
    agent->kept = (tinyfl_kept){0};
    agent->feed = TINYFL_NO_STREAM;
}

int tinyfl_has_weights(const tinyfl_agent *agent)
{
    const tinyfl_inner *inner = &agent->round.inner;
    return agent->state == TINYFL_READY ||
           (agent->state == TINYFL_LEARNT && inner->returns == TINYFL_CHANGE && !inner->local &&
            inner->up.kind == TINYFL_CODEC_FP32);
}

int tinyfl_has_program(const tinyfl_agent *agent)
{
    return agent->program_upload.count > 0 && agent->program_upload.done == agent->program_upload.count;
}

size_t tinyfl_learner_end(const tinyfl_agent *agent)
{
    if (agent->state == TINYFL_EMPTY)
        return agent->plan_upload.count;
    const size_t loop = agent->state == TINYFL_LEARNING ? tinyfl_loop_bytes(&agent->plan, &agent->round.inner) : 0;
    return (size_t)((const uint8_t *)(agent->kept.blocks + 2 * agent->kept.count) - agent->arena) + loop;
}

void tinyfl_drop_prediction(tinyfl_agent *agent) { agent->predicted = 0; }

void tinyfl_drop_classes(tinyfl_agent *agent)
{
    agent->classes = (tinyfl_classes){0};
    tinyfl_drop_prediction(agent);
}

void tinyfl_drop_online(tinyfl_agent *agent)
{
    agent->online = (tinyfl_online_board){0};
    tinyfl_drop_prediction(agent);
}

void tinyfl_drop_sets_of(tinyfl_agent *agent, tinyfl_stage stage)
{
    if (agent->classes.claimed > 0 && (!tinyfl_has_classes(agent) || agent->classes.stage == stage))
        tinyfl_drop_classes(agent);
    if (agent->online.claimed > 0 && (!tinyfl_has_online(agent) || agent->online.stage == stage))
        tinyfl_drop_online(agent);
}

/* Whether the learner leaves the upper `bytes`. */
static int is_free(const tinyfl_agent *agent, size_t bytes)
{
    const size_t end = tinyfl_top_end(agent), whole = tinyfl_rounded(bytes);
    return whole <= end && end - whole >= tinyfl_learner_end(agent);
}

static uint8_t *claim(tinyfl_agent *agent, size_t bytes, size_t *claimed)
{
    uint8_t *start = tinyfl_top(agent, bytes);
    *claimed = agent->arena_bytes - (size_t)(start - agent->arena);
    tinyfl_drop_prediction(agent);
    return start;
}

uint8_t *tinyfl_claim_classes(tinyfl_agent *agent, size_t bytes)
{
    if (!is_free(agent, bytes))
        return NULL;
    tinyfl_drop_online(agent);
    return claim(agent, bytes, &agent->classes.claimed);
}

uint8_t *tinyfl_claim_online(tinyfl_agent *agent, size_t bytes)
{
    if (!is_free(agent, bytes))
        return NULL;
    tinyfl_drop_classes(agent);
    return claim(agent, bytes, &agent->online.claimed);
}
