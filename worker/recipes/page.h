/* page.h - athanor-engine(1), with every recipe from its tables. */
#ifndef ATHANOR_RECIPES_PAGE_H
#define ATHANOR_RECIPES_PAGE_H

/* `usage` is what --help prints. mem_free. */
char *page_man(const char *usage);

#endif
