/* device_filter.c - see device_filter.h. Opcodes and structures as in linux/bpf.h. */
#include "worker/attempt/device_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define FIXED        8u /* instructions around the list */
#define EACH         4u
#define PROGRAM_SIZE (FIXED + EACH * DEVICE_FILTER_MAX)

struct program {
    struct bpf_insn items[PROGRAM_SIZE];
    unsigned count;
};

int device_number_of(const char *path, struct device_number *out, struct err *err)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return err_errno(err, "device '%s'", path);
    if (!S_ISCHR(status.st_mode))
        return err_set(err, ERR_INVALID, "'%s' is no character device", path);
    *out = (struct device_number){major(status.st_rdev), minor(status.st_rdev)};
    return 0;
}

static void add(struct program *program, uint8_t code, uint8_t to, uint8_t from, int16_t offset,
                unsigned number)
{
    CHECK(program->count < PROGRAM_SIZE);
    program->items[program->count++] = (struct bpf_insn){.code = code,
                                                         .dst_reg = to & 15u,
                                                         .src_reg = from & 15u,
                                                         .off = offset,
                                                         .imm = (int32_t)number};
}

static void answer(struct program *program, unsigned allowed)
{
    add(program, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, allowed);
    add(program, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* if (type is character) for each: if (major == M && minor == m) return 0; return 1 */
static void program_make(struct program *program, const struct device_number *refused, size_t count)
{
    const uint8_t load = BPF_LDX | BPF_MEM | BPF_W, differs = BPF_JMP | BPF_JNE | BPF_K;
    add(program, load, BPF_REG_2, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, access_type), 0);
    add(program, BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff);
    add(program, load, BPF_REG_3, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, major), 0);
    add(program, load, BPF_REG_4, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, minor), 0);
    add(program, differs, BPF_REG_2, 0, (int16_t)(EACH * count), BPF_DEVCG_DEV_CHAR);
    for (size_t i = 0; i < count; i++) {
        add(program, differs, BPF_REG_3, 0, 3, refused[i].major);
        add(program, differs, BPF_REG_4, 0, 2, refused[i].minor);
        answer(program, 0);
    }
    answer(program, 1);
}

static int bpf(enum bpf_cmd command, union bpf_attr *attributes)
{
    return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

static int program_load(const struct program *program)
{
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes); /* unused parts must be zero */
    attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attributes.insn_cnt = program->count;
    attributes.insns = (uint64_t)(uintptr_t)program->items;
    attributes.license = (uint64_t)(uintptr_t) ""; /* only helpers ask for one; none is called */
    return bpf(BPF_PROG_LOAD, &attributes);
}

/* Beside programs of the groups above, of which every one must allow too. */
static int program_attach(int program_fd, int group_fd)
{
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.target_fd = (uint32_t)group_fd;
    attributes.attach_bpf_fd = (uint32_t)program_fd;
    attributes.attach_type = BPF_CGROUP_DEVICE;
    attributes.attach_flags = BPF_F_ALLOW_MULTI;
    return bpf(BPF_PROG_ATTACH, &attributes);
}

int device_filter_attach(const char *cgroup, const struct device_number *refused, size_t count,
                         struct err *err)
{
    struct program program = {.count = 0};
    if (count == 0)
        return 0;
    if (count > DEVICE_FILTER_MAX)
        return err_set(err, ERR_LIMIT, "%zu devices to be refused, at most %u are", count,
                       DEVICE_FILTER_MAX);
    program_make(&program, refused, count);
    int group_fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    int program_fd = group_fd < 0 ? -1 : program_load(&program);
    if (group_fd < 0)
        rc = err_errno(err, "open cgroup '%s'", cgroup);
    else if (program_fd < 0)
        rc = err_errno(err, "load a device filter into the kernel");
    else if (program_attach(program_fd, group_fd) < 0)
        rc = err_errno(err, "attach a device filter to '%s'", cgroup);
    if (program_fd >= 0)
        close(program_fd); /* the group holds it */
    if (group_fd >= 0)
        close(group_fd);
    return rc;
}
