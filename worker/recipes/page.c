/* page.c - see page.h. */
#include "worker/recipes/page.h"

#include "common/base/roff.h"
#include "worker/recipes/registry.h"

/* A list with spaces, so that its line can be broken. */
static void add_default(struct buf *out, const struct param *param)
{
    buf_puts(out, "; default ");
    for (const char *at = param->initial; *at; at++)
        if (*at == ';' && param->type == PARAM_LIST)
            buf_puts(out, ", ");
        else
            buf_putc(out, *at);
}

/* "(from 0 to 0.9; default 0.1)" after the help. */
static void add_param(struct buf *out, const struct param *param)
{
    struct buf help = {0}, facts = {0};
    if (param->choices)
        buf_printf(&facts, "; one of %s", param->choices);
    if (param->min < param->max && param->type == PARAM_INT)
        buf_printf(&facts, "; from %.0f to %.0f", param->min, param->max);
    else if (param->min < param->max)
        buf_printf(&facts, "; from %.12g to %.12g", param->min, param->max);
    if (!param->initial)
        buf_puts(&facts, "; required");
    else if (*param->initial)
        add_default(&facts, param);
    buf_puts(&help, param->help);
    if (facts.length)
        buf_printf(&help, " (%s)", facts.bytes + 2);
    roff_item(out, param->name, param_type_name(param->type), help.bytes);
    buf_done(&help);
    buf_done(&facts);
}

static void add_recipe(struct buf *out, const struct recipe *recipe)
{
    struct buf text = {0};
    buf_printf(&text, "%s/%s", recipe_kind_name(recipe->kind), recipe->name);
    roff_subsection(out, text.bytes);
    buf_clear(&text);
    buf_printf(&text, "%s\n\nSource: %s\n\nMakes: %s", recipe->summary, recipe->source,
               recipe->outputs);
    roff_text(out, text.bytes);
    for (size_t i = 0; i < recipe->input_count; i++) {
        const struct input *input = &recipe->inputs[i];
        buf_clear(&text);
        buf_printf(&text, "%s (input%s)", input->help, input->required ? ", required" : "");
        roff_item(out, input->name, input_type_name(input->type), text.bytes);
    }
    for (size_t i = 0; i < recipe->param_count; i++)
        add_param(out, &recipe->params[i]);
    buf_done(&text);
}

char *page_man(const char *usage)
{
    struct buf out = {0};
    roff_title(&out, "athanor-engine", 1, "Athanor " ENGINE_VERSION,
               "trains, distils, unlearns and evaluates language models");
    roff_section(&out, "USAGE");
    roff_block(&out, usage);
    roff_section(&out, "RECIPES");
    for (size_t i = 0; i < recipe_count(); i++)
        add_recipe(&out, recipe_at(i));
    roff_section(&out, "SEE ALSO");
    roff_text(&out, "athanor(1), athanor-worker(8)");
    return buf_take(&out);
}
