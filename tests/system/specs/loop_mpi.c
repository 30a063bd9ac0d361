/* loop_mpi.c - ranks that meet in a barrier for ever; "loop_mpi RANK CODE": that rank exits after
 * ten rounds, "loop_mpi RANK loop": it computes for ever. They print while they meet, so that their
 * silence begins when something happens to one of them, not before. */
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    printf("rank %d is here\n", rank);
    fflush(stdout);
    for (long round = 0;; round++) {
        MPI_Barrier(MPI_COMM_WORLD);
        if (round % 20 == 19) {
            printf("round %ld\n", round);
            fflush(stdout);
        }
        bool ours = argc == 3 && rank == atoi(argv[1]) && round == 10;
        if (ours && strcmp(argv[2], "loop") != 0)
            _exit(atoi(argv[2]));
        for (volatile unsigned long count = 0; ours; count++)
            continue;
        usleep(1000);
    }
}
