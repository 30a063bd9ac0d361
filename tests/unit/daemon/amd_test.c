/* amd_test.c - AMD's GPUs from a tree as the kernel shows it; values as of two cards. */
#include "worker/daemon/amd.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/attempt/gpu_usage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    char sysfs[40];
    struct inventory inventory;
    struct err err;
};

static void put(struct fixture *f, const char *path, const char *text)
{
    char *full = mem_printf("%s/%s", f->sysfs, path), *folder = mem_strdup(full);
    *strrchr(folder, '/') = '\0';
    assert_int_equal(file_make_folders(folder, 0700, &f->err), 0);
    assert_int_equal(file_replace(full, text, strlen(text), 0600, &f->err), 0);
    mem_free(folder);
    mem_free(full);
}

#define NODES "class/kfd/kfd/topology/nodes/"

static int set_up(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    snprintf(f->sysfs, sizeof f->sysfs, "/tmp/athanor-amd-XXXXXX");
    assert_non_null(mkdtemp(f->sysfs));
    f->inventory.gpus =
        arena_alloc(&f->inventory.arena, INVENTORY_GPUS_MAX * sizeof *f->inventory.gpus);
    put(f, NODES "0/properties", "cpu_cores_count 64\nsimd_count 0\ndrm_render_minor 0\n");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    inventory_done(&f->inventory);
    assert_int_equal(file_remove_tree(f->sysfs, &f->err), 0);
    mem_free(f);
    return 0;
}

static void two_gpus(struct fixture *f)
{
    put(f, NODES "1/properties",
        "cpu_cores_count 0\nsimd_count 440\nlocation_id 49408\ndomain 0\n"
        "drm_render_minor 128\nunique_id 13104370384215042372\n");
    put(f, NODES "1/name", "aldebaran\n");
    put(f, "class/drm/renderD128/device/mem_info_vram_total", "68702699520\n");
    put(f, "class/drm/renderD128/device/mem_info_vram_used", "1000000000\n");
    put(f, "class/drm/renderD128/device/gpu_busy_percent", "37\n");
    put(f, "class/drm/renderD128/device/product_name", "Instinct MI250X\n");
    put(f, NODES "2/properties",
        "simd_count 192\nlocation_id 2816\ndomain 1\ndrm_render_minor 129\nunique_id 0\n");
    put(f, NODES "2/name", "ip discovery\n");
    put(f, "class/drm/renderD129/device/mem_info_vram_total", "48301604864\n");
    put(f, "class/drm/renderD129/device/mem_info_vram_used", "12\n");
}

static void gpus_are_found_with_their_words_places_and_files(void **state)
{
    struct fixture *f = *state;
    const struct inventory_gpu *gpus = f->inventory.gpus;
    two_gpus(f);
    assert_int_equal(amd_list(f->sysfs, &f->inventory, &f->err), 0);
    assert_int_equal(f->inventory.gpu_count, 2);
    assert_string_equal(gpus[0].model, "AMD Instinct MI250X");
    assert_string_equal(gpus[0].visible, "GPU-b5dc136f3c496944");
    assert_string_equal(gpus[0].pci, "0000:c1:00.0");
    assert_string_equal(gpus[0].device, "/dev/dri/renderD128");
    assert_int_equal(gpus[0].memory_bytes, 68702699520);
    assert_string_equal(gpus[1].model, "AMD ip discovery");
    assert_string_equal(gpus[1].visible, "1");
    assert_string_equal(gpus[1].uuid, "AMD-renderD129");
    assert_string_equal(gpus[1].pci, "0001:0b:00.0");
    assert_true(gpus[0].is_amd && gpus[1].is_amd);
}

static void what_they_use_is_read_from_the_same_tree(void **state)
{
    struct fixture *f = *state;
    struct buf text = {0};
    struct gpu_usage usage;
    two_gpus(f);
    assert_int_equal(amd_list(f->sysfs, &f->inventory, &f->err), 0);
    assert_true(inventory_gpu_tells(&f->inventory.gpus[0]));
    assert_int_equal(inventory_gpu_is_free(&f->inventory.gpus[1], &f->err), 0);
    put(f, "class/drm/renderD128/device/mem_info_vram_used", "9000000000\n");
    assert_int_equal(inventory_gpu_is_free(&f->inventory.gpus[0], &f->err), -1);
    assert_int_equal(inventory_gpu_usage(&f->inventory, &text, &f->err), 0);
    gpu_usage_sum(buf_text(&text), "GPU-b5dc136f3c496944", UINT64_MAX, UINT64_MAX, &usage);
    assert_true(usage.busy_known && usage.used_known);
    assert_int_equal(usage.busy_percent, 37);
    assert_int_equal(usage.used_bytes, 9000000000);
    gpu_usage_sum(buf_text(&text), "1", UINT64_MAX, UINT64_MAX, &usage);
    assert_false(usage.busy_known); /* this card does not tell */
    assert_int_equal(usage.used_bytes, 12);
    buf_done(&text);
}

static void a_machine_without_the_driver_has_none(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(amd_list("/tmp/there-is-no-such-folder", &f->inventory, &f->err), 0);
    assert_int_equal(amd_list(f->sysfs, &f->inventory, &f->err), 0); /* a processor alone */
    assert_int_equal(f->inventory.gpu_count, 0);
}

static void a_gpu_of_which_nothing_can_be_known_is_named(void **state)
{
    struct fixture *f = *state;
    put(f, NODES "1/properties", "simd_count 440\ndrm_render_minor 128\n");
    assert_int_equal(amd_list(f->sysfs, &f->inventory, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_PROTOCOL);
    assert_non_null(strstr(f->err.text, "nodes/1"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(gpus_are_found_with_their_words_places_and_files),
        TEST(what_they_use_is_read_from_the_same_tree),
        TEST(a_machine_without_the_driver_has_none),
        TEST(a_gpu_of_which_nothing_can_be_known_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
